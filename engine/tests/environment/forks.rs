//! A host program that forks: the child is told so by all that it has from its parent, and disturbs nothing by its end.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals::internals::disk::sim::{Order, SimDisk};
use annals::{Backend, ErrorKind, Expect, Store};

use crate::common::{audit, block_on, directory, event, numbered, open_sim, small};
use crate::images::check_sound;
use crate::role::{play, say};

/// Runs something in a child made by `fork`; it ends by `exit`, as a program does that knows nothing of this.
fn in_a_child(run: impl FnOnce()) {
    // SAFETY: the child runs what any thread may, in a process of one thread.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        std::process::exit(if told.is_ok() { 0 } else { 3 });
    }
    let mut status = 0;
    // SAFETY: the child made above; there is room for its status.
    unsafe { libc::waitpid(child, &mut status, 0) };
    if status != 0 {
        // Not by a panic: closing a store waits for a device that hangs.
        say(format!("the child ended with {status:#x}; what it has seen stands above"));
        std::process::exit(1);
    }
}

fn forked<T>(call: &str, result: Result<T, annals::Error>) {
    let error = result.map(drop).expect_err(call);
    assert_eq!((error.kind(), error.code()), (ErrorKind::Forked, 6005), "{call}: {error}");
    assert!(error.to_string().contains("open it here, once the parent has closed it"), "{error}");
}

/// Everything that a handle can do.
fn every_call_is_refused(store: &Store) {
    forked("append", store.append("a", Expect::Any, [event("E")]));
    forked("append to a new one", store.append("new", Expect::Any, [event("E")]));
    forked("append in vain", store.append("a", Expect::Absent, [event("E")]));
    forked("try_append", store.try_append("a", Expect::Any, [event("E")]));
    let write = store.write().append("a", Expect::Any, [event("E")]);
    forked("a write of several", write.append("b", Expect::Any, [event("E")]).submit());
    forked("a check", store.write().check("a", Expect::Exists).submit());
    let write = store.write().append("a", Expect::Any, [event("E")]).client(1, 1);
    forked("a replay", write.submit());
    forked("save_snapshot", store.save_snapshot("a", 1, "state"));
    forked("load_snapshot", store.load_snapshot("a"));
    forked("read", store.read("a").next().unwrap());
    forked("accepted read", store.read("a").accepted().next().unwrap());
    forked("log", store.log(0).next().unwrap());
    forked("version", store.version("a"));
    forked("version of none", store.version("none"));
    forked("version_accepted", store.version_accepted("a"));
    forked("version_accepted of none", store.version_accepted("none"));
    forked("checkpoint", store.checkpoint("c"));
    forked("subscribe", store.subscribe(0).next().unwrap());
    forked("watch", store.watch("a"));
    forked("watch_prefix", store.watch_prefix("a"));
    forked("close", store.close());
}

/// Role: a parent with a store, whose child tries everything.
pub fn fork_with_a_store(dir: &Path) {
    for backend in [Backend::Auto, Backend::Blocking] {
        let store = small().backend(backend).open(dir).unwrap();
        let first = audit(&store).len() as u64;
        let write = store.write().append("a", Expect::Any, [numbered(first)]);
        write.client(1, first + 1).submit().unwrap().wait().unwrap();
        let mut subscription = store.subscribe(0);
        let handle = store.aggregate("a").unwrap();
        // Perhaps in flight at the fork, perhaps durable already.
        let ticket = store.append("a", Expect::Any, [numbered(first + 1)]).unwrap();
        let lock = std::fs::File::open(dir.join("lock")).unwrap();
        in_a_child(|| {
            every_call_is_refused(&store);
            forked("append by handle", handle.append(Expect::Any, [event("E")]));
            forked("read by handle", handle.read().next().unwrap());
            forked("version by handle", handle.version());
            // It gives what there was, and then says so rather than wait for ever.
            forked("subscription", subscription.find(Result::is_err).unwrap());
            if !ticket.is_resolved() {
                forked("ticket", ticket.wait());
            }
            // A store of its own works.
            let own = directory();
            let mine = Store::open(own.path()).unwrap();
            mine.append("mine", Expect::Absent, [event("E")]).unwrap().wait().unwrap();
            assert_eq!(audit(&mine).len(), 1);
            drop(mine);
            assert_eq!(small().open(dir).map(drop).unwrap_err().kind(), ErrorKind::Locked);
            drop((handle, subscription, ticket, store.clone()));
        });
        // SAFETY: a plain call on an open descriptor.
        let taken = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        assert_eq!(taken, -1, "the child's end has let go of the parent's lock");
        for number in first + 2..first + 50 {
            store.append("a", Expect::Version(number), [numbered(number)]).unwrap().wait().unwrap();
        }
        store.close().unwrap();
        drop(store);
        check_sound(dir);
        let store = small().open(dir).unwrap();
        let numbers: Vec<u64> = audit(&store).iter().map(|write| write.number()).collect();
        assert!(numbers.iter().copied().eq(0..first + 50), "{numbers:?}");
    }
    say("as it should be");
}

/// Role: the parent's appends do not come back from the device, and the child has their tickets.
pub fn fork_while_appends_hang(_: &Path) {
    let disk = SimDisk::new(1);
    let store = open_sim(&small(), &disk).unwrap();
    store.append("a", Expect::Any, [numbered(0)]).unwrap().wait().unwrap();
    disk.set_order(Order::Never);
    let ticket = || store.append("a", Expect::Any, [numbered(1)]).unwrap();
    let (mut waited, timed, polled) = (ticket(), ticket(), ticket());
    let mut watch = store.watch("a").unwrap();
    assert_eq!(watch.next().unwrap().unwrap(), 1);
    in_a_child(|| {
        forked("wait", waited.wait());
        forked("wait_timeout", timed.wait_timeout(Duration::from_secs(600)));
        forked("await", block_on(polled));
        forked("await again", block_on(&mut waited));
        forked("watch", watch.next().unwrap());
        every_call_is_refused(&store);
        drop((store.clone(), Arc::clone(&disk)));
    });
    disk.set_order(Order::Fifo);
    assert_eq!(waited.wait().unwrap().version(), 2);
    assert_eq!(timed.wait().unwrap().version(), 3);
    drop(store);
    assert_eq!(audit(&open_sim(&small(), &disk).unwrap()).len(), 4);
    say("as it should be");
}

#[test]
fn a_child_is_told_and_its_end_disturbs_nothing() {
    let dir = directory();
    let lines = play("fork with a store", dir.path(), "a fork with a store").unwrap();
    assert_eq!(lines, ["as it should be"]);
}

#[test]
fn a_child_does_not_wait_for_its_parents_appends() {
    let dir = directory();
    let lines = play("fork while appends hang", dir.path(), "a fork with appends in flight");
    assert_eq!(lines.unwrap(), ["as it should be"]);
}
