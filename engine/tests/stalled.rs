//! No thread waits for a stalled thread: one is stopped for good between any two steps of an append, and all others go
//! on, on the same aggregates.

mod common;

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use annals::internals::disk::sim::{Order, SimDisk};
use annals::internals::reserve::pause;
use annals::{
    Committed, Error, ErrorKind, Event, Expect, Position, Recorded, State, States, Store, Ticket,
};
use common::{Gate, LONG, audit, directory, in_time, numbered, open_sim, small};

/// The number of the stalled write's events; the others' are smaller.
const STALLED: u64 = 1_000_000;

/// An append that will be stopped.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Any,
    Version,
    Create,
    Handle,
    Several,
    Checks,
    Client,
    Replay,
    /// Moves a checkpoint as well.
    Moves,
    Snapshot,
    /// Another write comes between its look and its submission.
    Loser,
    /// The same, of several aggregates with a client.
    WideLoser,
}

const KINDS: [Kind; 12] = [
    Kind::Any,
    Kind::Version,
    Kind::Create,
    Kind::Handle,
    Kind::Several,
    Kind::Checks,
    Kind::Client,
    Kind::Replay,
    Kind::Moves,
    Kind::Snapshot,
    Kind::Loser,
    Kind::WideLoser,
];

impl Kind {
    fn submit(self, store: &Store) -> Result<Ticket, Error> {
        let events = || [numbered(STALLED)];
        match self {
            Kind::Any | Kind::Loser => store.append("a", Expect::Any, events()),
            Kind::Version => store.append("b", Expect::Version(1), events()),
            Kind::Create => store.append("new", Expect::Absent, events()),
            Kind::Handle => store.aggregate("a")?.append(Expect::Exists, events()),
            Kind::Several => store
                .write()
                .append("a", Expect::Any, events())
                .append("fresh", Expect::Any, events())
                .check("c", Expect::Exists)
                .append("b", Expect::Exists, events())
                .submit(),
            Kind::Checks => {
                store.write().check("a", Expect::Exists).check("no", Expect::Absent).submit()
            }
            Kind::Client | Kind::WideLoser => store
                .write()
                .append("a", Expect::Any, events())
                .append("b", Expect::Any, events())
                .client(77, 1)
                .submit(),
            Kind::Replay => replayed(store, 0),
            Kind::Moves => {
                let to = Position::from_raw(STALLED);
                let write = store.write().append("a", Expect::Any, events());
                write.checkpoint("cp", Position::START, to).submit()
            }
            Kind::Snapshot => store.save_snapshot("a", 1, "stalled"),
        }
    }

    /// Whether no other write can contradict its conditions.
    fn always_holds(self) -> bool {
        !matches!(self, Kind::Version | Kind::Create | Kind::Moves)
    }
}

/// The write of client 50; the first time it is made, its number is kept.
fn replayed(store: &Store, number: u64) -> Result<Ticket, Error> {
    store.write().append("a", Expect::Any, [numbered(number)]).client(50, 1).submit()
}

fn prepare(store: &Store) -> Committed {
    for key in ["b", "c"] {
        store.append(key, Expect::Absent, [numbered(1)]).unwrap().wait().unwrap();
    }
    replayed(store, 1).unwrap().wait().unwrap()
}

/// A thread that was stopped on its way, or came to its end before.
struct Stopped {
    thread: JoinHandle<Result<Ticket, Error>>,
    /// The steps up to the one it stands before; all of them if it was not stopped.
    steps: Vec<&'static str>,
}

/// Stops the calling thread before its `nth` step from now on, and tells the steps up to it. Another write comes in between
/// before the first submission, if there is a store for it.
fn stop_this_thread(
    nth: usize,
    tell: mpsc::Sender<Vec<&'static str>>,
    gate: Gate,
    mut others: Option<Store>,
) {
    let mut steps = Vec::new();
    pause::on_this_thread(move |step| {
        steps.push(step);
        if step == "submit"
            && let Some(others) = others.take()
        {
            let between = move || others.append("a", Expect::Any, [numbered(2)]).map(drop);
            let _closed_perhaps = thread::spawn(between).join().unwrap();
        }
        if steps.len() == nth + 1 {
            let _nobody_listens = tell.send(steps.clone());
            gate.wait();
        }
    });
}

