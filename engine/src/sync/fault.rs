//! Steps left out and orderings weakened on purpose, for models that must then fail. Exists in models alone.
//!
//! A model runs on one thread of the system, whatever threads it has itself; so does what it has broken.

use std::cell::Cell;

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
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

thread_local! {
    static BROKEN: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Breaks something in the models that this thread runs from now on; `None`: nothing.
pub fn set(fault: Option<Fault>) {
    BROKEN.set(fault);
}

/// Whether this is broken.
pub(crate) fn is(fault: Fault) -> bool {
    BROKEN.get() == Some(fault)
}
