//! Memory: a process that is killed for using too much, and lengths on disk that would ask for it.

use std::fs;
use std::path::{Path, PathBuf};

use annals::{ErrorKind, Event, Expect};

use crate::common::skip::skip;
use crate::common::{audit, directory, in_time, numbered, small};
use crate::images::{check, check_sound, check_whole, copy, filled, segments};
use crate::role::{Player, say};

/// Role: appends and keeps memory until it is killed.
pub fn eat_memory(dir: &Path) {
    let store = small().open(dir).unwrap();
    say("open");
    let mut eaten = Vec::new();
    for number in 0.. {
        let large = Event::new("Large", vec![4u8; 20_000]);
        let ticket = store.append("a", Expect::Version(number), [numbered(number), large]).unwrap();
        say(format!("{number} {}", ticket.wait().unwrap().position().get()));
        eaten.push(vec![1u8; 256 << 10]);
    }
}

/// A group of processes that may have so much memory, of whichever kind this system has.
struct Group(PathBuf);

impl Group {
    fn make(bytes: u64) -> Option<Group> {
        let name = format!("annals-test-{}", std::process::id());
        let (root, file) =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
                .into_iter()
                .find(|(root, _)| {
                    Path::new(root).join("memory.limit_in_bytes").exists()
                        || fs::read_to_string(Path::new(root).join("cgroup.subtree_control"))
                            .is_ok_and(|controls| controls.contains("memory"))
                })?;
        let group = Group(Path::new(root).join(name));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(file), bytes.to_string()).ok()?;
        let _no_swap_to_limit =
            fs::write(group.0.join("memory.memsw.limit_in_bytes"), bytes.to_string());
        Some(group)
    }

    fn add(&self, process: u32) -> bool {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).is_ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _gone_with_the_last_process = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_process_killed_for_its_memory_has_lost_nothing_that_it_told() {
    let unchecked = "a process that is killed for using too much memory";
    let Some(group) = Group::make(96 << 20) else {
        return skip(unchecked, "no group of processes can be limited here");
    };
    let dir = directory();
    let mut player = Player::start("eat memory", dir.path());
    assert_eq!(player.line().as_deref(), Some("open"));
    if !group.add(player.id()) {
        return skip(unchecked, "the process can't be put into a limited group");
    }
    let told: Vec<String> = std::iter::from_fn(|| player.line()).collect();
    assert!(told.len() > 20, "{told:?}");
    player.kill();
    let store = small().open(dir.path()).unwrap();
    let stored = audit(&store);
    for line in &told {
        let (number, position) = line.split_once(' ').unwrap();
        let number: usize = number.parse().unwrap();
        assert_eq!(stored[number].position.get().to_string(), position, "write {number}");
    }
    assert!(stored.len() <= told.len() + 1);
    drop(store);
    check_sound(dir.path());
}

/// How much memory this process has held at most, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Files as long as a file can be, without a byte in them, cost neither memory nor time, and are no reason to lose anything.
#[test]
fn a_file_of_a_terabyte_asks_for_nothing() {
    let original = filled();
    let newest = segments(original.path()).len() - 1;
    for (index, bytes) in [(1, 1_u64 << 40), (newest, 1 << 40), (newest, (1 << 30) + 1)] {
        let dir = directory();
        copy(original.path(), dir.path());
        let segment = segments(dir.path()).remove(index);
        let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
        let whole = file.metadata().unwrap().len();
        file.set_len(bytes).unwrap();
        let before = peak();
        let path = dir.path().to_owned();
        let opened = in_time("opening a store with a huge file", move || {
            small()
                .read_only(true)
                .open(path)
                .map(|store| store.log(0).filter_map(Result::ok).count())
        });
        match opened {
            Ok(events) => assert!(events <= 80),
            Err(error) => check(&error, ErrorKind::Corrupt, 4002, &[".seg"]),
        }
        assert!(peak() < before + (64 << 20), "{} MiB more", (peak() - before) >> 20);
        file.set_len(whole).unwrap();
        check_whole(dir.path());
    }
}
