//! What users store appears in the files of the log and nowhere else: not in errors, in what is logged, in `Debug`, in file names.

use std::fmt::{Debug, Write as _};
use std::fs;
use std::sync::{Arc, Mutex};

use annals::{ErrorKind, Event, Expect, Store};
use tracing::Metadata;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use crate::common::{directory, small};
use crate::images::{fill, image, segments};

const SECRET: &str = "s3cr3t-p4yl04d";

/// Keeps everything that is said on this thread.
struct Kept(Arc<Mutex<String>>);

impl tracing::Subscriber for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct All<'a>(&'a mut String);
        impl Visit for All<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                writeln!(self.0, "{field}={value:?}").unwrap();
            }
        }
        event.record(&mut All(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn secret() -> Event {
    Event::new("Told", SECRET.repeat(30)).metadata(SECRET)
}

fn use_it(store: &Store, shown: &mut String) {
    for number in 0..20u64 {
        let ticket = store.append("a", Expect::Version(number), [secret()]).unwrap();
        writeln!(shown, "{ticket:?} {:?} {:?}", ticket.wait().unwrap(), secret()).unwrap();
    }
    let write =
        store.write().append("a", Expect::Any, [secret()]).append("b", Expect::Any, [secret()]);
    writeln!(shown, "{write:?}").unwrap();
    drop(write.client(7, 7).submit().unwrap().wait().unwrap());
    store.save_snapshot("a", 3, SECRET).unwrap().wait().unwrap();
    writeln!(shown, "{:?}", store.load_snapshot("a").unwrap()).unwrap();
    for error in [
        store.append("a", Expect::Absent, [secret()]).unwrap_err(),
        store.append("", Expect::Any, [secret()]).unwrap_err(),
        store.append("a", Expect::Any, [Event::new(SECRET.repeat(20), "")]).map(drop).unwrap_err(),
        store
            .append("a", Expect::Any, [Event::new("E", SECRET.repeat(3 << 20))])
            .map(drop)
            .unwrap_err(),
        store.save_snapshot("a", 999, SECRET).map(drop).unwrap_err(),
    ] {
        writeln!(shown, "{error} {error:?}").unwrap();
    }
    for event in store.log(0) {
        writeln!(shown, "{:?}", event.unwrap()).unwrap();
    }
    for write in store.log(0).writes() {
        let write = write.unwrap();
        writeln!(shown, "{write:?} {:?}", write.parts().collect::<Vec<_>>()).unwrap();
    }
    writeln!(shown, "{store:?} {:?} {:?}", store.stats(), store.aggregate("a")).unwrap();
    writeln!(shown, "{:?} {:?}", store.read("a"), store.subscribe(0)).unwrap();
}

#[test]
fn no_byte_of_an_event_is_shown_or_logged() {
    let dir = directory();
    let kept = Arc::new(Mutex::new(String::new()));
    let mut shown = String::new();
    tracing::subscriber::with_default(Kept(Arc::clone(&kept)), || {
        let store = small().open(dir.path()).unwrap();
        use_it(&store, &mut shown);
        // Enough for a segment that is sealed and damaged afterwards.
        fill(&store, 0..20);
        drop(store);
        let segment = segments(dir.path()).remove(0);
        let mut bytes = fs::read(&segment).unwrap();
        let at =
            bytes.windows(SECRET.len()).position(|window| window == SECRET.as_bytes()).unwrap();
        bytes[at] ^= 1;
        // A head too, so that the opening has something to say.
        bytes[8192 + 20] ^= 1;
        fs::write(&segment, bytes).unwrap();
        let error = small().open(dir.path()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        writeln!(shown, "{error} {error:?}").unwrap();
        let store = small().read_only(true).open(dir.path()).unwrap();
        for error in store.log(0).filter_map(Result::err) {
            writeln!(shown, "{error} {error:?}").unwrap();
        }
        let found = annals::verify(dir.path(), |_, _| ()).unwrap();
        writeln!(shown, "{found:?}").unwrap();
    });
    let logged = kept.lock().unwrap().clone();
    assert!(logged.contains("damage"), "the log was listened to: {logged}");
    assert!(shown.len() > 2_000);
    let part = &SECRET[..8];
    for (what, text) in [("shown", &shown), ("logged", &logged)] {
        let found =
            text.find(part).map(|at| &text[at.saturating_sub(80)..(at + 80).min(text.len())]);
        assert_eq!(found, None, "it is {what}");
    }
    for (path, _) in image(dir.path()) {
        assert!(!path.to_string_lossy().contains(part));
    }
}

/// Space that was used before, by events that are gone or by a write that was larger, is zeros where nothing new stands.
#[test]
fn padding_is_zeros() {
    let dir = directory();
    let store = small().open(dir.path()).unwrap();
    for number in 0..300u64 {
        // Large and small in turn, from memory that is used again and again.
        let bytes = if number % 2 == 0 { 30_000 } else { 3 };
        let event = Event::new("E", SECRET.bytes().cycle().take(bytes).collect::<Vec<u8>>());
        store.append("a", Expect::Version(number), [event]).unwrap().wait().unwrap();
    }
    drop(store);
    // The scanner refuses padding that is not zero, in flushes and behind them.
    crate::images::check_sound(dir.path());
    let mut blocks = 0;
    for segment in segments(dir.path()) {
        let bytes = fs::read(segment).unwrap();
        for block in bytes.chunks(4096).skip(1) {
            let Some(length) = block.starts_with(b"").then(|| block.get(88..92)).flatten() else {
                continue;
            };
            let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
            if &block[8..16] == b"ANNFLUSH" && length < block.len() {
                assert!(block[length..].iter().all(|byte| *byte == 0));
                blocks += 1;
            }
        }
    }
    assert!(blocks > 100, "{blocks}");
}
