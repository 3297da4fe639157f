//! Opening: whatever stands in the directory, whoever else has it open, and whoever was killed in it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::{Backend, ErrorKind, Event, Expect, Options, Position, Store, verify};
use common::images::{copy, filled, segments};
use common::{Logged, audit, directory, event, in_time, numbered, small};

/// Set for a copy of this program that is to be somebody else: what it does.
const ROLE: &str = "ANNALS_TEST_ROLE";
/// The directory that it does it in.
const DIRECTORY: &str = "ANNALS_TEST_DIRECTORY";

/// Everything in a directory, with content.
fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(image(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Checks that a directory is refused by every way of opening it, for a reason that names something, and left as it is.
fn check_refused(dir: &Path, options: &Options, kinds: &[ErrorKind], says: &str) {
    let before = image(dir);
    for read_only in [false, true] {
        let error = options.clone().read_only(read_only).open(dir).map(drop).unwrap_err();
        assert!(kinds.contains(&error.kind()), "{says}, read-only {read_only}: {error:?}");
        assert!(error.to_string().contains(says), "{says}, read-only {read_only}: {error}");
    }
    assert!(before == image(dir), "{says}: opening has changed something");
}

#[test]
fn a_path_that_is_no_directory_is_an_error_that_names_it() {
    let dir = directory();
    let file = dir.path().join("a-file");
    fs::write(&file, "not a store").unwrap();
    for options in [Options::new(), Options::new().create(false), Options::new().read_only(true)] {
        for path in [file.clone(), file.join("below")] {
            let error = options.open(&path).map(drop).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NotFound), "{error:?}");
            assert!(error.to_string().contains("a-file"), "{error}");
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"not a store");
}

#[test]
fn a_store_is_created_only_where_that_is_wanted() {
    let dir = directory();
    let missing = dir.path().join("not/there");
    for options in [Options::new().create(false), Options::new().read_only(true)] {
        for path in [missing.as_path(), dir.path()] {
            let error = options.open(path).map(drop).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NotFound), "{error:?}");
        }
    }
    assert!(!missing.exists() && image(dir.path()).is_empty(), "nothing was made");
    drop(Store::open(&missing).unwrap());
    drop(Options::new().create(false).open(&missing).unwrap());
    assert!(segments(&missing).is_empty(), "the first write makes a segment, not the opening");
}

