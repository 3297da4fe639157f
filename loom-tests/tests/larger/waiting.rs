//! M8 to M18, those that are not about deciding, with three to six threads.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::Waker;

use annals::internals::id::Position;
use annals::internals::index::{self, Index, SlotKey};
use annals::internals::reserve::accepted;
use annals::internals::reserve::cell::Cell;
use annals::internals::reserve::decide::Look;
use annals::internals::sync::doorbell::Doorbell;
use annals::internals::sync::epoch::Domain;
use annals::internals::sync::followers::{self, Followers, Seat};
use annals::internals::sync::permits::{Permits, Taken};
use annals::internals::sync::wake_word::WakeWord;
use annals::internals::sync::watermark::Watermark;
use loom_tests::{
    Bell, Fault, LogWriter, Part, Payload, Shard, UnsafeCell, block_on, broken, holds,
};
use shuttle::thread::{self, JoinHandle};

fn spawn<S: Send + Sync + 'static, R: Send + 'static>(
    shared: &Arc<S>,
    run: impl FnOnce(&S) -> R + Send + 'static,
) -> JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || run(&shared))
}

fn join_all<R>(threads: impl IntoIterator<Item = JoinHandle<R>>) -> Vec<R> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// M8. Two readers beside three writes to two slots that are published one by one: who sees the watermark beyond a write
/// sees it in both slots.
fn readers_beside_publication(watermark_first: bool) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(2));
        let readers = [0, 1].map(|_| {
            spawn(&shard, |shard| {
                let end = shard.watermark.get().get();
                let heads = [0, 1].map(|slot| shard.slots[slot].head().get());
                // The n-th write stands at n, and the watermark behind it at n + 1.
                let durable = heads.iter().all(|head| head + 1 >= end);
                assert!(durable, "a durable write that is not shown");
            })
        });
        for nth in 1..=3 {
            let end = Position::from_raw(nth + 1);
            if watermark_first {
                shard.watermark.publish(end);
            }
            for slot in &shard.slots {
                slot.publish_version(nth, Position::from_raw(nth));
            }
            shard.watermark.publish(end);
        }
        join_all(readers);
    }
}

#[test]
fn m8_readers_beside_publication() {
    holds(4_000, readers_beside_publication(false));
}

#[test]
fn m8_broken_the_watermark_published_before_the_slots() {
    broken(None, &["a durable write that is not shown"], readers_beside_publication(true));
}

/// A shard whose log writer sleeps when it has nothing to do.
struct Sleepy {
    shard: Shard,
    doorbell: Doorbell,
    bell: Bell,
}

/// M9 and M16. Four pushers, one of which stops before it calls, beside a log writer that sleeps in between: what the
/// others push is taken.
fn pushers_beside_a_sleeper() {
    let sleepy =
        Arc::new(Sleepy { shard: Shard::new(0), doorbell: Doorbell::new(), bell: Bell::new() });
    let pushers = [0, 1, 2, 3].map(|nth| {
        spawn(&sleepy, move |sleepy| {
            let name = ["stopped", "a", "b", "c"][nth];
            sleepy.shard.submit(sleepy.shard.write(name, &[])).unwrap();
            if sleepy.doorbell.must_wake() && nth > 0 {
                sleepy.bell.ring();
            }
        })
    });
    let mut writer = LogWriter::new(&sleepy.shard);
    while !["a", "b", "c"].iter().all(|name| writer.log().contains(name)) {
        writer.place();
        let all = ["a", "b", "c"].iter().all(|name| writer.log().contains(name));
        sleepy
            .doorbell
            .sleep_unless(|| all || !sleepy.shard.stack.is_empty(), || sleepy.bell.sleep());
    }
    join_all(pushers);
}

#[test]
fn m9_m16_pushers_beside_a_sleeper() {
    holds(4_000, pushers_beside_a_sleeper);
}

#[test]
fn m9_m16_broken_one_calls_for_all() {
    broken(Fault::RingsOnce, &["deadlock"], pushers_beside_a_sleeper);
}

struct Ticket {
    cell: Cell<(), u32>,
    word: WakeWord,
}

// SAFETY: the cell is settled once, by one thread.
unsafe impl Sync for Ticket {}

