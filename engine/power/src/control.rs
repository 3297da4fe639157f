//! What a rig says to the process that serves its drives: one line of JSON a request, one an answer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::{AtStake, Policy};

/// A drive, which is the file of that name under the rig's mount.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DriveId(pub u64);

impl DriveId {
    /// The name of its file.
    pub fn file_name(self) -> String {
        format!("drive-{}", self.0)
    }
}

/// How a drive misbehaves from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It does what it should.
    #[default]
    None,
    /// The next so many writes fail with EIO, once this many went well.
    FailWrites {
        /// Writes that still go well.
        after: u64,
        /// Writes that then fail.
        times: u64,
    },
    /// The next so many flushes fail with EIO, once this many went well.
    FailFlushes {
        /// Flushes that still go well.
        after: u64,
        /// Flushes that then fail.
        times: u64,
    },
    /// All reads fail with EIO, once this many went well.
    FailReads {
        /// Reads that still go well.
        after: u64,
    },
    /// Each request takes so long.
    Slow {
        /// Milliseconds for each write and each flush.
        millis: u64,
    },
    /// Flushes do nothing and answer that all is well.
    Lie,
}

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A drive of zeros.
    Create {
        /// Its size.
        bytes: u64,
    },
    /// A drive with what a file holds.
    Load {
        /// The file.
        path: PathBuf,
    },
    /// The image that a power cut leaves now.
    Cut {
        /// Of which drive.
        drive: DriveId,
        /// What outlives it.
        policy: Policy,
        /// Decides which sectors.
        seed: u64,
    },
    /// The image that a power cut leaves just before a later write or flush, the first at which something is at stake.
    CutLater {
        /// Of which drive.
        drive: DriveId,
        /// Writes and flushes until then.
        requests: u64,
        /// What outlives it.
        policy: Policy,
        /// Decides which sectors.
        seed: u64,
    },
    /// Whether the later cut has come.
    Collect {
        /// Of which drive.
        drive: DriveId,
        /// If not it won't.
        last: bool,
    },
    /// From now on.
    Misbehave {
        /// Which drive.
        drive: DriveId,
        /// How.
        fault: Fault,
    },
    /// Writes what is durable into a sparse file.
    Save {
        /// Which drive.
        drive: DriveId,
        /// The file.
        path: PathBuf,
    },
    /// Forgets a drive.
    Remove {
        /// Which drive.
        drive: DriveId,
    },
    /// What happened so far.
    Count,
}

/// What a rig's drives went through.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Writes that were taken.
    pub writes: u64,
    /// Flushes that were done.
    pub flushes: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Flushes that were not done and answered as if.
    pub lies: u64,
    /// Requests that were held up.
    pub delayed: u64,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A new drive.
    Drive(DriveId),
    /// An image, and what was at stake.
    Image(DriveId, AtStake),
    /// The later cut did not come.
    NoImage,
    /// Done.
    Done,
    /// What happened.
    Counts(Counts),
    /// Not done.
    Failed(String),
}
