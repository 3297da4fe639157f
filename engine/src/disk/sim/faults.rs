//! What goes wrong on a simulated disk: planned, or by chance; and how often it really did.

use std::collections::BTreeMap;
use std::io;

use super::random::Random;

/// A kind of operation that can be counted and failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    /// A flush, or a write through the file.
    Write,
    /// Making a file durable: `sync`, and the second half of a flush.
    Sync,
    /// Creating a file.
    Create,
    /// Creating a directory.
    CreateDir,
    /// Opening a file.
    Open,
    /// A read through the file, or mapping it.
    Read,
    /// Listing a directory.
    List,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Making a directory durable.
    SyncDir,
    /// Preparing space, or changing a file's length.
    Prepare,
}

impl Op {
    /// The fault that is an error of it.
    fn error(self) -> FaultKind {
        match self {
            Op::Write => FaultKind::WriteError,
            Op::Sync => FaultKind::SyncError,
            Op::Create => FaultKind::CreateError,
            Op::CreateDir => FaultKind::CreateDirError,
            Op::Open => FaultKind::OpenError,
            Op::Read => FaultKind::ReadError,
            Op::List => FaultKind::ListError,
            Op::Rename => FaultKind::RenameError,
            Op::Remove => FaultKind::RemoveError,
            Op::SyncDir => FaultKind::SyncDirError,
            Op::Prepare => FaultKind::PrepareError,
        }
    }

    /// What a system may say when it fails. `Other` stands for EIO, which has no kind of its own.
    fn errors(self) -> &'static [io::ErrorKind] {
        use io::ErrorKind::{
            Other, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull, TimedOut,
        };
        match self {
            Op::Write => &[Other, Other, StorageFull, TimedOut, ReadOnlyFilesystem],
            Op::Sync => &[Other, Other, StorageFull, QuotaExceeded],
            Op::Prepare => &[Other, StorageFull],
            Op::Create | Op::CreateDir | Op::Rename => &[Other, StorageFull, ReadOnlyFilesystem],
            Op::Open => &[Other, PermissionDenied],
            Op::Read | Op::List | Op::Remove | Op::SyncDir => &[Other],
        }
    }
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which operations it hits.
    pub op: Op,
    /// The first one that it hits, counted from 1 when the fault is planned.
    pub nth: u64,
    /// Whether all later ones are hit too.
    pub lasting: bool,
    /// What the operation returns.
    pub kind: io::ErrorKind,
    /// For a write: half of its sectors are written first.
    pub short: bool,
}

/// What goes wrong now and then.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    /// What.
    pub kind: FaultKind,
    /// How often, of a million times that it could.
    pub per_million: u32,
    /// For an error: all later operations of its kind fail like the first that does.
    pub lasting: bool,
    /// How often at most.
    pub most: u64,
}

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal,)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind),*];

            /// What a report calls it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => $name,)*
                }
            }
        }
    };
}