#[test]
fn a_directory_of_somebody_else_is_not_made_a_store() {
    let dir = directory();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    match Store::open(dir.path()) {
        Ok(store) => {
            store.append("a", Expect::Any, [event("E")]).unwrap().wait().unwrap();
            drop(store);
            assert_eq!(Store::open(dir.path()).unwrap().version("a").unwrap(), 1);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert_eq!(fs::read(dir.path().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn a_directory_that_may_not_be_written_opens_read_only() {
    let dir = filled();
    let set = |mode| {
        for (path, _) in image(dir.path()) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o666)).unwrap();
        }
        for path in [dir.path().join("shard-0000"), dir.path().to_owned()] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set(0o555);
    // Whoever may do everything is not stopped by permissions.
    let privileged = fs::write(dir.path().join("probe"), "").is_ok();
    if privileged {
        fs::remove_file(dir.path().join("probe")).unwrap();
    } else {
        let error = small().open(dir.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }
    let before = image(dir.path());
    let store = small().read_only(true).open(dir.path()).unwrap();
    assert_eq!(audit(&store).len(), 40);
    drop(store);
    assert!(before == image(dir.path()));
    set(0o755);
    assert_eq!(audit(&small().open(dir.path()).unwrap()).len(), 40);
}

#[test]
fn a_store_opened_read_only_takes_no_writes() {
    let dir = filled();
    let before = image(dir.path());
    let store = small().read_only(true).open(dir.path()).unwrap();
    assert_eq!(store.stats().backend, "none");
    for error in [
        store.append("k0", Expect::Any, [event("E")]).map(drop).unwrap_err(),
        store.try_append("new", Expect::Any, [event("E")]).map(drop).unwrap_err(),
        store.write().check("k0", Expect::Exists).submit().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Stopped);
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    assert_eq!(store.read("k0").map(Result::unwrap).count(), 28);
    store.close().unwrap();
    assert!(before == image(dir.path()), "reading changes no byte");
}

#[test]
fn one_at_a_time_writes_to_a_store() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    store.append("a", Expect::Any, [event("E")]).unwrap().wait().unwrap();
    let start = Instant::now();
    let error = Store::open(dir.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(start.elapsed() > Duration::from_millis(1500), "it is tried for two seconds");

    // A lock that is let go meanwhile is taken.
    let path = dir.path().to_owned();
    let waiting = thread::spawn(move || Store::open(path).map(drop));
    thread::sleep(Duration::from_millis(200));
    drop(store);
    waiting.join().unwrap().unwrap();

    let mut child = spawn("hold", dir.path());
    assert_eq!(child.line(), "open");
    let error = Store::open(dir.path()).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "another process has it");
    assert_eq!(Options::new().read_only(true).open(dir.path()).unwrap().version("a").unwrap(), 1);
    child.kill();
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_close_lets_go_of_the_lock_while_handles_and_tickets_are_kept() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let ticket = store.append("a", Expect::Any, [event("E")]).unwrap();
    let replay = |store: &Store| {
        store.write().append("b", Expect::Any, [event("E")]).client(1, 1).submit().unwrap()
    };
    let (first, again) = (replay(&store), replay(&store));
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(ticket.wait().unwrap().version(), 1);
    assert_eq!(first.wait().unwrap().position(), again.wait().unwrap().position());
    assert_eq!(store.version("a").unwrap(), 1);
}

#[test]
fn a_reader_beside_a_writer_sees_what_was_durable_and_no_damage() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (store, over) = (store.clone(), Arc::clone(&over));
        move || {
            let mut tickets = std::collections::VecDeque::new();
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                let write = store
                    .write()
                    .append(format!("k{}", number % 5), Expect::Any, [numbered(number)])
                    .append("all", Expect::Version(number), [Event::new("E", vec![1u8; 700])]);
                tickets.push_back(write.submit().unwrap());
                if tickets.len() > 100 {
                    tickets.pop_front().unwrap().wait().unwrap();
                    thread::sleep(Duration::from_micros(300));
                }
                number += 1;
            }
            tickets.iter().for_each(|ticket| drop(ticket.wait().unwrap()));
            number
        }
    });
    for round in 0..8 {
        let before = store.version("all").unwrap();
        let reader = small().read_only(true).mapped(round % 2 == 0).open(dir.path()).unwrap();
        let seen = audit(&reader);
        // Everything below the frontier at the moment of opening; the last flush may not have been stated yet.
        let numbers: Vec<u64> = seen.iter().map(Logged::number).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
        assert!(numbers.len() as u64 + 2000 > before, "{} of {before}", numbers.len());
        let found = verify(dir.path(), |_, _| ()).unwrap();
        assert!(found.problems.is_empty(), "{found:?}");
        thread::sleep(Duration::from_millis(20));
        assert_eq!(reader.version("all").unwrap(), numbers.len() as u64, "it does not follow");
    }
    over.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    // Idle for a while, the log states its frontier.
    thread::sleep(Duration::from_millis(300));
    let reader = small().read_only(true).open(dir.path()).unwrap();
    assert_eq!(audit(&reader).len() as u64, written);
}

#[test]
fn another_format_is_unsupported() {
    let dir = filled();
    let path = dir.path().join("identity");
    let mut bytes = fs::read(&path).unwrap();
    for copy in [0, 64 << 10] {
        bytes[copy..copy + 512].fill(0xEE);
    }
    fs::write(&path, &bytes).unwrap();
    check_refused(dir.path(), &small(), &[ErrorKind::Corrupt, ErrorKind::Unsupported], "identity");
    fs::write(&path, b"").unwrap();
    check_refused(dir.path(), &small(), &[ErrorKind::Corrupt, ErrorKind::Unsupported], "identity");
    fs::remove_file(&path).unwrap();
    let error = small().create(false).open(dir.path()).map(drop).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Locked, "{error}");
    // What stands there is not taken for an empty directory.
    let error = small().open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io), "{error:?}");
}

#[test]
fn one_damaged_copy_of_the_identity_is_survived() {
    for copy in [0, 64 << 10] {
        let dir = filled();
        let path = dir.path().join("identity");
        let mut bytes = fs::read(&path).unwrap();
        bytes[copy..copy + 512].fill(0xEE);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(audit(&small().read_only(true).open(dir.path()).unwrap()).len(), 40);
        assert_eq!(audit(&small().open(dir.path()).unwrap()).len(), 40);
    }
}

