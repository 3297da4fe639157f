//! What every target is: something that is done with an input, a bound on memory, and a count of how far inputs came.
//!
//! *Memory.* An input may make the program hold four times the bytes it counts for and 1 MiB more, and beside that only
//! what the target names in [`Outcome::beside`]. What an input counts for is its own length or, where it says how a
//! store directory is changed, the length of the files in that directory. It is counted on all threads, from where a
//! target says with [`measure`] that the engine begins: what the target itself has made ready before is not the engine's.
//!
//! *Time.* Bounded by `-timeout`, from outside.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::allocation;

/// A fuzz target.
#[derive(Debug)]
pub struct Target {
    /// The name of its program, of its corpus and of its kept crashes.
    pub name: &'static str,
    /// Does all that there is to do with an input. Panics if a property fails.
    pub run: fn(&[u8]) -> Outcome,
    /// Inputs that the encoder has made, each with a name.
    pub corpus: fn() -> Vec<(String, Vec<u8>)>,
    /// Makes the checksums of an input right again after the fuzzer has changed it.
    pub repair: Option<fn(&mut [u8])>,
}

/// How far an input came, and what it may cost.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Whether something in it was accepted, so that what lies behind checksums and syntax was reached.
    pub reached: bool,
    /// How many bytes it counts for.
    pub bytes: usize,
    /// The most that was held while the engine worked, beyond what was held before.
    pub held: usize,
    /// Memory that is no answer to the input: what the simulated device holds, and what an open store has from the start.
    pub beside: usize,
}

static RUN: AtomicU64 = AtomicU64::new(0);
static REACHED: AtomicU64 = AtomicU64::new(0);

/// Does something, and tells the most that was held meanwhile, beyond what was held before.
pub fn measure<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = allocation::held();
    allocation::reset_peak();
    let result = work();
    (result, allocation::peak().saturating_sub(before))
}

/// Runs one input and holds the target to its bound. Whether the input reached what is behind the checksums.
pub fn run(target: &Target, input: &[u8]) -> bool {
    let outcome = (target.run)(input);
    let allowed = 4 * outcome.bytes + (1 << 20) + outcome.beside;
    assert!(outcome.held <= allowed, "more was held than the allowed {allowed}: {outcome:?}");
    RUN.fetch_add(1, Relaxed);
    REACHED.fetch_add(outcome.reached.into(), Relaxed);
    outcome.reached
}

/// Has how far inputs came printed when the program ends.
pub fn tell_at_exit() {
    extern "C" fn tell() {
        eprintln!("annals: {} of {} inputs reached", REACHED.load(Relaxed), RUN.load(Relaxed));
    }
    unsafe extern "C" {
        fn atexit(call: extern "C" fn()) -> i32;
    }
    // SAFETY: the function is C's own, what it is given lives as long as the program and does not unwind.
    unsafe { atexit(tell) };
}

/// Makes the checksums of an input right again, where the target has any.
pub fn repair(target: &Target, input: &mut [u8]) {
    if let Some(repair) = target.repair {
        repair(input);
    }
}

/// Where in an input of some length a change is made that keeps its length, if this one is to be: every other one. Most of
/// what a fuzzer does to an input inserts or removes bytes, which leaves nothing behind the place where it stood before.
pub fn window(seed: u32, size: usize) -> Option<Range<usize>> {
    if seed & 1 == 0 || size < 2 {
        return None;
    }
    let (place, length) = ((seed >> 1) as usize, (seed >> 27) as usize);
    let start = place % size;
    Some(start..size.min(start + 1 + length % 16))
}

/// The program of a target.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[global_allocator]
        static ALLOCATOR: $crate::allocation::Counted = $crate::allocation::Counted;

        libfuzzer_sys::fuzz_target!(init: $crate::harness::tell_at_exit(), |input: &[u8]| {
            $crate::harness::run(&$crate::targets::$name::TARGET, input);
        });

        libfuzzer_sys::fuzz_mutator!(
            |data: &mut [u8], size: usize, max_size: usize, seed: u32| {
                let size = match $crate::harness::window(seed, size) {
                    Some(window) => {
                        let place = &mut data[window];
                        libfuzzer_sys::fuzzer_mutate(place, place.len(), place.len());
                        size
                    }
                    None => libfuzzer_sys::fuzzer_mutate(data, size, max_size).min(data.len()),
                };
                $crate::harness::repair(&$crate::targets::$name::TARGET, &mut data[..size]);
                size
            }
        );
    };
}
