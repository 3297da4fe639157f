//! What the events of an aggregate add up to.

use crate::error::Error;
use crate::read::{Read, Recorded};

/// The state of an aggregate: what its events add up to, as decisions need it.
///
/// ```
/// use annals::{Event, Expect, Recorded, State, Store};
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let store = Store::open(dir.path())?;
///
/// #[derive(Default)]
/// struct Sheet {
///     hours: u64,
/// }
///
/// impl State for Sheet {
///     fn apply(&mut self, event: &Recorded) {
///         if event.event_type() == "HoursLogged" {
///             self.hours += event.data().iter().map(|hours| u64::from(*hours)).sum::<u64>();
///         }
///     }
/// }
///
/// store.append("sheet-1", Expect::Absent, [Event::new("HoursLogged", [8_u8])])?.wait()?;
/// let (sheet, version) = store.read("sheet-1").into_state::<Sheet>()?;
/// assert_eq!((sheet.hours, version), (8, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait State: Default {
    /// Executions save a snapshot when so many versions have come since the last one they know of, beside their write and
    /// only if the store has room; and they start their fold from the one that was saved last. 0: they do neither.
    /// `u64::MAX`: they only use what somebody else has saved ([`Store::save_snapshot`](crate::Store::save_snapshot)).
    ///
    /// The last one they know of is a durable one, or one that was saved with a state that is kept
    /// ([`Store::states`](crate::Store::states)). So without kept states, those that come before the first is durable save
    /// one each.
    ///
    /// A snapshot that can't be used is ignored, with a line in the log (`tracing`).
    const SNAPSHOT_EVERY: u64 = 0;

    /// Takes in the next event. Events come in order, each once. It can't refuse: they have happened.
    ///
    /// It does nothing else: an execution also shows it events that are not durable yet, and folds for attempts that are
    /// lost.
    fn apply(&mut self, event: &Recorded);

    /// The state as bytes for a snapshot; `None` unless the state can be kept so.
    ///
    /// An aggregate has one newest snapshot. Bytes begin with something by which [`decode`](State::decode) knows its own.
    fn encode(&self) -> Option<Vec<u8>> {
        None
    }

    /// The state that a snapshot stands for; `None` if the bytes are not such a state's. The aggregate is then folded
    /// from its start.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let _unused = bytes;
        None
    }
}

impl Read {
    /// Folds the events of the read into a state, and tells the version that it is of.
    ///
    /// # Errors
    ///
    /// The first error of the read: a state without some of its events would be another.
    pub fn into_state<S: State>(self) -> Result<(S, u64), Error> {
        let version = self.version();
        let mut state = S::default();
        self.show(&mut |event| state.apply(event))?;
        Ok((state, version))
    }
}
