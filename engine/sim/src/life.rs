//! One life of a store: it is opened, inspected, used, and ends.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use annals::internals::disk::Disk;
use annals::internals::disk::sim::{FaultKind, Order, SimDisk};
use annals::internals::sync::host;
use annals::internals::{open_on, verify_on};
use annals::{Error, ErrorKind, Options, Store};
use fastrand::Rng;

use crate::book::Book;
use crate::client::Client;
use crate::follower;
use crate::inspect::{Complaint, Contents, Faith, inspect};
use crate::op::OpId;
use crate::profile::Profile;
use crate::world::World;

/// What the threads of a life share.
pub(crate) struct Scene {
    pub(crate) world: Rc<World>,
    pub(crate) store: Store,
    pub(crate) book: Rc<RefCell<Book>>,
    pub(crate) profile: Rc<Profile>,
    /// The newest write of each client that may be sent again.
    pub(crate) newest: Rc<RefCell<BTreeMap<u128, OpId>>>,
    pub(crate) next_sequence: Rc<Cell<u64>>,
    /// How far each shard was followed.
    pub(crate) followed_to: Rc<RefCell<BTreeMap<u16, u64>>>,
    disk: Arc<SimDisk>,
    faith: Faith,
    over: Cell<bool>,
    wrong: Rc<RefCell<Option<String>>>,
}

impl Scene {
    /// The power is gone: what the store says now nobody hears.
    pub(crate) fn is_dead(&self) -> bool {
        self.disk.is_cut()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get() || self.is_dead() || self.wrong.borrow().is_some()
    }

    pub(crate) fn fail(&self, wrong: String) {
        self.wrong.borrow_mut().get_or_insert(wrong);
    }

    /// A read failed: right only if the disk was made to fail, or the shard has.
    pub(crate) fn read_failed(&self, error: &Error) -> Result<(), String> {
        let mut book = self.book.borrow_mut();
        let explained = match error.kind() {
            _ if self.is_dead() => return Ok(()),
            ErrorKind::Stopped | ErrorKind::Closed => true,
            ErrorKind::Io => self.profile.reads_fail(),
            ErrorKind::Corrupt => self.faith == Faith::Broken || self.profile.reads_fail(),
            _ => false,
        };
        if !explained {
            return Err(format!("a read failed: {error}"));
        }
        book.count(&format!("reads failed {}", error.code()));
        Ok(())
    }
}

/// What goes on from life to life.
pub(crate) struct Lives {
    pub(crate) profile: Rc<Profile>,
    pub(crate) book: Rc<RefCell<Book>>,
    newest: Rc<RefCell<BTreeMap<u128, OpId>>>,
    next_sequence: Rc<Cell<u64>>,
    followed_to: Rc<RefCell<BTreeMap<u16, u64>>>,
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) faith: Faith,
    /// Up to where each shard's log was proven after the last opening.
    proven: Vec<u64>,
    /// The last record of each shard that the last opening found.
    ends: Vec<u64>,
    random: Rng,
    pub(crate) stalls: u64,
    pub(crate) turns: u64,
    pub(crate) ios: u64,
    pub(crate) path: u64,
    pub(crate) faults: BTreeMap<String, u64>,
}

/// How an opening went.
enum Opened {
    Store(Store),
    /// The power was cut meanwhile.
    Cut,
    /// It was refused for a fault that happened.
    Refused,
}

impl Lives {
    pub(crate) fn new(mut random: Rng) -> Lives {
        let profile = Rc::new(Profile::draw(&mut random));
        let disk = SimDisk::with_block(random.u64(..), profile.block_bytes);
        Lives {
            profile,
            book: Rc::default(),
            newest: Rc::default(),
            next_sequence: Rc::default(),
            followed_to: Rc::default(),
            disk,
            faith: Faith::Kept,
            proven: Vec::new(),
            ends: Vec::new(),
            random,
            stalls: 0,
            turns: 0,
            ios: 0,
            path: 0,
            faults: BTreeMap::new(),
        }
    }

    /// Opens the store, however often the power is cut meanwhile, lives one life, and leaves the disk of the next.
    pub(crate) fn live(&mut self, last: bool) -> Result<(), String> {
        let breaks = last && self.profile.ends_broken;
        loop {
            let world = World::new(self.random.u64(..), self.profile.temper(&mut self.random));
            host::install(Some(Rc::clone(&world) as _));
            let options = self.profile.options(&mut self.random);
            self.profile.furnish(&self.disk, &mut self.random);
            let went_on = self.open_and_use(&world, &options, breaks);
            world.finish();
            host::install(None);
            self.stalls += world.stalls.get();
            self.turns += world.turns();
            self.path = self.path.rotate_left(9) ^ world.path();
            if went_on? {
                return Ok(());
            }
        }
    }

