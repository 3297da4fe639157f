//! What a queue's ring is made of: the ring as this kernel grants it, its tables, and the event that ends a wait.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, Probe, opcode};

use super::Waker;
use super::directory::retry;
use crate::sync::thread;

/// All that a queue does.
const OPERATIONS: [u8; 4] =
    [opcode::Write::CODE, opcode::WriteFixed::CODE, opcode::Fsync::CODE, opcode::Read::CODE];

/// Register calls that stay allowed once the ring is enabled (`IORING_REGISTER_*`).
const REGISTER_FILES_UPDATE: u8 = 6;
const REGISTER_BUFFERS_UPDATE: u8 = 16;

/// How often, and after what pause, a ring is asked for when there is no memory for it: what a process was charged
/// for locked memory is given back some time after it is gone.
const SETUP_TRIES: u32 = 6;
const SETUP_PAUSE: Duration = Duration::from_millis(10);

/// A disabled ring, with the flags that this kernel knows, and with all that a queue needs.
pub(super) fn create(entries: u32) -> io::Result<IoUring> {
    let mut tries = 1;
    let mut modern = true;
    loop {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_r_disabled();
        if modern {
            // Since Linux 6.1: completions are prepared on the writer's thread, when it asks for them.
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }
        match builder.build(entries) {
            Err(error) if modern && error.raw_os_error() == Some(libc::EINVAL) => modern = false,
            Err(error) if tries < SETUP_TRIES && error.raw_os_error() == Some(libc::ENOMEM) => {
                tries += 1;
                thread::sleep(SETUP_PAUSE);
            }
            result => return result.and_then(require),
        }
    }
}

/// Fails if the ring lacks what the queue is built on.
fn require(ring: IoUring) -> io::Result<IoUring> {
    let lacks = |what| {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel's rings lack {what}")))
    };
    if !ring.params().is_feature_nodrop() {
        return lacks("completions that are never dropped");
    }
    if !ring.params().is_feature_ext_arg() {
        return lacks("waits with a limit");
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    match OPERATIONS.iter().all(|&code| probe.is_supported(code)) {
        true => Ok(ring),
        false => lacks("an operation"),
    }
}

/// Forbids a ring that is not enabled yet what a queue does not use. A kernel that can't is no reason to do without
/// the ring.
pub(super) fn restrict(ring: &IoUring) {
    let operations = OPERATIONS.iter().map(|&code| Restriction::sqe_op(code));
    let registers = [REGISTER_FILES_UPDATE, REGISTER_BUFFERS_UPDATE].map(Restriction::register_op);
    let flags = Restriction::sqe_flags_allowed((Flags::FIXED_FILE | Flags::IO_LINK).bits());
    let mut all: Vec<_> = operations.chain(registers).chain([flags]).collect();
    let _ = ring.submitter().register_restrictions(&mut all);
}

/// A table of the ring's, replaced least recently used first. It keeps nothing alive: what was dropped leaves its
/// slot to another (and can't be mistaken, because its address is not used again before that).
pub(super) struct Slots<T: ?Sized> {
    slots: Vec<Option<(Weak<T>, u64)>>,
    uses: u64,
}

impl<T: ?Sized> Slots<T> {
    pub(super) fn new(count: usize) -> Slots<T> {
        Slots { slots: (0..count).map(|_| None).collect(), uses: 0 }
    }

    /// The slot of a thing, and whether it was there; if not it is now, and has to be registered.
    pub(super) fn place(&mut self, thing: &Arc<T>) -> (usize, bool) {
        self.uses += 1;
        let found = self.slots.iter().position(|slot| {
            slot.as_ref().is_some_and(|(held, _)| ptr::addr_eq(held.as_ptr(), Arc::as_ptr(thing)))
        });
        let slot = found.unwrap_or_else(|| {
            let age = |slot: &usize| match &self.slots[*slot] {
                Some((held, used)) if held.strong_count() > 0 => *used,
                _ => 0,
            };
            (0..self.slots.len()).min_by_key(age).unwrap_or(0)
        });
        self.slots[slot] = Some((Arc::downgrade(thing), self.uses));
        (slot, found.is_some())
    }

    pub(super) fn clear(&mut self, slot: usize) {
        self.slots[slot] = None;
    }
}

/// Ends a wait: a counter in the kernel.
#[derive(Debug)]
pub(super) struct Event(File);

impl Event {
    pub(super) fn new() -> io::Result<Event> {
        // SAFETY: a plain call.
        let fd = retry(|| unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: just returned, and owned by nobody else.
        Ok(Event(unsafe { File::from_raw_fd(fd) }))
    }

    /// For registering it in a ring.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Without a ring: sleeps until it is called or the time is over.
    pub(super) fn wait(&self, limit: Option<Duration>) {
        let limit = limit.map_or(-1, |limit| limit.as_millis().clamp(1, 1 << 30) as libc::c_int);
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, as said.
        if unsafe { libc::poll(&mut poll, 1, limit) } > 0 {
            // It is readable, so this does not block.
            let _ = (&self.0).read(&mut [0; 8]);
        }
    }
}

impl Waker for Event {
    fn wake(&self) {
        // Fails, or blocks, only where 2^64 wake-ups were not read.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_slot_is_given_away_and_the_dead_first() {
        let mut slots = Slots::new(2);
        let (a, b, c) = (Arc::new(1), Arc::new(2), Arc::new(3));
        assert_eq!(slots.place(&a), (0, false));
        assert_eq!(slots.place(&b), (1, false));
        assert_eq!(slots.place(&a), (0, true));
        assert_eq!(slots.place(&c), (1, false));
        assert_eq!(slots.place(&b), (0, false));
        drop(c);
        assert_eq!(slots.place(&a), (1, false));
        slots.clear(1);
        assert_eq!(slots.place(&a), (1, false));
        assert_eq!(slots.place(&b), (0, true));
    }

    #[test]
    fn what_a_queue_does_not_use_is_forbidden() {
        let mut ring = create(4).unwrap();
        restrict(&ring);
        ring.submitter().register_enable_rings().unwrap();
        // SAFETY: it points to nothing.
        unsafe { ring.submission().push(&opcode::Nop::new().build()).unwrap() };
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().unwrap().result(), -libc::EACCES);
        let denied = ring.submitter().unregister_files().unwrap_err();
        assert_eq!(denied.raw_os_error(), Some(libc::EACCES));
    }
}
