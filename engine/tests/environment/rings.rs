//! io_uring that can't be had: forbidden by a filter of system calls, unknown to the kernel, or without memory to lock.

use std::path::Path;

use annals::{Backend, ErrorKind, Expect, Store};

use crate::common::{audit, directory, numbered, small};
use crate::images::{WRITES, check, check_whole, fill, filled, refused};
use crate::role::{become_ordinary, cannot, limit, play, say};

/// From here on this thread, and those that it starts, get an error from these system calls.
fn forbid(calls: &[libc::c_long], error: i32) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The first word that a filter is given is the number of the call.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        let to_refusal = (calls.len() - index) as u8;
        program.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            to_refusal,
            0,
            *call as u32,
        ));
    }
    let answer = libc::BPF_RET | libc::BPF_K;
    program.push(step(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is alive for the calls, which change this thread alone.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        {
            cannot("filtering system calls");
        }
    }
    // SAFETY: a ring is asked for without a place for its parameters: refused either way, and differently.
    let asked = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
    let now = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((asked, now), (-1, Some(error)), "the filter works");
}

fn without_rings(dir: &Path, error: i32) {
    // `openat2` is as new as rings, and as often missing from lists of what is allowed.
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    forbid(&[&calls[..], &[libc::SYS_openat2]].concat(), error);
    let uring = small().backend(Backend::Uring);
    check(&refused(dir, &uring), ErrorKind::Unsupported, 4003, &["io_uring can't be used"]);
    let missing = dir.join("not/there");
    let error = uring.open(&missing).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!missing.exists() && !dir.join("not").exists(), "nothing is made in vain");

    let store = small().open(dir).unwrap();
    assert_eq!(store.stats().backend, "blocking");
    fill(&store, WRITES..WRITES + 20);
    drop(store);
    let store = small().mapped(false).open(dir).unwrap();
    assert_eq!(audit(&store).len() as u64, WRITES + 20);
    say("as it should be");
}

/// Role: as in a container whose profile forbids rings.
pub fn rings_are_forbidden(dir: &Path) {
    without_rings(dir, libc::EPERM);
}

/// Role: as on a kernel that has none.
pub fn rings_are_unknown(dir: &Path) {
    without_rings(dir, libc::ENOSYS);
}

#[test]
fn where_rings_are_forbidden_or_unknown_threads_take_their_place() {
    for name in ["rings are forbidden", "rings are unknown"] {
        let dir = filled();
        if let Some(lines) = play(name, dir.path(), name) {
            assert_eq!(lines, ["as it should be"]);
            // What threads have written, rings go on with.
            assert_eq!(check_whole(dir.path()).len() as u64, WRITES + 20);
        }
    }
}

/// Role: an ordinary user who may lock so much memory, and opens the store again and again.
pub fn little_memory_to_lock(dir: &Path) {
    let bytes: u64 = std::env::var("ANNALS_TEST_BYTES").unwrap().parse().unwrap();
    limit(libc::RLIMIT_MEMLOCK, bytes);
    become_ordinary();
    let options = small().shards(4);
    for life in 0..4u64 {
        let store = options.open(dir).unwrap();
        say(store.stats().backend);
        for number in life * 40..life * 40 + 40 {
            let ticket = store.append(format!("k{}", number % 8), Expect::Any, [numbered(number)]);
            ticket.unwrap().wait().unwrap();
        }
        drop(store);
    }
    let store = options.open(dir).unwrap();
    let stored: usize = (0..4).map(|shard| crate::common::audit_shard(&store, shard).len()).sum();
    assert_eq!(stored, 160);
    drop(store);
    if let Err(error) = options.clone().backend(Backend::Uring).open(dir) {
        say(format!("{} {error}", error.code()));
    }
}

#[test]
fn a_user_who_may_lock_little_memory_has_a_store_all_the_same() {
    for bytes in [0_u64, 64 << 10, 8 << 20] {
        let dir = directory();
        std::os::unix::fs::chown(dir.path(), None, None).unwrap();
        // Everybody may write here, since the user is not known before; the store is made inside.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), mode).unwrap();
        let mut command = crate::role::command("little memory to lock", &dir.path().join("store"));
        command.env("ANNALS_TEST_BYTES", bytes.to_string());
        let unchecked = "a limit on locked memory";
        let Some(lines) = crate::role::finish(command, "little memory to lock", unchecked) else {
            continue;
        };
        let backends: Vec<_> = lines.iter().take(4).map(String::as_str).collect();
        let refusal = lines.get(4);
        if bytes == 0 && backends != ["uring"; 4] {
            // A kernel that charges rings to the limit.
            assert_eq!(backends, ["blocking"; 4]);
            let refusal =
                refusal.expect("a ring that can't be had is not made when it is asked for");
            assert!(refusal.starts_with("4003 ") && refusal.contains("io_uring"), "{refusal}");
        } else if bytes >= 8 << 20 {
            assert_eq!(backends, ["uring"; 4]);
            assert_eq!(refusal, None);
        }
        // Root reads what the user has written.
        let store = small().read_only(true).open(dir.path().join("store")).unwrap();
        assert_eq!(store.shards(), 4);
        crate::images::check_sound(&dir.path().join("store"));
    }
}

#[test]
fn a_ring_that_is_asked_for_is_what_one_gets() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let expected = if std::env::var_os("ANNALS_NO_URING").is_some() { "blocking" } else { "uring" };
    assert_eq!(store.stats().backend, expected, "tests of the ring are tests of the ring");
}
