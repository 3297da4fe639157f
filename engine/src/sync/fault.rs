//! Steps left out and orderings weakened on purpose, for models and simulations that must then fail. Exists there alone: under
//! `--cfg loom`, under `--cfg shuttle`, and with the feature `mutants`.
//!
//! A model runs on one thread of the system, whatever threads it has itself; so does a simulation, and so does what they
//! have broken.

use std::cell::Cell;

macro_rules! faults {
    (protocol { $($(#[$of:meta])* $protocol:ident,)* }
     storage { $($(#[$doc:meta])* $storage:ident = $name:literal,)* }) => {
        /// What is broken.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Fault {
            $($(#[$of])* $protocol,)*
            $($(#[$doc])* $storage,)*
        }

        impl Fault {
            /// Those that a simulation of the whole store finds, by name: the mutants. All are safe to run.
            pub const STORAGE: &[(&str, Fault)] = &[$(($name, Fault::$storage)),*];
        }
    };
}

faults! {
    protocol {
        /// A write is installed over one that is not decided.
        InstallsOverUndecided,
        /// An entry's address is published without the entry.
        InstallsRelaxed,
        /// Entries are installed in the order in which they were given.
        LeavesUnsorted,
        /// A part that only checks does not count as an operation on its slot.
        ChecksWithoutTick,
        /// A decision is seen without what was decided on.
        DecidesRelaxed,
        /// A look does not read the word again after the version.
        LooksOnce,
        /// A version is shown without the entry that stood in the slot meanwhile.
        PublishesRelaxed,
        /// A rejected entry makes way for its plain tick while a predecessor is not published.
        SweepsUnpublished,
        /// A write's address is on the stack without the write.
        PushesRelaxed,
        /// A ringer looks whether the sleeper sleeps without fencing first.
        RingsUnfenced,
        /// The first ringer that sees the sleeper asleep calls for all.
        RingsOnce,
        /// A sleeper looks for work without fencing first.
        SleepsUnfenced,
        /// A waiter sees that it was woken already, and not what for.
        RegistersRelaxed,
        /// A waiter looks at its condition without fencing first.
        RegistersUnfenced,
        /// A waker looks for waiters without fencing first.
        WakesUnfenced,
        /// The cell's state is settled without the answer.
        SettlesRelaxed,
        /// A task does not look at the cell again when it has registered.
        PollsOnce,
        /// A task that was late leaves its waker in the cell.
        KeepsTask,
        /// A task marks the cell before it registers.
        MarksFirst,
        /// A guard's announcement does not say that the guard before is over.
        AnnouncesRelaxed,
        /// A guard's announcement is not fenced.
        PinsUnfenced,
        /// The epoch moves on after a look at announcements that no fence precedes.
        AdvancesUnfenced,
        /// Whoever loses the race to move the epoch on does not acquire what the winner has seen.
        LosesRelaxed,
        /// The epoch moves on without acquiring the end of guards.
        AdvancesBlindly,
        /// The epoch is noted without a fence.
        NotesUnfenced,
        /// The watermark is stored without the slots below it.
        WatermarkRelaxed,
        /// Whoever is refused for want of blocks keeps the bytes.
        KeepsBytes,
        /// Permits come back without a wake-up.
        ReturnsSilently,
        /// Whoever is refused leaves those sleeping whom it held up for a moment.
        RefusesSilently,
        /// New blocks are granted without the segment that they stand for.
        GrantsRelaxed,
        /// Whoever covers a rejected entry does not take over what that covered.
        ForgetsCovered,
        /// What an entry covers is followed though it is published.
        FollowsPublished,
        /// What was published is read before the guard was taken, under which entries are followed.
        ReadsBeforeGuard,
        /// The version is shown before the position of its record.
        PublishesHeadLast,
        /// What was published is not fenced before followers are looked for.
        RingsFollowersUnfenced,
        /// A follower looks at what it waits for without fencing first.
        EnlistsUnfenced,
        /// A seat is found listed without the waker that was registered before.
        ListsRelaxed,
        /// The ringer says that a seat is off the list before it has read who comes next.
        ClearsFirst,
        /// A shard that stops takes what was submitted, and leaves the stack open.
        HaltsOpen,
        /// Nobody who follows the log is woken when it goes on.
        RingsNobody,
    }
    storage {
        // The log writer and its disk.
        /// A flush counts as durable when it is started. Seen after a power cut: what was acknowledged is not there.
        AcknowledgesEarly = "acknowledges-early",
        /// A write or a flush that failed counts as durable, and the shard goes on. Seen after a power cut, or at the next
        /// opening.
        GoesOnAfterFailure = "goes-on-after-failure",
        /// What the sync behind a write says is not looked at. Seen after a sync that failed and a power cut.
        IgnoresSyncResult = "ignores-sync-result",
        /// A write that wrote less than it was given is taken for whole. Seen at the next opening, or a read from disk.
        AcceptsShortWrite = "accepts-short-write",
        /// Flushes are published as they complete, not in order. Seen after a power cut that loses the one before.
        PublishesOutOfOrder = "publishes-out-of-order",
        /// Requests are placed in the log with the newest first. Seen by reads, and at the next opening.
        TakesNewestFirst = "takes-newest-first",
        /// The watermark moves when a flush is started. Seen by whoever reads or follows the log, after a power cut.
        WatermarkLeads = "watermark-leads",
        /// A flush states that all before it is durable, also what is still in flight. Seen after a power cut that loses
        /// that: the log is taken for damaged.
        StatesTooMuch = "states-too-much",
        /// No flush states the frontier when the log falls quiet. Seen when the last flush has rotted: it is cut off.
        StatesNoFrontier = "states-no-frontier",
        /// Whoever waits for writes of others is answered at once. Seen after a power cut: a retry was told a result that
        /// is not there.
        WaitsForNobody = "waits-for-nobody",
        /// A write that was in flight when the shard stopped is called not written. Seen at the next opening: it is there.
        DeniesWhatFlew = "denies-what-flew",
        /// An accepted write that is not durable does not count for the next version. Seen at once: two writes get one.
        ReissuesVersion = "reissues-version",
        /// The condition of a part that only checks is not looked at. Seen at once: the write is accepted.
        IgnoresChecks = "ignores-checks",
        /// The sequence of a client is not compared. Seen at once: a retry is written twice.
        IgnoresClients = "ignores-clients",

        // Reading.
        /// What is accepted and not durable is left out of accepted reads. Seen by them, and by executions.
        ForgetsPending = "forgets-pending",
        /// Whoever goes along the log skips the first flush of a segment that it comes to. Seen by subscriptions.
        SkipsAtSegmentChange = "skips-at-segment-change",
        /// The checksum of events is not compared when they are read. Seen when they have rotted.
        ServesRot = "serves-rot",

        // The format.
        /// Salts are neither in checksums nor compared. Seen when a segment has blocks of a twin of the store that went on
        /// by itself from the same image: they are taken for its own.
        ForgetsSalt = "forgets-salt",
        /// Neither checksums nor flush headers are held to the place where they are read. Seen when a flush lands or is
        /// read elsewhere: it is shown there.
        IgnoresPlace = "ignores-place",

        // Segments.
        /// Directories are not synced. Seen after a power cut: the segment has no name, or its old one.
        SkipsDirectorySync = "skips-directory-sync",
        /// A segment's header is not synced. Seen after a power cut: flushes stand behind none.
        SkipsHeaderSync = "skips-header-sync",
        /// A header is written into a spare whose name is not durable. Seen after a power cut: a segment under the name of
        /// another.
        TrustsSpareNames = "trusts-spare-names",
        /// Leftovers become spares before the header is durable that replaces them as evidence. Seen after a power cut in
        /// between, if what only they prove has rotted: it is cut off.
        TidiesFirst = "tidies-first",
        /// An opening does not state where the log ended. Seen at the next one: all before it is gone.
        ForgetsAcceptedEnd = "forgets-accepted-end",

        // Recovery.
        /// The disk's lock does not wait for writes of the process before. Seen when one lands after the opening.
        OpensBeforeStragglers = "opens-before-stragglers",
        /// The tail is not synced before it is accepted. Seen after the death of the process and then a power cut: what was
        /// shown in between is gone.
        RecoversUnsynced = "recovers-unsynced",
        /// The tail is read from the system's cache. Seen after a sync that failed, an opening and a power cut: what was shown
        /// in between is gone.
        TrustsCache = "trusts-cache",
        /// The proven end is a block too low. Seen when the last flush below it has rotted: it is cut off.
        ProvesTooLittle = "proves-too-little",
        /// The proven end is a block too high. Seen at an opening after one that wrote nothing, or after a power cut that tears
        /// the last flush: a log that has all it needs is taken for damaged.
        ProvesTooMuch = "proves-too-much",
        /// Damage below the proven end is the end of the log. Seen when anything has rotted: what follows is cut off.
        CutsOnRot = "cuts-on-rot",
        /// Of a flush the header is verified, and nothing else. Seen after a power cut that tears one.
        AcceptsTornRecords = "accepts-torn-records",
        /// The events above the proven end are not verified. Seen after a power cut that tears some: they can't be read.
        AcceptsTornEvents = "accepts-torn-events",
        /// Of a write to several aggregates the first is recovered. Seen after any opening.
        RecoversHalf = "recovers-half",
        /// What clients have sent is not recovered. Seen by a retry after any opening: it is written twice.
        ForgetsClients = "forgets-clients",
        /// Where checkpoints stand is not recovered. Seen after any opening.
        ForgetsCheckpoints = "forgets-checkpoints",
    }
}

impl Fault {
    /// The mutant of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Fault> {
        Fault::STORAGE.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault)
    }

    /// Its name, if it is a mutant.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Fault::STORAGE.iter().find(|(_, fault)| *fault == self).map(|(name, _)| *name)
    }
}

thread_local! {
    static BROKEN: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Breaks something in what this thread runs from now on; `None`: nothing.
pub fn set(fault: Option<Fault>) {
    BROKEN.set(fault);
}

/// Whether this is broken.
pub(crate) fn is(fault: Fault) -> bool {
    BROKEN.get() == Some(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_has_a_name_of_its_own() {
        for (name, fault) in Fault::STORAGE {
            assert_eq!((Fault::named(name), fault.name()), (Some(*fault), Some(*name)));
        }
        assert!(Fault::STORAGE.len() >= 20);
        assert_eq!((Fault::named("none"), Fault::LooksOnce.name()), (None, None));
    }

    #[test]
    fn what_is_broken_is_broken_here_alone() {
        set(Some(Fault::CutsOnRot));
        assert!(is(Fault::CutsOnRot) && !is(Fault::ServesRot));
        let elsewhere = crate::sync::thread::spawn(|| is(Fault::CutsOnRot));
        assert!(!elsewhere.join().unwrap());
        set(None);
        assert!(!is(Fault::CutsOnRot));
    }
}
