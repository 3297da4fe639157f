//! Cuts the power under the store, as nearly as one machine can.
//!
//! The store runs on a real file system, with the real io_uring and the real page cache, on a loop device; and the drive
//! under that device is a file that a process of ours serves through FUSE. So it knows which sectors a flush has made durable, and
//! at any instant it can say what a drive would hold if the power failed now: what is durable, and of the rest what
//! chance leaves. It can tear, reorder, fail, stall and lie as drives do. `device` is the drive, `drives` serves it,
//! `rig` puts file systems on it; `load` and `writer` write, `judge` and `examine` look at what a cut left.
//!
//! Linux, as root.

#![cfg(target_os = "linux")]

pub mod control;
pub mod device;
pub mod draw;
pub mod drill;
pub mod drives;
pub mod examine;
pub mod faults;
pub mod frontier;
pub mod judge;
pub mod load;
pub mod plan;
pub mod release;
pub mod rig;
pub mod totals;
pub mod truth;
pub mod vm;
pub mod writer;
