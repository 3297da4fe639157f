//! What the device and the file system under a file ask of direct I/O.

use std::fs::File;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;

use crate::limits::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};

/// What is assumed where the system does not say.
const UNKNOWN_BYTES: u32 = 4096;

/// The block that a flush to this file is padded to: the larger of the file system's direct-I/O alignment and the
/// physical sector.
pub(super) fn block_bytes(file: &File) -> u32 {
    block_of(direct_align(file), physical_sector(file))
}

fn block_of(align: Option<u32>, sector: Option<u32>) -> u32 {
    let larger = align.unwrap_or(UNKNOWN_BYTES).max(sector.unwrap_or(UNKNOWN_BYTES));
    // A sector of 520 bytes, or nonsense, is rounded up to what can be a block.
    larger.min(BLOCK_BYTES_MAX).next_power_of_two().max(BLOCK_BYTES_MIN)
}

/// The alignment of offsets and of memory that direct I/O on this file needs; `None` if the system does not say.
#[cfg(target_os = "linux")]
pub(super) fn direct_align(file: &File) -> Option<u32> {
    let mut status = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path ends in a zero byte, and there is room for the status.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            status.as_mut_ptr(),
        )
    };
    // SAFETY: all zeros is a valid status, and the call filled in the rest if it succeeded.
    let status = unsafe { status.assume_init() };
    let known = result == 0 && status.stx_mask & libc::STATX_DIOALIGN != 0;
    let align = status.stx_dio_offset_align.max(status.stx_dio_mem_align);
    (known && status.stx_dio_offset_align != 0).then_some(align)
}

/// See the other one.
#[cfg(not(target_os = "linux"))]
pub(super) fn direct_align(_: &File) -> Option<u32> {
    None
}

/// The physical sector of the device that the file lies on; `None` if it lies on none, or on several.
#[cfg(target_os = "linux")]
fn physical_sector(file: &File) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;

    let device = file.metadata().ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    // A partition has no queue of its own: its disk is the directory above.
    ["queue", "../queue"].iter().find_map(|queue| {
        let path = format!("/sys/dev/block/{major}:{minor}/{queue}/physical_block_size");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })
}

/// See the other one.
#[cfg(not(target_os = "linux"))]
fn physical_sector(_: &File) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_the_larger_one_within_limits() {
        assert_eq!(block_of(Some(512), Some(4096)), 4096);
        assert_eq!(block_of(Some(4096), Some(512)), 4096);
        assert_eq!(block_of(Some(512), Some(512)), 512);
        assert_eq!(block_of(Some(4), Some(1)), BLOCK_BYTES_MIN);
        assert_eq!(block_of(Some(520), Some(512)), 1024);
        assert_eq!(block_of(Some(u32::MAX), None), BLOCK_BYTES_MAX);
        assert_eq!(block_of(None, Some(512)), UNKNOWN_BYTES);
        assert_eq!(block_of(Some(512), None), UNKNOWN_BYTES);
        assert_eq!(block_of(None, None), UNKNOWN_BYTES);
    }
}
