//! Running a larger model through schedules that are drawn, as it is and broken.
//!
//! Each model runs under two schedulers: one that draws every step, and one that draws priorities and changes them at
//! few points (PCT), which finds with a known probability what needs that few. A schedule that fails is printed;
//! `ANNALS_SCHEDULE=<what was printed> cargo test … <the test> -- --exact` runs it again.

use std::cell::Cell;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use annals::internals::sync::fault::{self, Fault};
use annals::internals::sync::host;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::hosted::Hosted;
use crate::patient::Patient;
use crate::told;

/// A priority changes at one point fewer.
const PCT_DEPTH: usize = 3;
/// How many schedules of each scheduler may pass before a broken model fails.
const BROKEN_MAX: usize = 20_000;
/// More than any schedule needs that ends.
const STEPS_MAX: usize = 200_000;
/// The process's wake words, one group after the other, are made on the stack of the thread that comes first.
const STACK_BYTES: usize = 2 << 20;

/// Runs a model of the engine as it is through so many schedules of each scheduler: nothing may be found.
/// `ANNALS_SCHEDULES_TIMES` multiplies the number.
pub fn holds(schedules: usize, model: impl Fn() + Send + Sync + 'static) {
    fault::set(None);
    if let Ok(schedule) = std::env::var("ANNALS_SCHEDULE") {
        Runner::new(ReplayScheduler::new_from_encoded(&schedule), config(true)).run(model);
        return;
    }
    let schedules = schedules * number("ANNALS_SCHEDULES_TIMES", 1) as usize;
    let (model, ran) = (Arc::new(model), Arc::new(AtomicUsize::new(0)));
    let random = RandomScheduler::new_from_seed(seed(), schedules);
    Runner::new(Patient::new(random), config(true)).run(counted(&model, &ran));
    let pct = PctScheduler::new_from_seed(seed(), PCT_DEPTH, schedules);
    Runner::new(Patient::new(pct), config(true)).run(counted(&model, &ran));
    say(&format!("schedules {} {}", name(), ran.load(Ordering::Relaxed)));
}

/// Runs a model with something broken: one of the schedulers must find one of `complaints`.
pub fn broken(
    fault: impl Into<Option<Fault>>,
    complaints: &[&str],
    model: impl Fn() + Send + Sync + 'static,
) {
    let fault = fault.into();
    let model = Arc::new(model);
    let random = RandomScheduler::new_from_seed(seed(), BROKEN_MAX);
    let pct = PctScheduler::new_from_seed(seed(), PCT_DEPTH, BROKEN_MAX);
    let found = find(fault, Patient::new(random), &model)
        .or_else(|| find(fault, Patient::new(pct), &model));
    let Some((found, schedules)) = found else {
        panic!("nothing was found, where one of {complaints:?} is to be");
    };
    let expected = complaints.iter().any(|complaint| found.contains(complaint));
    assert!(expected, "found \"{found}\", where one of {complaints:?} is to be");
    say(&format!("broken {} {schedules}", name()));
}

/// As [`holds`], for whole stores on a [`Hosted`] system.
pub fn engine(schedules: usize, model: impl Fn(&Rc<Hosted>) + Send + Sync + 'static) {
    holds(schedules, hosted(model));
}

/// As [`broken`], for whole stores on a [`Hosted`] system.
pub fn broken_engine(
    fault: impl Into<Option<Fault>>,
    complaints: &[&str],
    model: impl Fn(&Rc<Hosted>) + Send + Sync + 'static,
) {
    broken(fault, complaints, hosted(model));
}

fn hosted(model: impl Fn(&Rc<Hosted>) + Send + Sync + 'static) -> impl Fn() + Send + Sync {
    move || {
        let system = Hosted::new();
        host::install(Some(Rc::clone(&system) as _));
        model(&system);
        system.wait_for_all();
        host::install(None);
    }
}

thread_local! {
    /// What the first panic of a broken model has said.
    static FIRST: Cell<Option<String>> = const { Cell::new(None) };
}

/// Notes what the first panic says, in front of whoever else listens.
fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let first = FIRST.take().unwrap_or_else(|| told(panic.payload()));
            FIRST.set(Some(first));
            others(panic);
        }));
    });
}

/// A model that counts how often it came to its end.
fn counted(
    model: &Arc<impl Fn() + Send + Sync + 'static>,
    ended: &Arc<AtomicUsize>,
) -> impl Fn() + Send + Sync + 'static {
    let (model, ended) = (Arc::clone(model), Arc::clone(ended));
    move || {
        model();
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a broken model said, and in which schedule.
fn find<S: Scheduler + 'static>(
    fault: Option<Fault>,
    scheduler: S,
    model: &Arc<impl Fn() + Send + Sync + 'static>,
) -> Option<(String, usize)> {
    let passed = Arc::new(AtomicUsize::new(0));
    let counted = counted(model, &passed);
    listen();
    FIRST.take();
    fault::set(fault);
    let runner = Runner::new(scheduler, config(false));
    let found = panic::catch_unwind(AssertUnwindSafe(|| runner.run(counted))).err();
    fault::set(None);
    host::install(None);
    // A thread that falls with the schedule says something of its own.
    found.map(|found| {
        (FIRST.take().unwrap_or_else(|| told(&*found)), passed.load(Ordering::Relaxed) + 1)
    })
}

fn config(persist: bool) -> Config {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    config.failure_persistence =
        if persist { FailurePersistence::Print } else { FailurePersistence::None };
    config
}

/// Where the drawing begins: the same in each run, unless `ANNALS_SCHEDULES_SEED` says otherwise.
fn seed() -> u64 {
    number("ANNALS_SCHEDULES_SEED", 0x5EED)
}

fn number(variable: &str, usual: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else { return usual };
    text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}: expected a number"))
}

fn name() -> String {
    std::thread::current().name().unwrap_or("?").to_owned()
}

/// Says something that the test harness does not keep to itself: CI adds the numbers up.
fn say(line: &str) {
    let _nobody_listens = writeln!(io::stdout(), "{line}");
}
