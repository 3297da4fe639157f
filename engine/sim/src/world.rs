//! The threads of a simulated life: coroutines, one of which runs at a time, chosen at random.
//!
//! A thread gives way where it waits, at every step of the engine that is marked as one, and at each operation of the
//! disk. Time is simulated: it passes a little with each turn, and jumps to the next deadline when everybody waits.
//! Everything random comes from the seed, so a world repeats itself exactly.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use annals::internals::sync::host::Host;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use fastrand::Rng;

/// Nobody needs so many turns in one life: somebody turns in circles.
const TURNS_MAX: u64 = 3_000_000;
/// Where simulated clocks begin: 2026-01-01.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// How its threads are run.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// At one step of so many a thread gives way.
    pub steps_per_turn: u32,
    /// One step of so many is the last of its thread: it stops there until the life is over. 0: none is.
    pub steps_per_stall: u32,
    /// How often of a hundred the same thread goes on if it can.
    pub loyalty_percent: u8,
    /// The most that passes with a turn.
    pub turn_nanos_max: u64,
}

/// Why a thread gives way.
enum Pause {
    /// It goes on when it is chosen.
    Step,
    /// It waits for something or until a time.
    Wait { ready: Predicate, until: Option<Duration> },
    /// It goes on when the life is over.
    Stall,
}

enum State {
    Ready,
    Waits { ready: Predicate, until: Option<Duration> },
    Stalled,
}

