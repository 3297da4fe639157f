//! Callers who follow: subscriptions and watches.

use std::rc::Rc;

use annals::{Error, Position, Role};

use crate::book::{Followed, text};
use crate::life::Scene;
use crate::op;

/// Follows a shard from a position to the end of the life.
pub(crate) fn subscribe(scene: &Rc<Scene>, shard: u16, after: u64) {
    let mut followed = Followed { shard, after, given: Vec::new() };
    let writes = scene.store.subscribe(shard).after(Position::from_raw(after)).writes();
    for write in writes {
        if scene.is_dead() {
            break;
        }
        let write = match write {
            Ok(write) => write,
            Err(error) => return failed(scene, &error),
        };
        let position = write.position().get();
        let first = write.parts().find(|part| part.role() == Role::Append);
        let first = first.and_then(|part| part.events().next());
        if let Some((id, ..)) = first.and_then(|event| op::of(event.data())) {
            let shown = scene.book.borrow_mut().show(shard, position, id);
            if let Err(wrong) = shown {
                return scene.fail(wrong);
            }
        }
        if followed.given.last().is_some_and(|last| *last >= position) {
            return scene.fail(format!("a follower of shard {shard} is given {position} again"));
        }
        followed.given.push(position);
        scene.book.borrow_mut().count("writes followed");
    }
    if let Some(last) = followed.given.last() {
        scene.followed_to.borrow_mut().insert(shard, *last);
    }
    scene.book.borrow_mut().followed.push(followed);
}

/// Watches an aggregate to the end of the life.
pub(crate) fn watch(scene: &Rc<Scene>, key: &str) {
    let versions = match scene.store.watch(key) {
        Ok(versions) => versions,
        Err(error) => return failed(scene, &error),
    };
    let mut last = 0;
    for version in versions {
        if scene.is_dead() {
            return;
        }
        let version = match version {
            Ok(version) => version,
            Err(error) => return failed(scene, &error),
        };
        if version <= last {
            return scene.fail(format!("a watch of {key} gives version {version} after {last}"));
        }
        last = version;
        let mut book = scene.book.borrow_mut();
        book.seen(key, version);
        book.count("versions watched");
    }
}

/// Follows everything under a prefix to the end of the life.
pub(crate) fn watch_prefix(scene: &Rc<Scene>, prefix: &str) {
    let watch = match scene.store.watch_prefix(prefix) {
        Ok(watch) => watch,
        Err(error) => return failed(scene, &error),
    };
    for changed in watch {
        if scene.is_dead() {
            return;
        }
        match changed {
            Ok((key, _)) if text(&key).starts_with(prefix) => {}
            Ok((key, _)) => return scene.fail(format!("a watch of {prefix} gives {}", text(&key))),
            Err(error) => return failed(scene, &error),
        }
        scene.book.borrow_mut().count("changes watched");
    }
}

fn failed(scene: &Rc<Scene>, error: &Error) {
    if let Err(wrong) = scene.read_failed(error) {
        scene.fail(wrong);
    }
}
