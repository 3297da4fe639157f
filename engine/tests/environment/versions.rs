//! Files of other versions and other systems: refused before anything is touched.

use std::fs;
use std::path::Path;

use annals::ErrorKind;

use crate::common::small;
use crate::images::{check, check_whole, filled, refused, segments};

/// Changes bytes of a header and makes its checksum right.
fn rewrite(path: &Path, header_at: usize, change: impl Fn(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    let header = &mut bytes[header_at..header_at + 512];
    change(&mut header[8..]);
    let checksum = xxhash_rust::xxh3::xxh3_64(&header[8..]);
    header[..8].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

fn rewrite_identity(dir: &Path, change: impl Fn(&mut [u8])) {
    for copy in [0, 64 << 10] {
        rewrite(&dir.join("identity"), copy, &change);
    }
}

#[test]
fn another_format_or_another_system_is_unsupported_and_left_alone() {
    let dir = filled();
    let identity = dir.path().join("identity");
    let segment = segments(dir.path()).remove(1);
    let (whole, sealed) = (fs::read(&identity).unwrap(), fs::read(&segment).unwrap());
    for read_only in [false, true] {
        let options = small().read_only(read_only);
        // Offsets are those of `docs/FORMAT.md`, less the checksum's eight.
        rewrite_identity(dir.path(), |header| header[8..12].copy_from_slice(&7_u32.to_le_bytes()));
        check(
            &refused(dir.path(), &options),
            ErrorKind::Unsupported,
            4003,
            &["format 7", "identity"],
        );
        // The number of the format as another system would write it.
        fs::write(&identity, &whole).unwrap();
        rewrite_identity(dir.path(), |header| header[8..12].reverse());
        check(&refused(dir.path(), &options), ErrorKind::Unsupported, 4003, &["identity"]);
        // A flag that a later version may give a meaning to.
        fs::write(&identity, &whole).unwrap();
        rewrite_identity(dir.path(), |header| header[67 - 8] |= 0x80);
        check(&refused(dir.path(), &options), ErrorKind::Unsupported, 4003, &["identity"]);
        fs::write(&identity, &whole).unwrap();
    }
    rewrite(&segment, 0, |header| header[8..12].copy_from_slice(&7_u32.to_le_bytes()));
    let error = refused(dir.path(), &small());
    check(&error, ErrorKind::Unsupported, 4003, &["format 7", ".seg"]);
    fs::write(&segment, &sealed).unwrap();
    rewrite(&segment, 0, |header| header[47 - 8] |= 0x80);
    check(&refused(dir.path(), &small()), ErrorKind::Unsupported, 4003, &[".seg"]);
    fs::write(&segment, &sealed).unwrap();
    check_whole(dir.path());
}
