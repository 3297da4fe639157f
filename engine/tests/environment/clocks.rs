//! Clocks that jump: the order of the log and of versions never depends on them, and nothing waits for a time that does not come.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use annals::Expect;

use crate::common::skip::skip;
use crate::common::{audit, directory, numbered, small};
use crate::images::check_sound;
use crate::role::{command, finish, instruct, say};

const APPENDS: u64 = 200;

/// Where the library is that lies about the time.
fn faketime() -> Option<PathBuf> {
    let places = ["/usr/lib", "/usr/lib64", "/lib"].map(Path::new).into_iter().flat_map(|lib| {
        let below = fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
        below.chain([lib.to_owned()])
    });
    places.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

/// Role: appends, says each time, and changes the clock in the middle if there is a file that says what it shows.
pub fn append_by_the_clock(dir: &Path) {
    let clock = std::env::var_os("FAKETIME_TIMESTAMP_FILE");
    let store = small().open(dir).unwrap();
    let first = store.version("a").unwrap();
    for number in first..first + APPENDS {
        if let Some(clock) = clock.as_ref().filter(|_| number % 20 == 0) {
            let jump = ["-10d", "+400d", "-20000d", "+0", "+1h", "-1s"][(number / 20 % 6) as usize];
            fs::write(clock, jump).unwrap();
        }
        let ticket = store.append("a", Expect::Version(number), [numbered(number)]).unwrap();
        // A limit counts on the monotonic clock, and is no shorter for what the other one does.
        let done = ticket.wait_timeout(std::time::Duration::from_secs(3_600)).unwrap();
        say(format!("{} {}", done.position().get(), done.time()));
    }
    store.close().unwrap();
}

/// Runs lives with these clocks, one after the other on the same store. Returns the times that were told.
fn lives(dir: &Path, commands: Vec<Command>, unchecked: &str) -> Option<Vec<i64>> {
    let (mut positions, mut times) = (Vec::new(), Vec::new());
    let count = commands.len() as u64;
    for command in commands {
        for line in finish(command, "append by the clock", unchecked)? {
            let (position, time) = line.split_once(' ').unwrap();
            positions.push(position.parse::<u64>().unwrap());
            times.push(time.parse().unwrap());
        }
    }
    assert_eq!(positions.len() as u64, count * APPENDS);
    assert!(positions.is_sorted_by(|a, b| a < b), "positions rise whatever the time");
    let store = small().open(dir).unwrap();
    let logged = audit(&store);
    assert!(logged.iter().map(|write| write.number()).eq(0..count * APPENDS));
    assert!(logged.iter().map(|write| write.position.get()).eq(positions));
    let recorded: Vec<i64> =
        store.log(0).writes().map(|write| write.unwrap().commit_time()).collect();
    assert_eq!(recorded, times, "what was told is what is recorded");
    drop(store);
    check_sound(dir);
    Some(times)
}

fn lying(dir: &Path, library: &Path, monotonic: bool) -> Command {
    let mut command = command("append by the clock", dir);
    command.env("LD_PRELOAD", library).env("FAKETIME_NO_CACHE", "1");
    if !monotonic {
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    }
    command
}

#[test]
fn lives_at_any_date_follow_each_other() {
    let unchecked = "clocks that jump between lives and within one";
    let Some(library) = faketime() else { return skip(unchecked, "no libfaketime") };
    let dir = directory();
    let commands = ["-10d", "+3000d", "-20000d", "+0"].map(|date| {
        let mut command = lying(dir.path(), &library, false);
        command.env("FAKETIME", date);
        command
    });
    let Some(times) = lives(dir.path(), commands.into(), unchecked) else { return };
    let starts: Vec<i64> = times.iter().step_by(APPENDS as usize).copied().collect();
    assert!(starts[0] < starts[1] && starts[1] > starts[2] && starts[2] < starts[3], "{starts:?}");

    let dir = directory();
    let clock = directory();
    let commands = [false, true].map(|monotonic| {
        let mut command = lying(dir.path(), &library, monotonic);
        let clock = clock.path().join("clock");
        fs::write(&clock, "+0").unwrap();
        command.env("FAKETIME_TIMESTAMP_FILE", clock);
        command
    });
    let Some(times) = lives(dir.path(), commands.into(), unchecked) else { return };
    assert!(!times.is_sorted(), "the clock has gone back in a life");
}

#[test]
fn a_monotonic_clock_that_starts_elsewhere_changes_nothing() {
    let unchecked = "another start of the monotonic clock";
    let dir = directory();
    let unshared = |offset: &str| {
        let mut command = Command::new("unshare");
        command.args(["-T", "--monotonic", offset, "--boottime", offset]);
        command.arg(std::env::current_exe().unwrap());
        instruct(&mut command, "append by the clock", dir.path());
        command
    };
    let possible = Command::new("unshare").args(["-T", "--monotonic", "1", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return skip(unchecked, "no `unshare -T`");
    }
    let commands =
        vec![unshared("1000000"), command("append by the clock", dir.path()), unshared("1")];
    lives(dir.path(), commands, unchecked);
}