/// What a thread waits for. It lies on that thread's stack, where it stays while the thread is suspended.
struct Predicate(*const (dyn Fn() -> bool + 'static));

impl Predicate {
    fn new(ready: &dyn Fn() -> bool) -> Predicate {
        // SAFETY: only the lifetime changes. The predicate is looked at while its thread is suspended in `World::wait`,
        // which borrows it, and a thread is never unwound from there: worlds run to their end.
        let ready = unsafe {
            std::mem::transmute::<*const (dyn Fn() -> bool + '_), *const (dyn Fn() -> bool + 'static)>(
                ready,
            )
        };
        Predicate(ready)
    }

    fn holds(&self) -> bool {
        // SAFETY: see `new`.
        unsafe { (*self.0)() }
    }
}

type Way = Rc<Cell<*const Yielder<(), Pause>>>;

struct Thread {
    name: String,
    state: State,
    routine: Coroutine<(), Pause, ()>,
    /// Its way out, while it runs.
    way: Way,
    /// It may be stalled: it is a caller's.
    foreign: bool,
}

/// See the module.
pub struct World {
    temper: Temper,
    threads: RefCell<Vec<Thread>>,
    random: RefCell<Rng>,
    /// Who runs: its way out, its name, and whether it may be stalled. Nothing while the simulation itself runs.
    running: RefCell<Option<(Way, bool)>>,
    last: Cell<usize>,
    /// Who can run: kept for its memory.
    able: RefCell<Vec<usize>>,
    now: Cell<Duration>,
    turns: Cell<u64>,
    over: Cell<bool>,
    /// How many threads were stopped for ever.
    pub stalls: Cell<u64>,
    /// A number over all choices: equal if two worlds went the same way.
    path: Cell<u64>,
}

impl World {
    /// A world without threads.
    pub fn new(seed: u64, temper: Temper) -> Rc<World> {
        Rc::new(World {
            temper,
            threads: RefCell::default(),
            random: RefCell::new(Rng::with_seed(seed)),
            running: RefCell::new(None),
            last: Cell::new(0),
            able: RefCell::default(),
            now: Cell::new(Duration::ZERO),
            turns: Cell::new(0),
            over: Cell::new(false),
            stalls: Cell::new(0),
            path: Cell::new(0),
        })
    }

    /// Starts a caller's thread.
    pub fn start(&self, name: impl Into<String>, body: impl FnOnce() + 'static) {
        self.add(name.into(), true, body);
    }

    fn add(&self, name: String, foreign: bool, body: impl FnOnce() + 'static) {
        let way: Way = Rc::new(Cell::new(std::ptr::null()));
        let mine = Rc::clone(&way);
        let routine = Coroutine::new(move |yielder: &Yielder<(), Pause>, ()| {
            mine.set(yielder);
            body();
        });
        self.threads.borrow_mut().push(Thread { name, state: State::Ready, routine, way, foreign });
    }

    /// Runs until `done` says so or nobody is left. `false`: nobody is left.
    pub fn run_until(&self, done: impl Fn() -> bool) -> bool {
        while !done() {
            if self.threads.borrow().is_empty() {
                return false;
            }
            self.turn(None);
        }
        true
    }

    /// The life is over: whoever was stalled goes on, and all run to their ends.
    pub fn finish(&self) {
        self.over.set(true);
        for thread in self.threads.borrow_mut().iter_mut() {
            if matches!(thread.state, State::Stalled) {
                thread.state = State::Ready;
            }
        }
        self.run_until(|| false);
    }

    /// A number over everything that was chosen.
    pub fn path(&self) -> u64 {
        self.path.get()
    }

    /// How many turns there were.
    pub fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// One thread runs until it gives way. `until`: for how long the simulation itself waits.
    fn turn(&self, until: Option<Duration>) {
        self.turns.set(self.turns.get() + 1);
        assert!(self.turns.get() < TURNS_MAX, "no end is in sight: {}", self.roll_call());
        let passes = self.random.borrow_mut().u64(0..=self.temper.turn_nanos_max);
        self.now.set(self.now.get() + Duration::from_nanos(passes));
        let Some(index) = self.choose() else { return self.let_time_pass(until) };
        self.last.set(index);
        self.path
            .set(self.path.get().rotate_left(7).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index as u64);
        // The thread is taken out while it runs, because it may start others.
        let mut thread = self.threads.borrow_mut().swap_remove(index);
        let before = self.running.replace(Some((Rc::clone(&thread.way), thread.foreign)));
        let result = thread.routine.resume(());
        *self.running.borrow_mut() = before;
        let pause = match result {
            CoroutineResult::Yield(pause) => pause,
            CoroutineResult::Return(()) => {
                return;
            }
        };
        thread.state = match pause {
            Pause::Stall if !self.over.get() => State::Stalled,
            Pause::Step | Pause::Stall => State::Ready,
            Pause::Wait { ready, until } => State::Waits { ready, until },
        };
        let mut threads = self.threads.borrow_mut();
        threads.push(thread);
        let last = threads.len() - 1;
        let index = index.min(last);
        threads.swap(index, last);
    }

    fn choose(&self) -> Option<usize> {
        let threads = self.threads.borrow();
        let now = self.now.get();
        let can_run = |thread: &Thread| match &thread.state {
            State::Ready => true,
            State::Waits { ready, until } => {
                ready.holds() || until.is_some_and(|until| until <= now)
            }
            State::Stalled => false,
        };
        let mut random = self.random.borrow_mut();
        let last = self.last.get();
        if random.u8(0..100) < self.temper.loyalty_percent && threads.get(last).is_some_and(can_run)
        {
            return Some(last);
        }
        let mut able = self.able.borrow_mut();
        able.clear();
        able.extend((0..threads.len()).filter(|index| can_run(&threads[*index])));
        if able.is_empty() { None } else { Some(able[random.usize(0..able.len())]) }
    }

    /// Everybody waits: the next deadline comes.
    fn let_time_pass(&self, until: Option<Duration>) {
        let threads = self.threads.borrow();
        let next = threads.iter().filter_map(|thread| match thread.state {
            State::Waits { until, .. } => until,
            _ => None,
        });
        match next.chain(until).min() {
            Some(next) => self.now.set(self.now.get().max(next)),
            None => {
                drop(threads);
                panic!("everybody waits, and for ever: {}", self.roll_call())
            }
        }
    }

    fn roll_call(&self) -> String {
        let threads = self.threads.borrow();
        let states = threads.iter().map(|thread| match thread.state {
            State::Ready => format!("{} is ready", thread.name),
            State::Waits { until: Some(until), .. } => {
                format!("{} waits until {until:?}", thread.name)
            }
            State::Waits { until: None, .. } => format!("{} waits", thread.name),
            State::Stalled => format!("{} is stopped", thread.name),
        });
        states.collect::<Vec<_>>().join(", ")
    }

    /// The thread that runs gives way.
    fn pause(&self, pause: Pause) {
        let way = self.running.borrow().as_ref().map(|(way, _)| Rc::clone(way));
        match way {
            // SAFETY: the thread that runs set this from the yielder that its coroutine lends it until it ends; only
            // the thread that runs comes here.
            Some(way) => unsafe { (*way.get()).suspend(pause) },
            None => match pause {
                Pause::Wait { until, .. } => self.turn(until),
                Pause::Step | Pause::Stall => {}
            },
        }
    }
}

impl Host for World {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        self.add(name.to_owned(), false, body);
        Ok(())
    }

    fn wait(&self, ready: &dyn Fn() -> bool, limit: Option<Duration>) {
        let until = limit.and_then(|limit| self.now.get().checked_add(limit));
        while !ready() && until.is_none_or(|until| self.now.get() < until) {
            self.pause(Pause::Wait { ready: Predicate::new(ready), until });
        }
    }

    fn step(&self, _name: &'static str) {
        let Some(foreign) = self.running.borrow().as_ref().map(|(_, foreign)| *foreign) else {
            return;
        };
        let Temper { steps_per_turn, steps_per_stall, .. } = self.temper;
        let (turns, stalls) = {
            let mut random = self.random.borrow_mut();
            let stalls = foreign && steps_per_stall > 0 && random.u32(0..steps_per_stall) == 0;
            (random.u32(0..steps_per_turn) == 0, stalls)
        };
        if stalls && !self.over.get() {
            self.stalls.set(self.stalls.get() + 1);
            self.pause(Pause::Stall);
        } else if turns {
            self.pause(Pause::Step);
        }
    }

    fn elapsed(&self) -> Duration {
        self.now.get()
    }

    fn unix_micros(&self) -> i64 {
        EPOCH_MICROS + self.now.get().as_micros() as i64
    }

    fn draw(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now.get()).finish_non_exhaustive()
    }
}
