//! What does not belong into a store's directory: pipes, sockets, links, directories and devices with the names of its files, and
//! names that are none.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use annals::ErrorKind;

use crate::common::skip::skip;
use crate::common::{directory, in_time, small};
use crate::images::{check, check_whole, copy, filled, image, segments};

type Put = fn(&Path, &Path) -> std::io::Result<()>;

fn make_node(at: &Path, kind: libc::mode_t, device: libc::dev_t) -> std::io::Result<()> {
    let path = std::ffi::CString::new(at.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends in a zero byte.
    match unsafe { libc::mknod(path.as_ptr(), kind | 0o600, device) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

const STRANGERS: [(&str, Put); 6] = [
    ("a pipe", |at, _| make_node(at, libc::S_IFIFO, 0)),
    ("a socket", |at, _| {
        // A path of a socket is short.
        let short = directory();
        let socket = short.path().join("s");
        UnixListener::bind(&socket)?;
        fs::rename(socket, at)
    }),
    ("a link to the very file", |at, aside| symlink(aside, at)),
    ("a link to nothing", |at, _| symlink("/nowhere", at)),
    ("a directory", |at, _| fs::create_dir(at)),
    ("a device", |at, _| make_node(at, libc::S_IFCHR, libc::makedev(1, 5))),
];

#[test]
fn what_is_no_file_is_refused_in_the_place_of_one() {
    let original = filled();
    for name in ["identity", "lock", "segment"] {
        for (what, put) in STRANGERS {
            let dir = directory();
            copy(original.path(), dir.path());
            let at = match name {
                "segment" => segments(dir.path()).remove(1),
                name => dir.path().join(name),
            };
            let aside = dir.path().join("aside");
            fs::rename(&at, &aside).unwrap();
            match put(&at, &aside) {
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    skip(format_args!("{what} in the place of a file"), error);
                    continue;
                }
                put => put.unwrap(),
            }
            let before = image(dir.path());
            let path = dir.path().to_owned();
            let said = format!("{what} as {name}");
            // A pipe would be waited for, for ever.
            let [write, read] = in_time(&said, move || {
                [small(), small().read_only(true)].map(|options| options.open(&path).map(drop))
            });
            let error = write.expect_err(&said);
            let kinds = [ErrorKind::Io, ErrorKind::Corrupt];
            assert!(kinds.contains(&error.kind()), "{said}: {error:?}");
            assert!(error.to_string().contains("regular file"), "{said}: {error}");
            // Reading needs no lock, and shows what other segments hold.
            if name == "identity" {
                let error = read.expect_err(&said);
                assert!(kinds.contains(&error.kind()), "{said}: {error:?}");
            }
            assert!(before == image(dir.path()), "{said}: something was changed");
            let remove =
                if at.is_dir() && !at.is_symlink() { fs::remove_dir } else { fs::remove_file };
            remove(&at).unwrap();
            fs::rename(&aside, &at).unwrap();
            check_whole(dir.path());
        }
    }
}

#[test]
fn names_that_are_none_are_nobodys() {
    let dir = filled();
    let shard = dir.path().join("shard-0000");
    let names: [&[u8]; 12] = [
        b".DS_Store",
        b"Thumbs.db",
        b".nfs0000000000000001",
        b"0000000000000001.seg~",
        b"0000000000000001.SEG",
        b"000000000000000A.seg",
        b"0000000000000000.seg",
        b"0000000100000000.seg",
        b"ffffffffffffffff.seg",
        b"00000000000000001.seg",
        b"1.seg",
        b"0000000000000001.seg\xff",
    ];
    for place in [dir.path(), &shard] {
        for name in names {
            let name = std::ffi::OsStr::from_bytes(name);
            fs::write(place.join(name), "somebody's").unwrap();
        }
        fs::create_dir(place.join("shard-0001")).unwrap();
        make_node(&place.join("pipe"), libc::S_IFIFO, 0).unwrap();
        symlink("/etc/passwd", place.join("link.seg")).unwrap();
    }
    assert_eq!(check_whole(dir.path()).len(), 40);
    for place in [dir.path(), &shard] {
        for name in names {
            let name = std::ffi::OsStr::from_bytes(name);
            assert_eq!(fs::read(place.join(name)).unwrap(), b"somebody's");
        }
    }
}

#[test]
fn a_segment_under_a_second_name_is_told_from_the_first() {
    for (from, to) in [(1, "00000000000000ff.seg"), (0, "00000000fffffffe.seg")] {
        let dir = filled();
        let segment = segments(dir.path()).remove(from);
        fs::copy(&segment, segment.with_file_name(to)).unwrap();
        let error = crate::images::refused(dir.path(), &small());
        check(&error, ErrorKind::Corrupt, 4002, &[to]);
        fs::remove_file(segment.with_file_name(to)).unwrap();
        check_whole(dir.path());
    }
}