/// Starts an append on a thread of its own and returns when that stands before its `nth` step, or is done.
fn stop_at(kind: Kind, store: &Store, nth: usize, gate: &Gate) -> Stopped {
    let (tell, told) = mpsc::channel();
    let (store, gate) = (store.clone(), gate.clone());
    let thread = thread::spawn(move || {
        let tell_end = tell.clone();
        let overtaken = matches!(kind, Kind::Loser | Kind::WideLoser);
        stop_this_thread(nth, tell, gate, overtaken.then(|| store.clone()));
        let submitted = kind.submit(&store);
        let _stopped_before = tell_end.send(Vec::new());
        submitted
    });
    let steps = told.recv_timeout(LONG).unwrap_or_else(|_| panic!("{kind:?} {nth} does not start"));
    Stopped { thread, steps }
}

/// Appends on the version that the aggregate is at, whatever it takes.
fn append_at_version(store: &Store, key: &str, number: u64) -> Committed {
    let mut version = store.version(key).unwrap();
    loop {
        match store.append(key, Expect::Version(version), [numbered(number)]) {
            Ok(ticket) => return ticket.wait().unwrap(),
            Err(error) => version = error.actual().unwrap_or_else(|| panic!("{error}")),
        }
    }
}

/// Moves the checkpoint on from wherever it stands.
fn move_on(store: &Store) {
    let start = Instant::now();
    while start.elapsed() < LONG {
        let from = store.checkpoint("cp").unwrap();
        let to = Position::from_raw(from.get() + 1);
        match store.write().checkpoint("cp", from, to).submit() {
            Ok(ticket) => return drop(ticket.wait().unwrap()),
            // Whoever has moved it may not be durable yet.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
        thread::yield_now();
    }
    panic!("the checkpoint can't be moved");
}

/// Everything that others do meanwhile, each waiting for its ticket.
fn go_on(store: &Store, kind: Kind, client: u128) {
    let any = |key: &str| store.append(key, Expect::Any, [numbered(3)]).unwrap().wait().unwrap();
    any("a");
    any("new");
    let wide = |sequence| {
        let write = store
            .write()
            .append("b", Expect::Any, [numbered(4)])
            .append("a", Expect::Exists, [numbered(4)])
            .append("fresh", Expect::Any, [numbered(4)])
            .check("c", Expect::Exists)
            .client(client, sequence);
        write.submit().unwrap().wait().unwrap()
    };
    let first = wide(1);
    let again = wide(1);
    assert!(!first.is_replay() && again.is_replay());
    assert_eq!(first.position(), again.position());
    for key in ["a", "b", "c", "new"] {
        append_at_version(store, key, 5);
    }
    let checks =
        store.write().check("b", Expect::Exists).check("no", Expect::Absent).submit().unwrap();
    futures::executor::block_on(checks).unwrap();
    assert!(replayed(store, 6).unwrap().wait().unwrap().is_replay());
    move_on(store);
    store.save_snapshot("a", 1, "others").unwrap().wait().unwrap();
    assert_eq!(store.load_snapshot("a").unwrap().unwrap().version(), 1);
    if matches!(kind, Kind::Client | Kind::WideLoser) {
        kind.submit(store).unwrap().wait().unwrap();
    }
    let conflict = store.append("a", Expect::Absent, [numbered(7)]).unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert!(store.read("a").map(Result::unwrap).count() > 2);
    assert!(store.log(0).map(Result::unwrap).count() > 5);
    assert!(any("b").version() < append_at_version(store, "b", 8).version());
}

/// What became of the stalled append agrees with the log.
fn check_outcome(
    kind: Kind,
    outcome: &Result<Committed, Error>,
    store: &Store,
    original: &Committed,
    context: &str,
) {
    let log = audit(store);
    let stored: Vec<_> = log.iter().filter(|write| write.has_number(STALLED)).collect();
    match (kind, outcome) {
        (Kind::Checks, Ok(done)) => assert_eq!(done.version_of("no"), Some(0), "{context}"),
        (Kind::Replay, Ok(done)) => {
            assert!(done.is_replay() && done.position() == original.position(), "{context}");
        }
        (Kind::Snapshot, Ok(done)) => {
            let found = log.iter().find(|write| write.position == done.position());
            assert!(found.is_some_and(|write| write.appended.is_empty()), "{context}");
        }
        (_, Ok(done)) => {
            assert_eq!(stored.len(), 1, "{context}: {stored:?}");
            assert_eq!(stored[0].position, done.position(), "{context}");
            for (key, version) in &stored[0].appended {
                assert_eq!(done.version_of(key), Some(*version), "{context}");
            }
        }
        // Others have sent it too.
        (Kind::Client | Kind::WideLoser, Err(_)) => assert_eq!(stored.len(), 1, "{context}"),
        (_, Err(error)) => assert!(stored.is_empty(), "{context}: {error} {stored:?}"),
    }
}

/// Returns whether the append was stopped at all.
fn stall(kind: Kind, nth: usize, close_first: bool) -> bool {
    let disk = SimDisk::new(nth as u64);
    let store = open_sim(&small(), &disk).unwrap();
    disk.set_order(if nth.is_multiple_of(2) { Order::Fifo } else { Order::Random });
    let original = prepare(&store);
    let gate = Gate::default();
    let stopped = stop_at(kind, &store, nth, &gate);
    let context = format!("{kind:?}, closed first {close_first}, stopped at {:?}", stopped.steps);
    if stopped.steps.is_empty() {
        stopped.thread.join().unwrap().unwrap().wait().unwrap();
        return false;
    }
    for client in [0, 2] {
        let others = [client, client + 1].map(|client| {
            let store = store.clone();
            move || go_on(&store, kind, client)
        });
        in_time(&format!("others, {context}"), move || {
            let [one, other] = others.map(thread::spawn);
            one.join().unwrap();
            other.join().unwrap();
        });
    }
    if close_first {
        let other = store.clone();
        in_time(&format!("closing, {context}"), move || other.close()).unwrap();
        assert_eq!(
            store.append("a", Expect::Any, [numbered(9)]).unwrap_err().kind(),
            ErrorKind::Closed
        );
    }
    gate.open();
    let outcome = in_time(&format!("the one that was stopped, {context}"), move || {
        stopped.thread.join().unwrap().and_then(|ticket| ticket.wait())
    });
    if let Err(error) = &outcome {
        let expected = match error.kind() {
            ErrorKind::Closed => close_first,
            ErrorKind::Conflict => !kind.always_holds(),
            _ => false,
        };
        assert!(expected, "{context}: {error}");
    }
    check_outcome(kind, &outcome, &store, &original, &context);
    let image = disk.clone_durable();
    drop(store);
    for disk in [disk, image] {
        let store = open_sim(&small(), &disk).unwrap();
        check_outcome(kind, &outcome, &store, &original, &context);
    }
    true
}

fn stall_at_each_step(kinds: &[Kind]) {
    for &kind in kinds {
        for close_first in [false, true] {
            let stopped = (0..100).take_while(|nth| stall(kind, *nth, close_first)).count();
            // The fewest steps are those of a replay: look, submit, wake.
            assert!((3..100).contains(&stopped), "{kind:?} was stopped at {stopped} steps");
        }
    }
}

#[test]
fn a_stopped_append_to_one_aggregate_holds_up_nobody() {
    stall_at_each_step(&[Kind::Any, Kind::Version, Kind::Create, Kind::Handle]);
}

#[test]
fn a_stopped_append_to_several_aggregates_holds_up_nobody() {
    stall_at_each_step(&[Kind::Several, Kind::Client]);
}

#[test]
fn a_stopped_check_or_replay_holds_up_nobody() {
    stall_at_each_step(&[Kind::Checks, Kind::Replay]);
}

#[test]
fn a_stopped_checkpoint_or_snapshot_holds_up_nobody() {
    stall_at_each_step(&[Kind::Moves, Kind::Snapshot]);
}

#[test]
fn a_stopped_append_that_lost_a_race_holds_up_nobody() {
    stall_at_each_step(&[Kind::Loser, Kind::WideLoser]);
}

/// The original of a retry lands when the retry has looked for the slots of its client, which are not there yet.
#[test]
fn a_retry_that_is_stopped_while_its_original_lands_is_a_replay() {
    for wide in [false, true] {
        for nth in 0..100 {
            let disk = SimDisk::new(nth);
            let store = open_sim(&small(), &disk).unwrap();
            store.append("b", Expect::Absent, [numbered(1)]).unwrap().wait().unwrap();
            let submit = move |store: &Store| {
                let mut write = store.write().append("b", Expect::Version(1), [numbered(2)]);
                if wide {
                    write = write.append("x", Expect::Absent, [numbered(2)]);
                }
                write.client(8, 1).submit()
            };
            let (tell, told) = mpsc::channel();
            let gate = Gate::default();
            let retry = thread::spawn({
                let (store, gate) = (store.clone(), gate.clone());
                move || {
                    let (mut steps, tell_end) = (0, tell.clone());
                    pause::on_this_thread(move |step| {
                        if steps == nth {
                            let _nobody_listens = tell.send(Some(step));
                            gate.wait();
                        }
                        steps += 1;
                    });
                    let outcome = submit(&store).and_then(|ticket| ticket.wait());
                    let _stopped_before = tell_end.send(None);
                    outcome
                }
            });
            let step = told.recv_timeout(LONG).unwrap();
            let original = submit(&store).and_then(|ticket| ticket.wait());
            gate.open();
            let again = in_time("the retry", move || retry.join().unwrap());
            let context = format!("wide {wide}, stopped at {step:?}");
            let (one, other) = (original.expect(&context), again.expect(&context));
            assert_eq!(one.position(), other.position(), "{context}");
            assert!(one.is_replay() != other.is_replay(), "{context}");
            assert_eq!(audit(&store).len(), 2, "{context}");
            if step.is_none() {
                assert!(nth > 8, "{context}: {nth}");
                break;
            }
        }
    }
}

#[test]
fn any_number_of_stopped_appends_hold_up_nobody() {
    let disk = SimDisk::new(3);
    let store = open_sim(&small(), &disk).unwrap();
    prepare(&store);
    let gate = Gate::default();
    let mut stopped = Vec::new();
    for nth in 0..20 {
        for kind in KINDS {
            stopped.push(stop_at(kind, &store, nth, &gate));
        }
    }
    assert!(stopped.iter().filter(|stopped| !stopped.steps.is_empty()).count() > 100);
    let others = store.clone();
    in_time("others", move || {
        for client in 0..3 {
            go_on(&others, Kind::Any, client);
        }
    });
    let other = store.clone();
    in_time("closing", move || other.close()).unwrap();
    gate.open();
    let mut landed = 0;
    for Stopped { thread, .. } in stopped {
        let outcome =
            in_time("one that was stopped", move || thread.join().unwrap().and_then(|t| t.wait()));
        match outcome {
            Ok(done) => landed += u64::from(!done.is_replay() && done.version() > 0),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Conflict), "{error}");
            }
        }
    }
    let stored = audit(&store).iter().filter(|write| write.has_number(STALLED)).count() as u64;
    assert_eq!(stored, landed);
    drop(store);
    audit(&open_sim(&small(), &disk).unwrap());
}