/// M10. Three threads and a task wait for one answer, on a word that is also woken for another.
fn waiters_for_an_answer() {
    let ticket = Arc::new(Ticket { cell: Cell::new(()), word: WakeWord::new() });
    let waiters = [0, 1, 2].map(|_| {
        spawn(&ticket, |ticket| {
            assert_eq!(ticket.cell.wait(&ticket.word, None), Some(&42));
        })
    });
    let task = spawn(&ticket, |ticket| {
        assert_eq!(block_on(|waker| ticket.cell.poll(waker).copied()), 42);
    });
    ticket.word.wake_all();
    // SAFETY: once, by one thread.
    let waker = unsafe { ticket.cell.settle(42) };
    ticket.word.wake_all();
    waker.into_iter().for_each(Waker::wake);
    join_all(waiters);
    task.join().unwrap();
}

#[test]
fn m10_waiters_for_an_answer() {
    holds(4_000, waiters_for_an_answer);
}

#[test]
fn m10_broken_no_look_after_the_registration() {
    broken(Fault::PollsOnce, &["deadlock"], waiters_for_an_answer);
}

/// M11 and M12. A shard stops beside four pushers: each push is taken before the end, with the end, or refused.
fn pushers_beside_a_stop(closes: bool) -> impl Fn() {
    move || {
        let shard = Arc::new(Shard::new(0));
        let pushers = [0, 1, 2, 3].map(|nth| {
            spawn(&shard, move |shard| {
                shard.submit(shard.write(["a", "b", "c", "d"][nth], &[])).is_some()
            })
        });
        let mut taken = shard.stack.take().count();
        taken += if closes { shard.stack.close().count() } else { shard.stack.take().count() };
        let pushed = join_all(pushers).into_iter().filter(|pushed| *pushed).count();
        assert_eq!(taken, pushed, "a write pushed and never taken");
    }
}

#[test]
fn m11_m12_pushers_beside_a_stop() {
    holds(4_000, pushers_beside_a_stop(true));
}

#[test]
fn m11_m12_broken_the_stack_left_open() {
    broken(None, &["a write pushed and never taken"], pushers_beside_a_stop(false));
}

/// M13. Four callers share permits for two, two of them waiting and two giving up at once: none is lost, and none of those
/// who wait is left behind.
fn callers_share_permits() {
    const ONE: Taken = Taken { bytes: 1, blocks: 1 };
    let permits = Permits::new(2);
    permits.grant(1);
    let permits = Arc::new(permits);
    let callers = [0, 1, 2, 3].map(|nth| {
        spawn(&permits, move |permits| {
            let mut taken = permits.take(ONE).is_ok();
            while !taken && nth < 2 {
                let room = permits.room().register();
                taken = permits.take_after_look(ONE).is_ok();
                if !taken {
                    room.sleep(None);
                }
            }
            if taken {
                permits.give_back(ONE);
            }
        })
    });
    join_all(callers);
    assert_eq!((permits.bytes_left(), permits.blocks_left()), (2, 1), "a permit lost");
}

#[test]
fn m13_callers_share_permits() {
    holds(4_000, callers_share_permits);
}

#[test]
fn m13_broken_bytes_kept_by_who_got_no_blocks() {
    broken(Fault::KeepsBytes, &["a permit lost", "deadlock"], callers_share_permits);
}

/// What a slot leads to.
struct Places {
    domain: Domain,
    slot: loom_tests::sync::atomic::AtomicUsize,
    values: [UnsafeCell<u32>; 2],
}

// SAFETY: who may touch a value is what the model is about; shuttle runs one thread at a time.
unsafe impl Sync for Places {}

/// M14. Three threads look, each under a guard and twice, beside one that takes a value out of reach and uses it again after
/// so many epochs.
fn guards_beside_a_reuse(epochs: u64) -> impl Fn() {
    use loom_tests::sync::atomic::{AtomicUsize, Ordering};
    move || {
        let values = [UnsafeCell::new(0), UnsafeCell::new(0)];
        let places = Arc::new(Places { domain: Domain::new(), slot: AtomicUsize::new(0), values });
        let lookers = [0, 1, 2].map(|_| {
            spawn(&places, |places| {
                let member = places.domain.join();
                for _ in 0..2 {
                    let guard = member.pin();
                    let at = places.slot.load(Ordering::SeqCst);
                    thread::yield_now();
                    // SAFETY: nobody else runs now.
                    let value = places.values[at].with(|value| unsafe { *value });
                    assert_eq!(value, 0, "used again under a guard");
                    drop(guard);
                }
            })
        });
        places.slot.store(1, Ordering::SeqCst);
        let noted = places.domain.epoch();
        for _ in 0..6 {
            if places.domain.advance() >= noted + epochs {
                // SAFETY: nobody else runs now.
                places.values[0].with_mut(|value| unsafe { *value = 1 });
                break;
            }
        }
        join_all(lookers);
    }
}

