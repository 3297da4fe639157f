//! Rights, owners, modes, links and mounts: what the store is not allowed, and what it does not allow.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use annals::{ErrorKind, Expect, Options, verify};

use crate::common::skip::skip;
use crate::common::{audit, directory, eventually, numbered, small};
use crate::images::{check, check_sound, check_whole, fill, filled, image, refused, segments};
use crate::role::{
    become_ordinary, cannot, mount_alone, mount_bound, mount_memory, play, remount_read_only, say,
};

fn is_root() -> bool {
    // SAFETY: it takes nothing and can't fail.
    unsafe { libc::geteuid() == 0 }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Gives everybody rights to a store: files these, directories those.
fn open_up(dir: &Path, files: u32, directories: u32) {
    for (path, _) in image(dir) {
        set_mode(&path, if path.is_dir() { directories } else { files });
    }
    set_mode(dir, directories);
}

/// Role: somebody who may read everything and write nothing.
pub fn a_user_who_may_only_read(dir: &Path) {
    become_ordinary();
    let error = refused(dir, &small());
    check(&error, ErrorKind::Io, 5001, &["lock", "ermission denied", "read-only"]);
    let before = image(dir);
    let store = small().read_only(true).open(dir).unwrap();
    assert_eq!(audit(&store).len(), 40);
    let error = store.append("k0", Expect::Any, [numbered(1)]).unwrap_err();
    check(&error, ErrorKind::Stopped, 6001, &["read-only"]);
    assert!(verify(dir, |_, _| ()).unwrap().problems.is_empty());
    assert!(before == image(dir), "reading writes nothing");
    let error = Options::new().open(dir.join("new")).map(drop).unwrap_err();
    check(&error, ErrorKind::Io, 5001, &["ermission denied", "new"]);
    say("as it should be");
}

#[test]
fn who_may_only_read_reads_and_is_told_why_not_more() {
    let dir = filled();
    open_up(dir.path(), 0o444, 0o555);
    let lines = play("a user who may only read", dir.path(), "a directory that may only be read");
    open_up(dir.path(), 0o600, 0o700);
    if let Some(lines) = lines {
        assert_eq!(lines, ["as it should be"]);
    }
    check_whole(dir.path());
}

/// Role: somebody who may not even look.
pub fn a_user_who_may_not_look(dir: &Path) {
    if !is_root() {
        cannot("not root, so nobody else can be played");
    }
    become_ordinary();
    for options in [small(), small().create(false), small().read_only(true)] {
        let error = options.open(dir).map(drop).unwrap_err();
        check(&error, ErrorKind::Io, 5001, &["ermission denied", dir.to_str().unwrap()]);
    }
    say("as it should be");
}

#[test]
fn a_store_of_somebody_else_is_not_opened() {
    let dir = filled();
    set_mode(dir.path(), 0o700);
    let before = image(dir.path());
    let unchecked = "a store that belongs to another user";
    if let Some(lines) = play("a user who may not look", dir.path(), unchecked) {
        assert_eq!(lines, ["as it should be"]);
    }
    assert!(before == image(dir.path()));
    check_whole(dir.path());
}

/// Role: a process that takes all rights from what it makes.
pub fn modes_are_masked(dir: &Path) {
    become_ordinary();
    for mask in [0o777, 0o277, 0o000, 0o022] {
        // SAFETY: a plain call, which changes this process alone.
        unsafe { libc::umask(mask) };
        let path = dir.join(format!("{mask:o}/store"));
        fill(&small().shards(2).open(&path).unwrap(), 0..20);
        fill(&small().open(&path).unwrap(), 20..40);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o700, 0o700), "{mask:o}");
        for (path, _) in image(&path) {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{} under {mask:o}", path.display());
        }
    }
    say("as it should be");
}

#[test]
fn what_is_made_is_for_its_owner_alone_whatever_the_mask() {
    let dir = directory();
    set_mode(dir.path(), 0o777);
    let lines = play("modes are masked", dir.path(), "the modes of what is made");
    assert_eq!(lines.unwrap(), ["as it should be"]);
}

#[test]
fn a_directory_that_everybody_may_write_in_is_refused_unless_allowed() {
    let dir = filled();
    let shard = dir.path().join("shard-0000");
    for (path, mode) in [(dir.path(), 0o777), (dir.path(), 0o1703), (&*shard, 0o707)] {
        set_mode(path, mode);
        for options in [small(), small().create(false), small().read_only(true)] {
            let error = refused(dir.path(), &options);
            let found = format!("mode {mode:04o}");
            check(&error, ErrorKind::Io, 5001, &[&found, "chmod o-w", "world_writable"]);
            drop(options.world_writable(true).open(dir.path()).unwrap());
        }
        assert_eq!(verify(dir.path(), |_, _| ()).map(drop).unwrap_err().kind(), ErrorKind::Io);
        set_mode(path, 0o700);
    }
    // Those whom the owner lets in by group are the owner's business.
    set_mode(dir.path(), 0o770);
    check_whole(dir.path());
}

