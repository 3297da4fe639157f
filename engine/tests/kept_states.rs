//! States that are kept between executions: the same results, less to fold, and no more of them than asked for.

mod common;

use std::sync::Arc;

use annals::{Event, Expect, Recorded, State, States, Store};
use common::deciding::{number_in, written};
use common::{directory, numbered};

/// Counts how many events are folded by all of them together.
#[derive(Clone, Default)]
struct Folds(u64);

mod folds {
    use std::cell::Cell;

    thread_local! {
        pub(super) static SEEN: Cell<u64> = const { Cell::new(0) };
    }
}

impl State for Folds {
    fn apply(&mut self, event: &Recorded) {
        self.0 += number_in(event);
        folds::SEEN.set(folds::SEEN.get() + 1);
    }
}

#[test]
fn kept_states_give_the_same_results_and_fold_what_is_new() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let kept: States<Folds> = store.states(8);
    for round in 0..200 {
        let one = |state: &Folds| Ok::<_, ()>(vec![numbered(state.0 % 7 + 1)]);
        written(kept.execute("kept", one));
        written(store.execute("bare", one));
        if round % 10 == 0 {
            // Somebody else writes too.
            for key in ["kept", "bare"] {
                drop(store.append(key, Expect::Any, [numbered(round)]).unwrap());
            }
        }
    }
    let data =
        |key: &str| store.read(key).map(|event| number_in(&event.unwrap())).collect::<Vec<_>>();
    assert_eq!(data("kept"), data("bare"));
    folds::SEEN.set(0);
    let none = |_: &Folds| Ok::<Vec<Event>, ()>(vec![]);
    for _ in 0..10 {
        drop(kept.execute("kept", none).wait().unwrap());
    }
    assert!(folds::SEEN.get() <= 2, "{} were folded again", folds::SEEN.get());
    // A clone shares what is kept.
    drop(kept.clone().execute("kept", none).wait().unwrap());
    assert!(folds::SEEN.get() <= 2);
    drop(store.execute("kept", none).wait().unwrap());
    assert!(folds::SEEN.get() >= 220, "without it all are folded");
}

#[test]
fn so_many_states_are_kept_and_no_more() {
    let dir = directory();
    let store = Store::open(dir.path()).unwrap();
    let held = Arc::new(());
    let states: States<Kept> = store.states(64);
    HELD.with(|place| *place.borrow_mut() = Some(Arc::clone(&held)));
    for aggregate in 0..1000 {
        for _ in 0..2 {
            let one = |_: &Kept| Ok::<_, ()>(vec![numbered(1)]);
            written(states.execute(format!("a-{aggregate}"), one));
        }
    }
    HELD.with(|place| place.borrow_mut().take());
    let kept = Arc::strong_count(&held) - 1;
    assert!((32..=64).contains(&kept), "{kept}");
    drop(states);
    assert_eq!(Arc::strong_count(&held), 1);
}

thread_local! {
    static HELD: std::cell::RefCell<Option<Arc<()>>> = const { std::cell::RefCell::new(None) };
}

/// A state of which one can tell how many there are.
#[derive(Clone)]
struct Kept(#[allow(dead_code)] Option<Arc<()>>);

impl Default for Kept {
    fn default() -> Kept {
        Kept(HELD.with(|held| held.borrow().clone()))
    }
}

impl State for Kept {
    fn apply(&mut self, _: &Recorded) {}
}