    /// Whether there was more of a life than its opening.
    fn open_and_use(
        &mut self,
        world: &Rc<World>,
        options: &Options,
        breaks: bool,
    ) -> Result<bool, String> {
        if self.random.u8(0..100) < 45 {
            self.disk.plan_cut(self.random.u64(1..80), self.random.u64(..));
        }
        if self.random.bool() {
            self.profile.trouble(&self.disk);
        }
        let store = match self.open(options)? {
            Opened::Store(store) => store,
            Opened::Cut => {
                self.book.borrow_mut().count("power cuts in openings");
                self.next_disk(true);
                return Ok(false);
            }
            Opened::Refused => return Ok(false),
        };
        // What goes wrong from here on is drawn anew.
        self.disk.repair();
        self.profile.furnish(&self.disk, &mut self.random);
        let inspected = inspect(&store, &mut self.book.borrow_mut(), &self.faith);
        let contents = match inspected {
            Ok(contents) => contents,
            Err(_) if self.disk.is_cut() => {
                drop(store);
                self.next_disk(true);
                return Ok(false);
            }
            Err(Complaint::Failed(error))
                if self.faith == Faith::Broken && error.kind() == ErrorKind::Corrupt =>
            {
                self.book.borrow_mut().count("damage found by a read");
                return Ok(true);
            }
            Err(Complaint::Failed(error)) => return Err(format!("after recovery: {error}")),
            Err(Complaint::Wrong(wrong)) => return Err(format!("after recovery: {wrong}")),
        };
        self.verify(&contents)?;
        self.book.borrow_mut().count("recoveries inspected");
        self.book.borrow_mut().adopt(&contents.landed, contents.versions, contents.marks);
        if breaks {
            self.faith = Faith::Broken;
            self.profile.break_down(&self.disk);
        }
        self.use_store(world, store)?;
        Ok(true)
    }

    fn open(&mut self, options: &Options) -> Result<Opened, String> {
        let before = self.told();
        if self.random.u8(0..6) == 0
            && self.book.borrow().counts.contains_key("recoveries inspected")
        {
            self.open_to_read(options)?;
        }
        match open_on(options, Arc::clone(&self.disk) as Arc<dyn Disk>) {
            _ if self.disk.is_cut() => Ok(Opened::Cut),
            Ok(store) => Ok(Opened::Store(store)),
            Err(error) if self.is_lost(&error) => {
                self.book.borrow_mut().count("damage found by an opening");
                Ok(Opened::Refused)
            }
            // The last world's flushes are still on their way.
            Err(error) if error.kind() == ErrorKind::Locked => {
                self.book.borrow_mut().count("locks waited for");
                Ok(Opened::Refused)
            }
            Err(error) => {
                let short = self.disk.faults().contains_key(&FaultKind::ShortRead);
                if self.told() == before || error.kind() == ErrorKind::Corrupt && !short {
                    return Err(format!("the store does not open: {error}"));
                }
                self.book.borrow_mut().count(&format!("openings failed {}", error.code()));
                self.disk.repair();
                Ok(Opened::Refused)
            }
        }
    }

    /// A read-only opening changes nothing, and shows what is there.
    fn open_to_read(&mut self, options: &Options) -> Result<(), String> {
        let options = options.clone().read_only(true);
        let before = self.told();
        match open_on(&options, Arc::clone(&self.disk) as Arc<dyn Disk>) {
            Ok(store) => {
                let mut book = self.book.borrow().clone();
                match inspect(&store, &mut book, &self.faith) {
                    Ok(_) => self.book.borrow_mut().count("read-only openings"),
                    Err(_) if self.disk.is_cut() => {}
                    Err(Complaint::Failed(_))
                        if self.told() != before || self.faith == Faith::Broken => {}
                    Err(complaint) => return Err(format!("opened read-only: {complaint:?}")),
                }
                Ok(())
            }
            Err(_)
                if self.disk.is_cut() || self.told() != before || self.faith == Faith::Broken =>
            {
                Ok(())
            }
            Err(error) => Err(format!("the store does not open read-only: {error}")),
        }
    }