#[test]
fn m14_guards_beside_a_reuse() {
    holds(4_000, guards_beside_a_reuse(2));
}

#[test]
fn m14_broken_reused_after_one_epoch() {
    broken(None, &["used again under a guard"], guards_beside_a_reuse(1));
}

/// M15. Four threads insert three keys each, of which they share two, while tables grow between them: one slot a key.
fn insertions_beside_each_other(fault: index::Fault) -> impl Fn() {
    move || {
        let index = Arc::new(Index::model(1, fault));
        let threads = [0_u8, 1, 2, 3].map(|nth| {
            spawn(&index, move |index| {
                let keys = [[b's', 0], [b's', 1], [b'o', nth]];
                keys.map(|key| {
                    let hash = u64::from(key[1]) | (1 + u64::from(key[0])) << 48;
                    index.insert(hash, SlotKey::Aggregate(&key)).unwrap().0
                })
            })
        });
        let slots = join_all(threads);
        for shared in 0..2 {
            assert!(
                slots.iter().all(|found| found[shared] == slots[0][shared]),
                "two slots of a key"
            );
        }
        assert_eq!(index.len(), 6);
    }
}

#[test]
fn m15_insertions_beside_each_other() {
    holds(2_000, insertions_beside_each_other(index::Fault::None));
}

#[test]
fn m15_broken_a_cell_left_open_in_the_older_table() {
    let complaints = ["two slots of a key", "left: "];
    broken(None, &complaints, insertions_beside_each_other(index::Fault::LeavesOpen));
}

/// A watermark, and who waits for it to move.
struct Log {
    watermark: Watermark,
    followers: ManuallyDrop<Followers>,
}

/// M17. Three threads follow a log that is published three times.
fn followers_of_a_log(looks_first: bool) -> impl Fn() {
    move || {
        let followers = ManuallyDrop::new(Followers::new());
        let log = Arc::new(Log { watermark: Watermark::new(Position::START), followers });
        let threads = [0, 1, 2].map(|_| {
            spawn(&log, move |log| {
                let bell = Arc::new(followers::Bell::new());
                let seat = Seat::new(&bell);
                for end in 1..=3 {
                    let look = || (log.watermark.get().get() >= end).then_some(());
                    if looks_first {
                        let listening = bell.listen();
                        if look().is_none() {
                            log.followers.enlist(&seat);
                            listening.sleep(None);
                        }
                    } else {
                        followers::wait(&bell, None, || log.followers.enlist(&seat), look);
                    }
                }
            })
        });
        for end in 1..=3 {
            log.watermark.publish(Position::from_raw(end));
            followers::published();
            let mut wakers = Vec::new();
            log.followers.ring(&mut wakers);
        }
        join_all(threads);
        let mut log = Arc::into_inner(log).expect("all have ended");
        // SAFETY: it is not used again.
        unsafe { ManuallyDrop::drop(&mut log.followers) };
    }
}

#[test]
fn m17_followers_of_a_log() {
    holds(4_000, followers_of_a_log(false));
}

#[test]
fn m17_broken_looked_before_enlisting() {
    broken(None, &["deadlock"], followers_of_a_log(true));
}

/// M18. Three threads look at a version and then at its head, beside two writers and publication: who sees a version finds
/// it from the head.
fn versions_and_their_heads() {
    let shard = Arc::new(Shard::new(1));
    let readers = [0, 1, 2].map(|_| {
        spawn(&shard, |shard| {
            let published = shard
                .pinned(|guard| accepted::visit::<Payload>(shard.slots[0], guard, 0, |_, _| ()));
            let version = published.version;
            assert!(shard.slots[0].head().get() >= version, "a version ahead of its record");
        })
    });
    let writers = ["a", "b"].map(|name| {
        spawn(&shard, move |shard| {
            shard.pinned(|guard| {
                let look: Look = shard.look(0, guard);
                shard.append(name, &[Part::Append(0, look)], guard);
            });
        })
    });
    let mut writer = LogWriter::new(&shard);
    for _ in 0..3 {
        writer.place();
        writer.publish();
    }
    join_all(readers);
    join_all(writers);
}

#[test]
fn m18_versions_and_their_heads() {
    holds(4_000, versions_and_their_heads);
}

#[test]
fn m18_broken_a_head_published_after_its_version() {
    broken(Fault::PublishesHeadLast, &["a version ahead of its record"], versions_and_their_heads);
}