#[test]
fn a_file_that_somebody_else_has_put_there_is_refused() {
    if !is_root() {
        return skip("files of another user in a store", "not root, so nobody else can be played");
    }
    let dir = filled();
    let segment = segments(dir.path()).remove(1);
    for path in [&segment, &dir.path().join("identity"), &dir.path().join("lock")] {
        chown(path, Some(54_321), None).unwrap();
        let reads = !path.ends_with("lock");
        for options in [small(), small().read_only(true)].into_iter().take(1 + usize::from(reads)) {
            let error = refused(dir.path(), &options);
            check(&error, ErrorKind::Io, 5001, &["belongs to user 54321", "expected the owner"]);
            drop(options.world_writable(true).open(dir.path()).unwrap());
        }
        chown(path, Some(0), None).unwrap();
    }
    // A store that belongs to its user as a whole is opened by root, and by its user after root has written.
    for (path, _) in image(dir.path()).into_iter().chain([(dir.path().to_owned(), Vec::new())]) {
        chown(path, Some(54_321), None).unwrap();
    }
    check_whole(dir.path());
}

#[test]
fn a_copy_made_of_hard_links_is_read_and_not_written_through() {
    let dir = filled();
    let other = directory();
    let copy = other.path().join("copy");
    fs::create_dir_all(copy.join("shard-0000")).unwrap();
    for (path, _) in image(dir.path()).into_iter().filter(|(path, _)| path.is_file()) {
        fs::hard_link(&path, copy.join(path.strip_prefix(dir.path()).unwrap())).unwrap();
    }
    // The lock is a file as well: two stores with one lock exclude each other, and say why.
    let error = refused(&copy, &small());
    check(&error, ErrorKind::Io, 5001, &["2 names", "hard links"]);
    assert_eq!(audit(&small().read_only(true).open(&copy).unwrap()).len(), 40);
    // Without that, the original goes on, and the copy stays what it is.
    fs::remove_file(copy.join("lock")).unwrap();
    let before = image(&copy);
    assert_eq!(check_whole(dir.path()).len(), 40);
    fill(&small().open(dir.path()).unwrap(), 41..60);
    assert!(before == image(&copy), "a write has gone through to the copy");
    assert_eq!(audit(&small().read_only(true).open(&copy).unwrap()).len(), 40);
    assert_eq!(check_whole(&copy).len(), 40);
    check_sound(dir.path());
}

/// Role: the file system becomes read-only, while the store is closed and while it is open.
pub fn a_read_only_file_system(dir: &Path) {
    mount_alone();
    mount_memory(dir, 64 << 20);
    let path = dir.join("store");
    let store = small().open(&path).unwrap();
    fill(&store, 0..40);
    let busy = remount_read_only(dir).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(libc::EBUSY), "the system protects a store that is open");
    fill(&store, 40..42);
    drop(store);
    // A ring lets go of its files some time after it was closed.
    eventually("the file system can be made read-only", || remount_read_only(dir).is_ok());
    check(&refused(&path, &small()), ErrorKind::Io, 5001, &["ead-only file system", "read-only"]);
    let error = small().open(dir.join("new")).map(drop).unwrap_err();
    check(&error, ErrorKind::Io, 5001, &["ead-only file system", "new"]);
    let before = image(&path);
    assert_eq!(audit(&small().read_only(true).open(&path).unwrap()).len(), 42);
    assert!(before == image(&path));
    say("as it should be");
}

#[test]
fn a_read_only_file_system_is_read() {
    let dir = directory();
    let unchecked = "a file system that is read-only";
    if let Some(lines) = play("a read-only file system", dir.path(), unchecked) {
        assert_eq!(lines, ["as it should be"]);
    }
}

/// Role: something is mounted over a shard, then over a segment.
pub fn a_mount_in_the_store(dir: &Path) {
    mount_alone();
    let other = filled();
    let segment = segments(dir).remove(1);
    let from = segments(other.path()).remove(1);
    for (from, at) in
        [(&from, &segment), (&other.path().join("shard-0000"), &dir.join("shard-0000"))]
    {
        mount_bound(from, at);
        let error = small().open(dir).map(drop).unwrap_err();
        check(&error, ErrorKind::Io, 5001, &["mounted", "on one file system"]);
        let read = small().read_only(true).open(dir).map(drop).unwrap_err();
        assert_eq!(read.kind(), ErrorKind::Io, "{read}");
    }
    say("as it should be");
}

#[test]
fn nothing_that_is_mounted_inside_is_taken_for_the_store() {
    let dir = filled();
    let unchecked = "a mount over a part of a store";
    if let Some(lines) = play("a mount in the store", dir.path(), unchecked) {
        assert_eq!(lines, ["as it should be"]);
    }
    check_whole(dir.path());
}