    /// How many errors the disk has told.
    fn told(&self) -> u64 {
        self.disk.faults().iter().filter(|(kind, _)| Profile::is_told(**kind)).map(|(_, n)| n).sum()
    }

    /// The independent reader finds the same.
    fn verify(&mut self, contents: &Contents) -> Result<(), String> {
        let found = match verify_on(&*self.disk) {
            // A reader that can't make the tail durable shows less.
            _ if self.disk.is_cut() => return Ok(()),
            Ok(found) => found,
            Err(error) => return Err(format!("verify failed: {error}")),
        };
        if self.faith == Faith::Broken {
            return Ok(());
        }
        if let Some(problem) = found.problems.first() {
            return Err(format!("verify finds a problem: {problem}"));
        }
        // What is known as durable stays known, whatever is tidied away.
        self.proven.resize(found.ends.len(), 0);
        for (end, proven) in found.ends.iter().zip(&mut self.proven) {
            let now = end.proven.get();
            let positions = &contents.positions[usize::from(end.shard)];
            if let Some(lost) = positions.iter().find(|at| (now..*proven).contains(at)) {
                return Err(format!(
                    "shard {} was proven up to {proven}, and is up to {now}: what stands at {lost} is not proven any more",
                    end.shard
                ));
            }
            *proven = now;
        }
        self.ends = contents.positions.iter().map(|all| all.last().copied().unwrap_or(0)).collect();
        let writes: usize = contents.positions.iter().map(Vec::len).sum();
        if found.writes != writes as u64 {
            let ends: Vec<_> = contents.positions.iter().map(|all| all.last()).collect();
            return Err(format!(
                "verify finds {} writes, the store has {writes}, the last ones at {ends:?}",
                found.writes
            ));
        }
        Ok(())
    }

    fn use_store(&mut self, world: &Rc<World>, store: Store) -> Result<(), String> {
        if self.random.u8(0..100) < 75 && !self.disk.is_cut() {
            self.disk.plan_cut(
                10_u64.pow(self.random.u32(1..4)) + self.random.u64(0..300),
                self.random.u64(..),
            );
        }
        if self.faith == Faith::Kept {
            self.profile.trouble(&self.disk);
            if self.random.u8(0..8) == 0 {
                self.disk.set_capacity(self.profile.segment_bytes * self.random.u64(1..12));
            }
        }
        let scene = Rc::new(Scene {
            world: Rc::clone(world),
            store: store.clone(),
            book: Rc::clone(&self.book),
            profile: Rc::clone(&self.profile),
            newest: Rc::clone(&self.newest),
            next_sequence: Rc::clone(&self.next_sequence),
            followed_to: Rc::clone(&self.followed_to),
            disk: Arc::clone(&self.disk),
            faith: self.faith.clone(),
            over: Cell::new(false),
            wrong: Rc::default(),
        });
        let working = Rc::new(Cell::new(self.profile.clients));
        for number in 0..self.profile.clients {
            let client = Client::new(Rc::clone(&scene), number.into(), self.random.u64(..));
            let working = Rc::clone(&working);
            world.start(format!("client {number}"), move || {
                client.run();
                working.set(working.get() - 1);
            });
        }
        self.follow(world, &scene);
        // Nothing more comes of a life on a disk that hangs.
        let hangs = self.random.u8(0..20) == 0;
        if hangs {
            self.disk.set_order(Order::Never);
        }
        let most = if hangs { 20_000 } else { 400_000 };
        // Whoever is stalled never ends, and holds nobody up.
        let patience = Cell::new(0_u32);
        world.run_until(|| {
            patience.set(patience.get() + 1);
            let stalled = world.stalls.get() as u8;
            scene.is_over() || working.get() <= stalled || patience.get() > most
        });
        self.disk.set_order(Order::Random);
        scene.over.set(true);
        self.end(world, scene, store)
    }

    fn follow(&mut self, world: &World, scene: &Rc<Scene>) {
        for shard in 0..self.profile.shards {
            if self.random.u8(0..3) > 0 {
                let resumes = self.random.bool();
                let known = self.followed_to.borrow().get(&shard).copied();
                let after = known.filter(|_| resumes).unwrap_or(0);
                let scene = Rc::clone(scene);
                world.start(format!("follower of {shard}"), move || {
                    follower::subscribe(&scene, shard, after);
                });
            }
        }
        if self.random.bool() {
            let key = format!("g0/a{}", self.random.u8(0..self.profile.aggregates));
            let scene = Rc::clone(scene);
            world.start("watch", move || follower::watch(&scene, &key));
        }
        if self.random.u8(0..3) == 0 {
            let scene = Rc::clone(scene);
            world.start("prefix watch", move || follower::watch_prefix(&scene, "g0/"));
        }
    }

