//! Several processes, and how they end: opened twice by whatever path, exit without a close, exec, abort.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use annals::{Backend, ErrorKind, Event, Expect, Options, Store};

use crate::common::{audit, directory, event, numbered, small};
use crate::images::{check, check_sound, check_whole, filled};
use crate::role::{Player, cannot, finish, mount_alone, mount_bound, play, said, say, unmount};

/// Role: has the store open until it is killed.
pub fn hold(dir: &Path) {
    let _store = small().open(dir).unwrap();
    say("open");
    thread::sleep(Duration::from_secs(600));
}

/// Role: opens the store by the path that it is bound to, while others have it open by its own.
pub fn append_in_a_bind_mount(dir: &Path) {
    let other = directory();
    mount_alone();
    mount_bound(dir, other.path());
    match small().open(other.path()) {
        Ok(_) => say("opened"),
        Err(error) => say(format!("{} {error}", error.code())),
    }
    // Before the directory goes, with all that is in it.
    unmount(other.path());
}

#[test]
fn a_store_is_open_once_by_whatever_path() {
    let dir = filled();
    let links = directory();
    let link = links.path().join("link");
    symlink(dir.path(), &link).unwrap();
    let name = dir.path().file_name().unwrap();
    let roundabout = dir.path().join("shard-0000/../..").join(name);

    // By another process.
    let mut player = Player::start("hold", dir.path());
    assert_eq!(player.line().as_deref(), Some("open"));
    for path in [dir.path(), &link, &roundabout] {
        let error = small().open(path).map(drop).unwrap_err();
        check(&error, ErrorKind::Locked, 4001, &["open for writing elsewhere", "read-only"]);
        // Reading beside it goes on.
        assert_eq!(audit(&small().read_only(true).open(path).unwrap()).len(), 40);
    }
    // As after a crash: at once, while the dead one is being taken down.
    player.kill();
    drop(small().open(&link).unwrap());

    // By this process.
    let store = small().open(&roundabout).unwrap();
    for path in [dir.path(), &link] {
        let error = small().open(path).map(drop).unwrap_err();
        check(&error, ErrorKind::Locked, 4001, &["in this process or another"]);
    }
    let unchecked = "a second opening through a bind mount";
    if let Some(lines) = play("append in a bind mount", dir.path(), unchecked) {
        assert!(lines[0].starts_with("4001 "), "{lines:?}");
    }
    store.append("k0", Expect::Any, [numbered(40)]).unwrap().wait().unwrap();
    drop(store);
    assert_eq!(check_whole(&link).len(), 41);
}