/// An execution, or a wait for a winner, that will be stopped.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Decision {
    One,
    Kept,
    Several,
    Client,
    Refusal,
    /// Another write comes between its decision and its submission.
    Overtaken,
    Winner,
}

/// How many events there are; a thread may be stopped while it counts.
#[derive(Clone, Default)]
struct Events(u64);

impl State for Events {
    fn apply(&mut self, _: &Recorded) {
        pause::here("apply");
        self.0 += 1;
    }
}

/// What came of it: the position of the write that was made, if one was.
type Decided = Result<Option<Committed>, Error>;

impl Decision {
    fn run(self, store: &Store) -> Decided {
        let states: States<Events> = store.states(4);
        let one = |events: &Events| {
            pause::here("decide on a state");
            assert!(events.0 > 0, "it was prepared");
            Ok::<_, u64>(vec![numbered(STALLED)])
        };
        let executed = match self {
            Decision::One | Decision::Overtaken => store.execute("a", one),
            Decision::Kept => states.execute("b", one),
            Decision::Several => store.execute_all(["a", "c", "b"], |events: &[Events]| {
                Ok(vec![one(&events[0])?, vec![], one(&events[2])?])
            }),
            Decision::Client => store.executor().client(78, 1).execute("a", one),
            Decision::Refusal => store.execute("a", |events: &Events| Err(events.0)),
            Decision::Winner => {
                let lost = store.append("a", Expect::Absent, [numbered(STALLED)]).unwrap_err();
                return match lost.winner() {
                    Some(winner) => winner.wait().map(|()| None),
                    None => Err(lost),
                };
            }
        };
        let answer = executed.wait()?;
        assert_eq!(answer.is_err(), self == Decision::Refusal);
        Ok(answer.unwrap_or(None))
    }
}