    fn end(&mut self, world: &World, scene: Rc<Scene>, store: Store) -> Result<(), String> {
        let cuts = self.random.u8(0..3) == 0;
        if cuts && !self.disk.is_cut() {
            self.disk.plan_cut(1, self.random.u64(..));
        }
        let closed = store.close();
        let wrong = Rc::clone(&scene.wrong);
        // The store ends with its last handle, and the scene has one.
        drop((store, scene));
        world.finish();
        if let Some(wrong) = wrong.borrow_mut().take() {
            return Err(wrong);
        }
        let dead = self.disk.is_cut();
        if closed.is_ok() && !dead {
            self.book.borrow_mut().count("clean closes");
            self.look_at_end()?;
        }
        self.book.borrow_mut().end_life();
        let dead = self.disk.is_cut();
        self.next_disk(dead);
        if self.faith == Faith::Kept && self.random.u8(0..3) == 0 {
            crate::rot::examine(self)?;
        }
        Ok(())
    }

    /// Opens the store once more, and looks at what it has.
    pub(crate) fn look_back(&mut self) -> Result<(), String> {
        loop {
            let world = World::new(self.random.u64(..), self.profile.temper(&mut self.random));
            host::install(Some(Rc::clone(&world) as _));
            let options = self.profile.options(&mut self.random);
            self.disk.repair();
            let seen = self.open(&options).and_then(|opened| match opened {
                Opened::Store(store) => {
                    let inspected = inspect(&store, &mut self.book.borrow_mut(), &self.faith);
                    match inspected {
                        Ok(contents) => self.verify(&contents),
                        Err(_) if self.disk.is_cut() => Ok(()),
                        Err(Complaint::Failed(error)) if self.is_lost(&error) => Ok(()),
                        Err(complaint) => Err(format!("at the end: {complaint:?}")),
                    }
                }
                Opened::Cut | Opened::Refused => Ok(()),
            });
            world.finish();
            host::install(None);
            if !self.disk.is_cut() || seen.is_err() {
                return seen;
            }
            self.next_disk(true);
        }
    }

    /// A broken disk may have lost what can't be read.
    fn is_lost(&self, error: &Error) -> bool {
        self.faith == Faith::Broken && error.kind() == ErrorKind::Corrupt
    }

    /// A store that was closed says on disk that all is durable that was written since it was opened.
    fn look_at_end(&self) -> Result<(), String> {
        if self.faith != Faith::Kept {
            return Ok(());
        }
        self.disk.repair();
        let found = match verify_on(&*self.disk) {
            _ if self.disk.is_cut() => return Ok(()),
            found => found.map_err(|error| format!("after a close: {error}"))?,
        };
        let book = self.book.borrow();
        for end in &found.ends {
            let last = book.shown(end.shard).last().map(|(position, _)| position);
            let found = self.ends.get(usize::from(end.shard)).copied();
            if last.is_some_and(|last| Some(last) > found && last >= end.proven.get()) {
                return Err(format!("a closed shard is not proven to {last:?}: {end:?}"));
            }
        }
        Ok(())
    }

    /// Where the next life begins: on what the cut has left, on what one now would leave, or where this life has ended.
    fn next_disk(&mut self, dead: bool) {
        self.book.borrow_mut().end_life();
        let next = if dead {
            self.book.borrow_mut().count("power cuts");
            self.disk.take_cut()
        } else if self.random.bool() {
            self.book.borrow_mut().count("power cuts");
            Some(self.disk.crash(self.random.u64(..)))
        } else {
            self.disk.repair();
            self.disk.set_capacity(u64::MAX);
            None
        };
        if let Some(next) = next {
            self.leave_disk();
            self.disk = next;
        }
    }

    /// Counts what the disk has done.
    pub(crate) fn leave_disk(&mut self) {
        self.ios += self.disk.ios();
        for (kind, count) in self.disk.faults() {
            *self.faults.entry(kind.name().to_owned()).or_default() += count;
        }
    }

    pub(crate) fn draw(&mut self) -> &mut Rng {
        &mut self.random
    }
}
