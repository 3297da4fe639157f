//! What a run holds of the machine is let go, however the run ends. One test, because all of them look at the machine.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const POWER: &str = env!("CARGO_BIN_EXE_power");

/// Mounts, loop devices and folders that have the name of a rig.
fn held() -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let ours = |text: &str| text.contains("/var/tmp/annals-power-");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    held.extend(mounts.lines().filter(|line| ours(line)).map(|line| format!("mount {line}")));
    for block in fs::read_dir("/sys/block").unwrap() {
        let path = block.unwrap().path();
        if let Ok(file) = fs::read_to_string(path.join("loop/backing_file"))
            // Without the folder, if what it lies on is gone.
            && (ours(&file) || file.starts_with("/drive-"))
        {
            held.insert(format!("{} {file}", path.display()));
        }
    }
    for entry in fs::read_dir("/var/tmp").unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().starts_with("/var/tmp/annals-power-") {
            held.insert(path.display().to_string());
        }
    }
    held
}

/// A drill that has a file system mounted. It would take for ever.
fn drill(before: &BTreeSet<String>) -> Child {
    let mut child = Command::new(POWER)
        .args(["drill", "--images", "100000", "--seed", "3"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let on_a_loop = |held: &String| held.starts_with("mount") && held.contains("/dev/loop");
    while !held().difference(before).any(on_a_loop) {
        assert!(child.try_wait().unwrap().is_none(), "the drill has ended");
        thread::sleep(Duration::from_millis(5));
    }
    // Somewhere within a life, or between two.
    thread::sleep(Duration::from_millis(700));
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn everything_is_let_go() {
    let able = Command::new(POWER).arg("able").output().unwrap();
    if !able.status.success() {
        let why = String::from_utf8_lossy(&able.stderr);
        // Through the harness, which shows it with --nocapture alone, nobody would see it.
        let _shown =
            fs::write("/dev/stderr", format!("SKIP: that a run lets go of all it holds ({why})\n"));
        return;
    }
    let before = held();

    let mut interrupted = drill(&before);
    signal(&interrupted, Signal::INT);
    assert_eq!(interrupted.wait().unwrap().code(), Some(130));
    assert_eq!(held(), before, "after Ctrl-C");

    let mut killed = drill(&before);
    signal(&killed, Signal::KILL);
    killed.wait().unwrap();
    assert_ne!(held(), before, "a killed run leaves something, or this shows nothing");
    // Another folder of the same kind of name, which no run holds, and which is too young to be a left-over.
    let young = Path::new("/var/tmp/annals-power-young");
    fs::create_dir_all(young).unwrap();
    assert!(Command::new(POWER).arg("able").status().unwrap().success());
    let kept = young.exists();
    let _removed = fs::remove_dir(young);
    assert!(kept, "a folder that is just being made was removed");
    assert_eq!(held(), before, "after the next run");
}