/// Returns whether it was stopped at all.
fn stall_decision(decision: Decision, nth: usize, close_first: bool) -> bool {
    let disk = SimDisk::new(nth as u64);
    let store = open_sim(&small(), &disk).unwrap();
    disk.set_order(if nth.is_multiple_of(2) { Order::Fifo } else { Order::Random });
    prepare(&store);
    let gate = Gate::default();
    let (tell, told) = mpsc::channel();
    let stopped = thread::spawn({
        let (store, gate) = (store.clone(), gate.clone());
        move || {
            let tell_end = tell.clone();
            let overtaken = decision == Decision::Overtaken;
            stop_this_thread(nth, tell, gate, overtaken.then(|| store.clone()));
            let outcome = decision.run(&store);
            let _stopped_before = tell_end.send(Vec::new());
            outcome
        }
    });
    let steps = told.recv_timeout(LONG).unwrap();
    let context = format!("{decision:?}, closed first {close_first}, stopped at {steps:?}");
    let was_stopped = !steps.is_empty();
    if was_stopped {
        let others = store.clone();
        in_time(&format!("others, {context}"), move || {
            go_on(&others, Kind::Any, 0);
            // They decide too, on what it decides on.
            for decision in [Decision::Kept, Decision::Several, Decision::Refusal, Decision::Winner]
            {
                decision.run(&others).unwrap();
            }
        });
        if close_first {
            let other = store.clone();
            in_time(&format!("closing, {context}"), move || other.close()).unwrap();
        }
    }
    gate.open();
    let outcome = in_time(&context, move || stopped.join().unwrap());
    let allowed = |error: &Error| close_first && error.kind() == ErrorKind::Closed;
    assert!(outcome.as_ref().err().is_none_or(allowed), "{context}: {outcome:?}");
    drop(store);
    let store = open_sim(&small(), &disk).unwrap();
    let stored = audit(&store);
    let stalled = stored.iter().filter(|write| write.has_number(STALLED)).count();
    let written = matches!(outcome, Ok(Some(_)));
    assert_eq!(stalled, usize::from(written) + 2 * usize::from(was_stopped), "{context}");
    if let Ok(Some(done)) = outcome {
        assert!(stored.iter().any(|write| write.position == done.position()), "{context}");
    }
    was_stopped
}

