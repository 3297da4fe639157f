//! Running a model, as it is and broken.

use std::panic::{self, AssertUnwindSafe};

use annals::internals::sync::fault::{self, Fault};

use crate::told;

/// Explores a model with so many preemptions, or as many as the environment asks for.
pub fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(0).max(preemptions));
    builder.check(model);
}

/// Explores a model of the engine as it is: nothing may be found.
pub fn holds(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    fault::set(None);
    explore(preemptions, model);
}

/// Explores a model with something broken: `complaint` must be found.
pub fn broken(
    fault: impl Into<Option<Fault>>,
    preemptions: usize,
    complaint: &str,
    model: impl Fn() + Send + Sync + 'static,
) {
    fault::set(fault.into());
    let found = panic::catch_unwind(AssertUnwindSafe(|| explore(preemptions, model)));
    fault::set(None);
    let Err(found) = found else { panic!("nothing was found, where \"{complaint}\" is to be") };
    let found = told(&*found);
    assert!(found.contains(complaint), "found \"{found}\", where \"{complaint}\" is to be");
}
