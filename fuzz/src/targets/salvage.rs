//! A store directory that was tampered with, and what is salvaged of it.
//!
//! * The old store is as it was, and the new one is sound: `verify` has no problem with it, it opens for writing, and it
//!   holds what the report says.
//! * What the damaged store still shows of an aggregate is the same where the new one has it. If nothing was repaired, all
//!   that was copied or set aside is as it was before the directory was tampered with.
//! * Nothing is copied and set aside.
//! * Of a sound store the salvage is complete, checkpoints aside, and the new one has every version.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use annals::internals::disk::sim::{Order, SimDisk};
use annals::internals::{open_on, salvage_on, verify_on};
use annals::{Role, Salvage};

use crate::edit::Tampered;
use crate::harness::{self, Outcome, Target};
use crate::image::{self, BLOCK, Image};
use crate::stored::{self, Shown};
use crate::targets::directory;

/// The target.
pub static TARGET: Target = Target { name: "salvage", run, corpus: directory::seeds, repair: None };

/// The events of each version of each aggregate.
type Versions = BTreeMap<(Vec<u8>, u64), Vec<u64>>;

fn run(input: &[u8]) -> Outcome {
    let (Some(tampered), Some(image)) = (Tampered::read(input), directory::image(input)) else {
        return Outcome::default();
    };
    let (from, to) = (image.disk(0), SimDisk::with_block(2, BLOCK));
    to.set_order(Order::Fifo);
    let mut aside = Versions::new();
    let mut set_aside = |write: &annals::SetAside<'_>| {
        for part in write.write.parts().filter(|part| part.role() == Role::Append) {
            let events = part.events().map(|event| stored::event(&event)).collect();
            aside.insert((part.key().to_vec(), part.version()), events);
        }
        Ok(())
    };
    let (salvaged, held) = harness::measure(|| salvage_on(&*from, to.clone(), &mut set_aside));
    assert!(Image::of(&from) == image, "a salvage has changed the store that it reads");
    // A segment is made as long as segments of the store become, and cut when it is left. Where nothing says how long
    // that is, it is as long as the first one of any store.
    let known = salvaged.as_ref().is_ok_and(|salvage| salvage.identity.is_none());
    let device = Image::bytes_on(&to) as usize + if known { 64 << 10 } else { 1 << 20 };
    let mut outcome = Outcome {
        bytes: image.bytes(),
        held,
        beside: 2 * device + directory::SHARD_BYTES,
        ..Outcome::default()
    };
    match salvaged {
        Ok(salvage) => {
            let most = directory::writes_max(&image);
            let copied = copied(&to, &salvage, most);
            outcome.reached = !copied.is_empty();
            compare(&tampered, &from, &salvage, &copied, &aside, most);
        }
        Err(error) => {
            stored::refused(&error);
            let sound = verify_on(&*from).is_ok_and(|verified| verified.problems.is_empty());
            assert!(!sound, "a sound store can't be salvaged: {error}");
        }
    }
    outcome
}

fn versions(logs: &[Shown]) -> Versions {
    let parts = logs.iter().flat_map(|log| &log.writes).flat_map(|write| &write.appended);
    parts.map(|(key, version, events)| ((key.clone(), *version), events.clone())).collect()
}

/// What the new store holds.
fn copied(to: &Arc<SimDisk>, salvage: &Salvage, most: usize) -> Versions {
    let verified = verify_on(&**to).expect("the new store is whole");
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    assert_eq!(verified.writes, salvage.writes + salvage.snapshots);
    assert_eq!(verified.aggregates, salvage.aggregates);
    let store = open_on(&directory::options(), to.clone()).expect("the new store opens");
    let copied = versions(&stored::all(&store, most, true));
    store.close().expect("nothing fails");
    copied
}

fn compare(
    tampered: &Tampered,
    from: &Arc<SimDisk>,
    salvage: &Salvage,
    copied: &Versions,
    aside: &Versions,
    most: usize,
) {
    for place in aside.keys() {
        assert!(!copied.contains_key(place), "version {} is copied and set aside", place.1);
    }
    let shown = open_on(&directory::options().read_only(true), from.clone())
        .map(|store| versions(&stored::all(&store, most, false)))
        .unwrap_or_default();
    for (place, events) in copied {
        let shown = shown.get(place);
        assert!(shown.is_none_or(|shown| shown == events), "{place:?} is not as it was shown");
    }
    if let Some(images) = tampered.untouched() {
        for (place, events) in copied.iter().chain(aside) {
            let as_it_was = images.iter().any(|nth| ORIGINALS[*nth].get(place) == Some(events));
            assert!(as_it_was, "{place:?} is not as it was written");
        }
    }
    let sound = verify_on(&**from).is_ok_and(|verified| verified.problems.is_empty());
    if sound {
        let kept = salvage.missing.is_empty() && salvage.set_aside == 0;
        assert!(kept && salvage.cut_off.is_empty(), "of a sound store: {salvage}");
        assert!(shown == *copied, "of a sound store not all was copied: {salvage}");
    }
}

/// What the images hold before anybody tampers with them.
static ORIGINALS: LazyLock<Vec<Versions>> = LazyLock::new(|| {
    let read = |image: &Image| {
        let store = open_on(&directory::options().read_only(true), image.disk(0));
        versions(&stored::all(&store.expect("it is sound"), usize::MAX, true))
    };
    image::all().iter().map(read).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn salvaged() -> (Arc<SimDisk>, Salvage, Versions) {
        let (from, to) = (image::all()[1].disk(0), SimDisk::with_block(2, BLOCK));
        let salvage = salvage_on(&*from, to.clone(), &mut |_| Ok(())).unwrap();
        let copied = copied(&to, &salvage, 1000);
        (from, salvage, copied)
    }

    fn compared(change: impl FnOnce(&mut Versions)) {
        let (from, salvage, mut copied) = salvaged();
        change(&mut copied);
        let tampered = Tampered::read(&[1, 0]).unwrap();
        compare(&tampered, &from, &salvage, &copied, &Versions::new(), 1000);
    }

    #[test]
    fn a_whole_store_is_copied() {
        compared(|_| {});
    }

    #[test]
    #[should_panic(expected = "is not as it was shown")]
    fn an_event_that_is_not_the_same_is_noticed() {
        compared(|copied| copied.values_mut().next().unwrap()[0] ^= 1);
    }

    #[test]
    #[should_panic(expected = "not all was copied")]
    fn a_version_that_is_left_out_is_noticed() {
        compared(|copied| drop(copied.pop_last()));
    }
}
