//! Callers that call the store from where the store has called them, or from where nobody expects it.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use annals::{Event, Expect, Recorded, State, Store};

use crate::common::{audit, directory, event, in_time, small};
use crate::images::check_sound;

/// Appends when it is dropped.
struct Last(Store, &'static str);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.append(self.1, Expect::Any, [event("Dropped")]).unwrap().wait().unwrap();
    }
}

impl Wake for Last {
    fn wake(self: Arc<Self>) {
        self.0.append(self.1, Expect::Any, [event("Woken")]).unwrap().wait().unwrap();
    }
}

#[derive(Clone, Default)]
struct Count(u64);

impl State for Count {
    fn apply(&mut self, _: &Recorded) {
        self.0 += 1;
    }
}

#[test]
fn the_store_may_be_called_from_wherever_it_calls() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    let store = in_time("calls within calls", move || {
        let nested = |name: &'static str| {
            let store = store.clone();
            move || store.append(name, Expect::Any, [event("Nested")]).unwrap().wait().unwrap()
        };
        // From the iterator that an append is given, to the same aggregate and to another.
        for name in ["outer", "inner"] {
            let call = nested(name);
            let events = (0..3).map(|_| {
                call();
                event("E")
            });
            store.append("outer", Expect::Any, events).unwrap().wait().unwrap();
        }
        // From a decision, to the very aggregate that is decided on: it is decided again, until the limit or without it.
        let mut left = 3;
        let call = nested("decided");
        let decided = store.execute("decided", |_: &Count| {
            if left > 0 {
                left -= 1;
                call();
            }
            Ok::<_, ()>(vec![event("Decided")])
        });
        assert_eq!(decided.wait().unwrap().unwrap().unwrap().version(), 4);
        // From the loop over a subscription, and over a read.
        for event in store.subscribe(0).take(5) {
            event.unwrap();
            nested("followed")();
        }
        for event in store.read("outer") {
            event.unwrap();
            nested("outer")();
        }
        // From a destructor, also of one that lives in an iterator that is dropped half-way by a panic.
        drop(Last(store.clone(), "dropped"));
        let last = Last(store.clone(), "dropped");
        let events = (0..2).map(move |number| {
            let _owned = &last;
            assert_eq!(number, 0, "as planned");
            event("E")
        });
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.append("never", Expect::Any, events).map(drop)
        }));
        assert!(panicked.is_err());
        assert_eq!((store.version("dropped").unwrap(), store.version("never").unwrap()), (2, 0));
        // From a waker: neither the log writer's thread nor anybody's guard.
        let waker = Waker::from(Arc::new(Last(store.clone(), "woken")));
        let mut ticket =
            store.append("outer", Expect::Any, [Event::new("E", vec![1u8; 9_000])]).unwrap();
        let polled = std::pin::Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(done) = polled {
            done.unwrap();
        }
        drop(waker);
        ticket.wait().unwrap();
        store
    });
    crate::common::eventually("the waker's append", || store.version("woken").unwrap() >= 1);
    in_time("closing", move || store.close().unwrap());
    audit(&small().open(dir.path()).unwrap());
    check_sound(dir.path());
}