fn stall_decisions(decisions: &[Decision]) {
    for &decision in decisions {
        for close_first in [false, true] {
            let stopped =
                (0..100).take_while(|nth| stall_decision(decision, *nth, close_first)).count();
            // The fewest steps are those of a wait for a winner: acquire, submit, wake.
            assert!((2..100).contains(&stopped), "{decision:?} was stopped at {stopped} steps");
        }
    }
}

#[test]
fn a_stopped_execution_holds_up_nobody() {
    stall_decisions(&[Decision::One, Decision::Kept, Decision::Several]);
}

#[test]
fn a_stopped_execution_that_is_told_something_else_holds_up_nobody() {
    stall_decisions(&[Decision::Client, Decision::Refusal, Decision::Overtaken, Decision::Winner]);
}

/// Stops a thread that holds permits for a write of several blocks.
fn stop_with_permits(
    store: &Store,
    bytes: usize,
    gate: &Gate,
) -> JoinHandle<Result<Ticket, Error>> {
    let (tell, told) = mpsc::channel();
    let (store, gate) = (store.clone(), gate.clone());
    let thread = thread::spawn(move || {
        pause::on_this_thread(move |step| {
            if step == "make slots" {
                let _told_before = tell.send(());
                gate.wait();
            }
        });
        store.append("stopped", Expect::Any, [Event::new("E", vec![1u8; bytes])])
    });
    told.recv_timeout(LONG).unwrap();
    thread
}