/// The descriptors that a program has which this process executes.
fn inherited() -> Vec<String> {
    let output = Command::new("ls").args(["-l", "/proc/self/fd/"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn nothing_is_inherited_by_a_program_that_is_executed() {
    let dir = filled();
    let name = dir.path().to_str().unwrap();
    let ours = |list: &[String]| -> Vec<String> {
        let ours = |line: &&String| {
            line.contains(name) || line.contains("io_uring") || line.contains("eventfd")
        };
        list.iter().filter(ours).cloned().collect()
    };
    for backend in [Backend::Uring, Backend::Blocking] {
        let store = small().backend(backend).mapped(false).open(dir.path()).unwrap();
        store.append("new", Expect::Any, [event("E")]).unwrap().wait().unwrap();
        let mut read = store.log(0);
        assert!(read.next().is_some(), "a segment is open for reading");
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let open = open.filter(|target| target.starts_with(dir.path())).count();
        assert!(open >= 3, "this process itself has the store open");
        assert_eq!(ours(&inherited()), Vec::<String>::new(), "{backend:?}");
    }
    // One that is left open would be seen.
    let path = std::ffi::CString::new(format!("{name}/identity")).unwrap();
    // SAFETY: the path ends in a zero byte.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
    assert!(fd >= 0);
    assert_eq!(ours(&inherited()).len(), 1);
    // SAFETY: it was opened above and is used by nobody else.
    unsafe { libc::close(fd) };
}

/// Appends and says what is durable, while much more is on its way.
fn append_much(dir: &Path, most: u64) -> Store {
    let store = small().open(dir).unwrap();
    let mut tickets = std::collections::VecDeque::new();
    for number in store.log(0).writes().count() as u64.. {
        let write =
            store.write().append(format!("k{}", number % 4), Expect::Any, [numbered(number)]);
        let more = Event::new("E", vec![2u8; 3000]);
        tickets.push_back((number, write.append("twin", Expect::Any, [more]).submit().unwrap()));
        if tickets.len() == 60 {
            let (number, ticket) = tickets.pop_front().unwrap();
            say(format!("{number} {}", ticket.wait().unwrap().position().get()));
            if number >= most {
                break;
            }
        }
    }
    // Nobody waits for the others; forgetting them keeps their memory, as a program that ends does.
    tickets.into_iter().for_each(std::mem::forget);
    store
}

/// Role: appends until it is killed.
pub fn append_for_ever(dir: &Path) {
    drop(append_much(dir, u64::MAX));
}

/// Role: `exit`, with a store that is open and appends in flight.
pub fn exit_in_the_middle(dir: &Path) {
    let _store = append_much(dir, 300);
    std::process::exit(0);
}

/// Role: another program takes this one's place.
pub fn execute_in_the_middle(dir: &Path) {
    use std::os::unix::process::CommandExt;
    let _store = append_much(dir, 300);
    let _never_returns = Command::new("/bin/true").exec();
    cannot("executing /bin/true");
}

/// Role: what a panic does in a program that aborts on panics.
pub fn abort_in_the_middle(dir: &Path) {
    let _store = append_much(dir, 300);
    std::process::abort();
}

/// That what was told is there, each write whole, in the order of the calls.
pub fn check_told(dir: &Path, lines: &[String]) {
    let told: BTreeMap<u64, u64> = lines
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(number, position)| (number.parse().unwrap(), position.parse().unwrap()))
        .collect();
    let store = small().open(dir).unwrap();
    let stored = audit(&store);
    for (index, write) in stored.iter().enumerate() {
        assert_eq!(write.number(), index as u64);
        assert_eq!(write.appended.len(), 2, "a write is whole or not there");
    }
    for (number, position) in told {
        let found = stored.get(number as usize).map(|write| write.position.get());
        assert_eq!(found, Some(position), "write {number} was told to be durable");
    }
    store.append("k0", Expect::Any, [numbered(stored.len() as u64)]).unwrap().wait().unwrap();
    drop(store);
    check_sound(dir);
}

#[test]
fn a_process_that_ends_without_closing_is_as_one_that_was_killed() {
    for name in ["exit in the middle", "execute in the middle", "abort in the middle"] {
        let dir = directory();
        let mut command = crate::role::command(name, dir.path());
        let lines = if name.starts_with("abort") {
            let output = command.stderr(Stdio::null()).output().unwrap();
            assert!(!output.status.success());
            said(&output)
        } else {
            finish(command, name, name).unwrap_or_default()
        };
        assert!(lines.len() > 200, "{name}: {lines:?}");
        check_told(dir.path(), &lines);
    }
}

#[test]
fn dropping_the_store_waits_for_what_is_in_flight() {
    for backend in [Backend::Auto, Backend::Blocking] {
        let dir = directory();
        let store = small().backend(backend).open(dir.path()).unwrap();
        let tickets: Vec<_> = (0..500)
            .map(|number| store.append("a", Expect::Version(number), [numbered(number)]).unwrap())
            .collect();
        drop(store);
        let resolved = tickets.iter().filter(|ticket| ticket.is_resolved()).count();
        assert_eq!(resolved, tickets.len(), "{backend:?}: the drop has waited");
        assert!(tickets.iter().all(|ticket| ticket.wait().is_ok()));
        assert_eq!(audit(&Options::new().open(dir.path()).unwrap()).len(), 500, "{backend:?}");
    }
}