fault_kinds! {
    /// A write fails.
    WriteError "write failed",
    /// A sync fails. What it had to save no later one saves.
    SyncError "sync failed",
    /// A file can't be created.
    CreateError "create failed",
    /// A directory can't be created.
    CreateDirError "create directory failed",
    /// A file can't be opened.
    OpenError "open failed",
    /// A read fails.
    ReadError "read failed",
    /// A directory can't be listed.
    ListError "list failed",
    /// A file can't be renamed.
    RenameError "rename failed",
    /// A file can't be removed.
    RemoveError "remove failed",
    /// The sync of a directory fails.
    SyncDirError "directory sync failed",
    /// Space can't be prepared.
    PrepareError "prepare failed",
    /// An error that goes on: counted beside the operation's own.
    LastingError "failed for good",
    /// No space is left, by the disk's capacity or an operation's error. Happens, but not by chance.
    Full "no space",
    /// A write writes some of its sectors and says so; or some, and fails.
    ShortWrite "short write",
    /// A read fills half of the buffer and meets the end of the file.
    ShortRead "short read",
    /// A write or a read is interrupted before it has done anything.
    Interrupted "interrupted",
    /// A flush's write is to be tried again.
    TryAgain "try again",
    /// A write lands elsewhere in its file. It is reported as done.
    MisdirectedWrite "misdirected write",
    /// A write lands in another file. It is reported as done.
    StrayWrite "write in another file",
    /// A read is of another place of its file.
    MisdirectedRead "misdirected read",
    /// A read is of another file.
    StrayRead "read of another file",
    /// A write goes nowhere. It is reported as done.
    LostWrite "lost write",
    /// A sync makes nothing durable. It is reported as done.
    LyingSync "lying sync",
    /// A directory's sync makes nothing durable. It is reported as done.
    LyingSyncDir "lying directory sync",
    /// Bytes at rest have changed. Happens, but not by chance.
    Rot "rot",
    /// Bytes at rest are those of a twin. Happens, but not by chance.
    Grafted "blocks of a twin",
    /// A flush does not complete before a certain time.
    LateCompletion "late completion",
    /// A flush completes before one that was started earlier. Happens, but not by chance.
    Reordered "completed out of order",
    /// The power fails. Happens, but not by chance.
    PowerCut "power cut",
    /// The process dies. Happens, but not by chance.
    ProcessDeath "process death",
    /// A sector that was written and not durable is lost in a power cut. Like the five that follow it happens with one.
    LostSector "sector lost",
    /// Of a page's sectors that were not durable, a power cut keeps some and loses some.
    TornWrite "write torn",
    /// A length that was not durable.
    LostLength "length lost",
    /// A change of a name that was not durable.
    LostName "name lost",
    /// A power cut damages a whole block of which some was being written.
    DamagedBlock "block damaged",
    /// A flush of the world before a cut lands in the world after it.
    Straggler "straggler landed",
}

/// How often what happened.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally(pub(super) BTreeMap<FaultKind, u64>);

impl Tally {
    pub(super) fn add(&mut self, kind: FaultKind) {
        self.add_many(kind, 1);
    }

    pub(super) fn add_many(&mut self, kind: FaultKind, times: u64) {
        if times > 0 {
            *self.0.entry(kind).or_default() += times;
        }
    }
}

/// What is to go wrong, and what did.
#[derive(Clone, Default, Debug)]
pub(super) struct Faults {
    pub(super) planned: Vec<Fault>,
    pub(super) chances: BTreeMap<FaultKind, Chance>,
    pub(super) happened: Tally,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) kind: io::ErrorKind,
    pub(super) short: bool,
}

impl From<Hit> for io::Error {
    fn from(hit: Hit) -> io::Error {
        hit.kind.into()
    }
}

impl Faults {
    /// Whether something that goes wrong by chance does so now. It is counted by whoever lets it happen.
    pub(super) fn draw(&mut self, kind: FaultKind, random: &mut Random) -> bool {
        let Some(chance) = self.chances.get_mut(&kind) else { return false };
        let hit = chance.most > 0 && (random.below(1_000_000) as u32) < chance.per_million;
        chance.most -= u64::from(hit);
        hit
    }

    /// As `draw`, and counts it.
    pub(super) fn strikes(&mut self, kind: FaultKind, random: &mut Random) -> bool {
        let hit = self.draw(kind, random);
        self.happened.add_many(kind, hit.into());
        hit
    }

    /// How an operation fails, if it does.
    pub(super) fn meet(&mut self, op: Op, random: &mut Random) -> Result<(), Hit> {
        let mut hit: Option<Fault> = None;
        self.planned.retain_mut(|fault| {
            if fault.op != op {
                return true;
            }
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth == 0 {
                hit = hit.or(Some(*fault));
            }
            fault.nth > 0 || fault.lasting
        });
        if hit.is_none() && self.draw(op.error(), random) {
            let kind = op.errors()[random.below(op.errors().len())];
            let lasting = self.chances.get(&op.error()).is_some_and(|chance| chance.lasting);
            let fault = Fault { op, nth: 1, lasting, kind, short: random.coin() };
            if lasting {
                self.planned.push(fault);
            }
            hit = Some(fault);
        }
        let Some(Fault { lasting, kind, short, .. }) = hit else { return Ok(()) };
        self.happened.add(op.error());
        self.happened.add_many(FaultKind::LastingError, lasting.into());
        self.happened.add_many(FaultKind::Full, (kind == io::ErrorKind::StorageFull).into());
        Err(Hit { kind, short })
    }
}
