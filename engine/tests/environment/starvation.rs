//! Far more threads than processors: each gets through, and none waits for many times as many others as there are.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use annals::Expect;

use crate::common::{audit, directory, in_time, numbered, small};
use crate::images::check_sound;
use crate::role::{cannot, play, say};

const THREADS: u64 = 1_000;
const EACH: u64 = 10;
/// So many others may get through while one waits: who is woken when is the system's choice, which has other work too.
const OTHERS_MAX: u64 = 5 * THREADS;

/// Role: a thousand threads append to one aggregate, on one processor.
pub fn one_processor(dir: &Path) {
    // SAFETY: numbers, for which zero is valid; there is room for the set, and the calls change this process alone.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &mut set) != 0 {
            cannot("asking for the processors");
        }
        let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &set));
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(first.unwrap(), &mut one);
        if libc::sched_setaffinity(0, size_of_val(&one), &one) != 0 {
            cannot("keeping to one processor");
        }
    }
    let store = small().open(dir).unwrap();
    let (done, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = Arc::new(Barrier::new(THREADS as usize));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (store, start) = (store.clone(), Arc::clone(&start));
            let (done, most) = (Arc::clone(&done), Arc::clone(&most));
            let append = move || {
                start.wait();
                for turn in 0..EACH {
                    let begun = done.load(Ordering::Relaxed);
                    let event = numbered(number * EACH + turn);
                    store.append("hot", Expect::Any, [event]).unwrap().wait().unwrap();
                    let others = done.fetch_add(1, Ordering::Relaxed) - begun;
                    most.fetch_max(others, Ordering::Relaxed);
                }
            };
            thread::Builder::new().stack_size(128 << 10).spawn(append).unwrap()
        })
        .collect();
    in_time("a thousand threads on one processor", move || {
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    drop(store);
    let store = small().open(dir).unwrap();
    assert_eq!(audit(&store).len() as u64, THREADS * EACH);
    say(most.load(Ordering::Relaxed).to_string());
}

#[test]
fn a_thousand_threads_on_one_processor_all_get_through() {
    let dir = directory();
    let Some(lines) = play("one processor", dir.path(), "a thousand threads on one processor")
    else {
        return;
    };
    let most: u64 = lines[0].parse().unwrap();
    assert!(most <= OTHERS_MAX, "an append waited while {most} others became durable");
    check_sound(dir.path());
}