#[test]
fn a_stopped_thread_with_permits_takes_no_more_than_those() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let gate = Gate::default();
    let stopped = stop_with_permits(&store, 20_000, &gate);
    let most = store.limits().write_bytes;
    let others = store.clone();
    let kinds = in_time("writes of all sizes beside a stopped one", move || {
        let mut kinds = Vec::new();
        for round in 0..12usize {
            for bytes in [100, 10_000, most / 3, most / 2, most - 500] {
                let event = Event::new("E", vec![round as u8; bytes]);
                let outcome = others.append("others", Expect::Any, [event]).and_then(|t| t.wait());
                kinds.push((bytes, outcome.map(|done| done.version()).map_err(|e| e.kind())));
            }
        }
        kinds
    });
    // What does not find room beside the stopped one is refused, in time, and takes no space.
    for (bytes, outcome) in &kinds {
        assert!(
            outcome.is_ok() || *bytes > most / 2 && *outcome == Err(ErrorKind::Busy),
            "{bytes}: {outcome:?} in {kinds:?}"
        );
    }
    let files = || std::fs::read_dir(dir.path().join("shard-0000")).unwrap().count();
    let before = files();
    let others = store.clone();
    in_time("more of the largest", move || {
        for _ in 0..3 {
            let event = Event::new("E", vec![7u8; most - 500]);
            let _busy_perhaps =
                others.append("others", Expect::Any, [event]).and_then(|t| t.wait());
        }
    });
    assert!(files() <= before + 6, "{before} files became {}", files());
    gate.open();
    in_time("the stopped one", move || stopped.join().unwrap().unwrap().wait()).unwrap();
    let event = Event::new("E", vec![7u8; most - 500]);
    in_time("the largest", {
        let store = store.clone();
        move || store.append("others", Expect::Any, [event]).unwrap().wait().unwrap()
    });
    drop(store);
    audit(&small().open(dir.path()).unwrap());
}

#[test]
fn a_stopped_thread_with_all_permits_makes_others_busy() {
    let disk = SimDisk::new(4);
    let store = open_sim(&small().in_flight_bytes(1 << 20).segment_bytes(8 << 20), &disk).unwrap();
    store.append("a", Expect::Any, [numbered(1)]).unwrap().wait().unwrap();
    let gate = Gate::default();
    let stopped = stop_with_permits(&store, 2 << 20, &gate);
    let others = store.clone();
    let busy = in_time("an append without room", move || {
        others.append("a", Expect::Any, [numbered(2)]).map(drop).unwrap_err()
    });
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    assert_eq!(
        store.append("a", Expect::Absent, [numbered(2)]).unwrap_err().kind(),
        ErrorKind::Conflict
    );
    gate.open();
    in_time("the stopped one", move || stopped.join().unwrap().unwrap().wait()).unwrap();
    let done = store.append("a", Expect::Any, [numbered(2)]).unwrap();
    assert_eq!(done.wait_timeout(Duration::from_secs(20)).unwrap().version(), 2);
    let _alive = Arc::clone(&disk);
}
