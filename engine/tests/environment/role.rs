//! Copies of this program that do something to themselves.
//!
//! A role is named where it is played, and listed in [`ROLES`]. It says lines, and ends well unless it panics. What it can't do
//! on this machine it says too; the test that started it then [skips](crate::common::skip).

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use crate::common::skip::skip;

/// Which role a copy plays.
const NAME: &str = "ANNALS_TEST_PLAYS";
/// The directory that it does it in.
const DIRECTORY: &str = "ANNALS_TEST_IN";
/// What is said beside what the harness says.
const SAID: &str = "> ";
/// What is said by a role that can't be played here.
const CANNOT: &str = "cannot: ";

type Play = fn(&Path);

const ROLES: &[(&str, Play)] = &[
    ("append for ever", crate::process::append_for_ever),
    ("append in a bind mount", crate::process::append_in_a_bind_mount),
    ("exit in the middle", crate::process::exit_in_the_middle),
    ("execute in the middle", crate::process::execute_in_the_middle),
    ("abort in the middle", crate::process::abort_in_the_middle),
    ("hold", crate::process::hold),
    ("fork with a store", crate::forks::fork_with_a_store),
    ("fork while appends hang", crate::forks::fork_while_appends_hang),
    ("rings are forbidden", crate::rings::rings_are_forbidden),
    ("rings are unknown", crate::rings::rings_are_unknown),
    ("little memory to lock", crate::rings::little_memory_to_lock),
    ("a user who may only read", crate::permissions::a_user_who_may_only_read),
    ("a user who may not look", crate::permissions::a_user_who_may_not_look),
    ("modes are masked", crate::permissions::modes_are_masked),
    ("a read-only file system", crate::permissions::a_read_only_file_system),
    ("a mount in the store", crate::permissions::a_mount_in_the_store),
    ("a full file system", crate::space::a_full_file_system),
    ("a limit on files", crate::space::a_limit_on_files),
    ("no more descriptors", crate::descriptors::no_more_descriptors),
    ("append by the clock", crate::clocks::append_by_the_clock),
    ("eat memory", crate::memory::eat_memory),
    ("one processor", crate::starvation::one_processor),
    ("a file system in memory", crate::alignment::a_file_system_in_memory),
];

/// Not a test of its own: what a copy does. Without a role it does nothing.
#[test]
fn plays_a_role() {
    let Ok(name) = env::var(NAME) else { return };
    let dir = PathBuf::from(env::var_os(DIRECTORY).unwrap());
    let (_, play) = ROLES.iter().find(|(role, _)| *role == name).expect("a role in the list");
    play(&dir);
}

/// A role says a line.
pub fn say(line: impl AsRef<str>) {
    let mut out = io::stdout();
    writeln!(out, "\n{SAID}{}", line.as_ref()).unwrap();
    out.flush().unwrap();
}

/// A role ends because this machine does not let it play.
pub fn cannot(what: &str) -> ! {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        None | Some(0) => say(format!("{CANNOT}{what}")),
        _ => say(format!("{CANNOT}{what}: {error}")),
    }
    std::process::exit(0);
}

/// A copy that plays a role in a directory, not started yet.
pub fn command(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    instruct(&mut command, name, dir);
    command
}

/// Tells a command that ends in starting this program what to play.
pub fn instruct(command: &mut Command, name: &str, dir: &Path) {
    command
        .args(["--exact", "role::plays_a_role", "--nocapture", "--quiet"])
        .env(NAME, name)
        .env(DIRECTORY, dir)
        .stdin(Stdio::null());
}

/// What a role has said by its end. `None` if it could not be played, which is then said to be `unchecked`.
pub fn play(name: &str, dir: &Path, unchecked: &str) -> Option<Vec<String>> {
    finish(command(name, dir), name, unchecked)
}

/// As [`play`], with a command that was changed.
pub fn finish(mut command: Command, name: &str, unchecked: &str) -> Option<Vec<String>> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let lines = said(&output);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}: {lines:?}\n{errors}", output.status);
    match lines.iter().find_map(|line| line.strip_prefix(CANNOT)) {
        Some(why) => {
            skip(unchecked, why);
            None
        }
        None => Some(lines),
    }
}

/// The lines that a copy has said.
pub fn said(output: &Output) -> Vec<String> {
    let all = String::from_utf8_lossy(&output.stdout);
    all.lines().filter_map(|line| line.strip_prefix(SAID)).map(str::to_owned).collect()
}

/// A role that is being played.
pub struct Player {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Player {
    pub fn start(name: &str, dir: &Path) -> Player {
        let mut child =
            command(name, dir).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Player { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None` when it has ended.
    pub fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(said) = line.strip_prefix(SAID) {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    /// Kills it, and returns what it had still said.
    pub fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.line()).collect()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Makes this process one of an ordinary user, without any of root's rights, whatever it was. The user is one that no other
/// test is.
pub fn become_ordinary() -> u32 {
    let user = 60_000 + std::process::id() % 5_000;
    // SAFETY: plain calls, which change this process alone.
    unsafe {
        if libc::geteuid() != 0 {
            return libc::geteuid();
        }
        if libc::setgroups(0, std::ptr::null()) != 0
            || libc::setresgid(user, user, user) != 0
            || libc::setresuid(user, user, user) != 0
        {
            cannot("becoming an ordinary user");
        }
    }
    user
}

/// Sets a limit of this process. One that may not be raised stays.
pub fn limit(what: libc::__rlimit_resource_t, soft: u64) {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is room for the limit, and the calls change this process alone.
    unsafe {
        assert_eq!(libc::getrlimit(what, &mut now), 0);
        now.rlim_cur = soft;
        if libc::setrlimit(what, &now) != 0 {
            cannot("setting a limit");
        }
    }
}

/// From here on this thread, and those that it starts, mount for themselves alone.
pub fn mount_alone() {
    // SAFETY: strings end in a zero byte.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            cannot("mounting");
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        if libc::mount(none, c"/".as_ptr(), none, private, none.cast()) != 0 {
            cannot("mounting apart");
        }
    }
}

fn c(path: &Path) -> std::ffi::CString {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Mounts a file system in memory.
pub fn mount_memory(at: &Path, bytes: u64) {
    let options = std::ffi::CString::new(format!("size={bytes},mode=700")).unwrap();
    let kind = c"tmpfs".as_ptr();
    // SAFETY: strings end in a zero byte.
    let done = unsafe { libc::mount(kind, c(at).as_ptr(), kind, 0, options.as_ptr().cast()) };
    if done != 0 {
        cannot("mounting a file system in memory");
    }
}

/// Shows a directory or file under another name as well.
pub fn mount_bound(from: &Path, at: &Path) {
    let none = std::ptr::null();
    // SAFETY: strings end in a zero byte.
    let done =
        unsafe { libc::mount(c(from).as_ptr(), c(at).as_ptr(), none, libc::MS_BIND, none.cast()) };
    if done != 0 {
        cannot("binding a directory");
    }
}

/// Takes away what was mounted last.
pub fn unmount(at: &Path) {
    // SAFETY: the string ends in a zero byte.
    let done = unsafe { libc::umount2(c(at).as_ptr(), libc::MNT_DETACH) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Makes what is mounted read-only, or says why not.
pub fn remount_read_only(at: &Path) -> io::Result<()> {
    let none = std::ptr::null();
    let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
    // SAFETY: strings end in a zero byte.
    let done = unsafe { libc::mount(none, c(at).as_ptr(), none, flags, none.cast()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many descriptors this process has open.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}