#[test]
fn a_segment_that_is_missing_cut_renamed_or_foreign_is_corruption() {
    let original = filled();
    let other = filled();
    let count = segments(original.path()).len();
    type Damage = fn(&[PathBuf], &Path);
    let damages: [(&str, Damage); 7] = [
        ("missing", |segments, _| fs::remove_file(&segments[1]).unwrap()),
        ("the first is missing", |segments, _| fs::remove_file(&segments[0]).unwrap()),
        ("cut", |segments, _| {
            let file = fs::OpenOptions::new().write(true).open(&segments[1]).unwrap();
            file.set_len(200_000).unwrap();
        }),
        ("empty", |segments, _| fs::write(&segments[1], b"").unwrap()),
        ("swapped", |segments, _| {
            let aside = segments[0].with_extension("aside");
            fs::rename(&segments[0], &aside).unwrap();
            fs::rename(&segments[1], &segments[0]).unwrap();
            fs::rename(&aside, &segments[1]).unwrap();
        }),
        ("foreign", |segments, other| assert!(fs::copy(other, &segments[1]).unwrap() > 0)),
        ("a bit of a header", |segments, _| {
            let mut bytes = fs::read(&segments[1]).unwrap();
            bytes[4096 + 80] ^= 1;
            fs::write(&segments[1], bytes).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let dir = directory();
        copy(original.path(), dir.path());
        damage(&segments(dir.path()), &segments(other.path())[1]);
        let before = image(dir.path());
        let error = small().open(dir.path()).map(drop).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains(".seg"), "{name} names a file: {error}");
        assert!(before == image(dir.path()), "{name}: nothing is changed");
        let found = verify(dir.path(), |_, _| ()).unwrap();
        assert!(!found.problems.is_empty(), "{name} is found");
        // Read-only it opens, or says why not; it shows nothing that was not written.
        if let Ok(store) = small().read_only(true).open(dir.path()) {
            for event in store.log(0).flatten() {
                assert!(
                    event.event_type() == "Numbered" || event.data().iter().all(|byte| *byte == 5)
                );
            }
        }
        assert!(before == image(dir.path()), "{name}: nothing is changed");
    }
    assert_eq!(segments(original.path()).len(), count);
    assert_eq!(audit(&small().open(original.path()).unwrap()).len(), 40);
}

/// Events are verified when they are read, so that an opening need not read everything.
#[test]
fn a_rotten_event_is_an_error_where_it_is_read_and_nowhere_else() {
    for mapped in [true, false] {
        let dir = filled();
        let segment = segments(dir.path()).remove(1);
        let mut bytes = fs::read(&segment).unwrap();
        let rotten =
            (300_000..).find(|at| bytes[at - 50..at + 50].iter().all(|byte| *byte == 5)).unwrap();
        bytes[rotten] ^= 1;
        fs::write(&segment, bytes).unwrap();
        let found = verify(dir.path(), |_, _| ()).unwrap();
        assert_eq!(found.problems.len(), 1, "{found:?}");
        let store = small().mapped(mapped).open(dir.path()).unwrap();
        let failed: Vec<_> = (0..3)
            .map(|key| store.read(format!("k{key}")).filter_map(Result::err).collect::<Vec<_>>())
            .filter(|errors| !errors.is_empty())
            .collect();
        assert_eq!(failed.len(), 1, "one aggregate is damaged: {failed:?}");
        assert_eq!(failed[0][0].kind(), ErrorKind::Corrupt);
        let name = segment.file_name().unwrap().to_str().unwrap();
        assert!(failed[0][0].to_string().contains(name), "{:?}", failed[0]);
        for event in store.log(0).flatten() {
            assert!(event.event_type() == "Numbered" || event.data().iter().all(|byte| *byte == 5));
        }
    }
}

#[test]
fn files_that_are_not_the_engines_are_left_alone() {
    let dir = filled();
    let shard = dir.path().join("shard-0000");
    fs::write(shard.join("README"), "mine").unwrap();
    fs::write(shard.join("0000000000000002.seg.bak"), "mine").unwrap();
    fs::create_dir(shard.join("folder")).unwrap();
    let store = small().open(dir.path()).unwrap();
    store.append("new", Expect::Absent, [numbered(1)]).unwrap().wait().unwrap();
    assert_eq!(audit(&store).len(), 41);
    drop(store);
    assert_eq!(fs::read(shard.join("README")).unwrap(), b"mine");
    assert_eq!(fs::read(shard.join("0000000000000002.seg.bak")).unwrap(), b"mine");
}

#[test]
fn a_hundred_openings_with_one_append_each_stay_small() {
    let dir = directory();
    for version in 0..100 {
        let store = Store::open(dir.path()).unwrap();
        store.append("a", Expect::Version(version), [numbered(version)]).unwrap().wait().unwrap();
    }
    let bytes: usize = image(dir.path()).iter().map(|(_, content)| content.len()).sum();
    assert!(bytes < 10 << 20, "{bytes} bytes");
    assert_eq!(audit(&Store::open(dir.path()).unwrap()).len(), 100);
}

/// A copy of this program that plays a role, and what it says.
struct Other {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Other {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

fn spawn(role: &str, dir: &Path) -> Other {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_role_of_another_process", "--nocapture", "--quiet"])
        .env(ROLE, role)
        .env(DIRECTORY, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(child.stdout.take().unwrap());
    // What the test harness says first.
    let mut line = String::new();
    while line.trim_end() != "ready" {
        line.clear();
        assert_ne!(says.read_line(&mut line).unwrap(), 0, "the other process ended");
    }
    Other { child, says }
}

/// Not a test of its own: what the other process does. Without a role it does nothing.
#[test]
fn a_role_of_another_process() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let dir = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let mut out = std::io::stdout();
    writeln!(out, "\nready").unwrap();
    let backend = if role == "append blocking" { Backend::Blocking } else { Backend::Auto };
    let options = if role == "hold" { Options::new() } else { small().backend(backend) };
    let store = options.open(&dir).unwrap();
    writeln!(out, "open").unwrap();
    out.flush().unwrap();
    if role == "hold" {
        thread::sleep(Duration::from_secs(600));
        return;
    }
    let start = store.log(0).writes().count() as u64;
    let mut tickets = std::collections::VecDeque::new();
    for number in start.. {
        let key = format!("k{}", number % 4);
        let ticket = if number % 3 == 0 {
            let write = store.write().append(key, Expect::Any, [numbered(number)]);
            let write = write.append("twin", Expect::Any, [numbered(number)]).client(1, number);
            write.submit()
        } else {
            store.append(key, Expect::Any, [numbered(number), Event::new("E", vec![2u8; 3000])])
        };
        tickets.push_back((number, ticket.unwrap()));
        if tickets.len() == 30 {
            let (number, ticket) = tickets.pop_front().unwrap();
            let done = ticket.wait().unwrap();
            writeln!(out, "{number} {}", done.position().get()).unwrap();
        }
    }
}

#[test]
fn everything_acknowledged_by_a_killed_process_is_there() {
    let dir = directory();
    let mut random = 7u64;
    for round in 0..22 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let role = if round % 2 == 0 { "append" } else { "append blocking" };
        let mut child = spawn(role, dir.path());
        let acks = 1 + (random >> 33) % 400;
        let mut told: Vec<(u64, u64)> = Vec::new();
        assert_eq!(child.line(), "open");
        while (told.len() as u64) < acks {
            let line = child.line();
            let (number, position) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            told.push((number.parse().unwrap(), position.parse().unwrap()));
        }
        child.child.kill().unwrap();
        // At once, also while the dead process is being taken down; acknowledgements still in the pipe count.
        let path = dir.path().to_owned();
        let store = in_time("opening after a kill", move || small().open(path).unwrap());
        child.child.wait().unwrap();
        loop {
            let line = child.line();
            let Some((number, position)) = line.split_once(' ') else { break };
            if let (Ok(number), Ok(position)) = (number.parse(), position.parse()) {
                told.push((number, position));
            }
        }
        let stored = audit(&store);
        for (index, write) in stored.iter().enumerate() {
            assert_eq!(write.number(), index as u64, "round {round}");
            assert_eq!(write.appended.len(), if index % 3 == 0 { 2 } else { 1 });
        }
        for (number, position) in told {
            let found = stored.get(number as usize).map(|write| write.position.get());
            // The last line may have been cut off.
            if found != Some(position) {
                assert_eq!(
                    found.map(|found| found.to_string().starts_with(&position.to_string())),
                    Some(true),
                    "round {round}: write {number} at {:?}",
                    Position::from_raw(position)
                );
            }
        }
        if let Some(last) = stored.iter().rev().find(|write| write.client.is_some()) {
            let (client, sequence) = last.client.unwrap();
            let retry = store
                .write()
                .append(&last.appended[0].0, Expect::Absent, [numbered(0)])
                .append(&last.appended[1].0, Expect::Absent, [numbered(0)])
                .client(client, sequence);
            let done = retry.submit().unwrap().wait().unwrap();
            assert!(done.is_replay() && done.position() == last.position);
        }
        drop(store);
        let found = verify(dir.path(), |_, _| ()).unwrap();
        assert!(found.problems.is_empty(), "round {round}: {found:?}");
    }
}

#[test]
fn a_log_whose_beginning_is_lost_does_not_begin_in_the_middle() {
    let dir = directory();
    for number in 0..2 {
        // Each opening begins a segment.
        let store = small().open(dir.path()).unwrap();
        store.append("order-1", Expect::Any, [numbered(number)]).unwrap().wait().unwrap();
        store.close().unwrap();
    }
    let first = dir.path().join("shard-0000/0000000000000001.seg");
    let mut bytes = fs::read(&first).unwrap();
    bytes[..512].fill(0);
    fs::write(&first, bytes).unwrap();

    let store = small().read_only(true).open(dir.path()).unwrap();
    let mut log = store.log(0);
    assert_eq!(log.next().expect("damage is told").unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(log.next().is_none(), "an error is the last item");
}
