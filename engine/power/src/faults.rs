//! Drives and file systems that fail while the store is open: what it says then, and what is there afterwards.
//!
//! Each case has the store in this process, a load on it, the real fault below it, and three questions. Is anything
//! acknowledged after the first failure? Does the same store take anything once the fault is gone? Is all that was
//! acknowledged there when it is opened again, and nothing that was refused?

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use annals::{Error, ErrorKind, Store};

use crate::control::{DriveId, Fault};
use crate::draw::Drawn;
use crate::examine::{Image, STORE};
use crate::judge;
use crate::load::{self, Load};
use crate::plan::WriteId;
use crate::rig::{FileSystem, Mounted, Rig, run, tell};
use crate::truth::{Heard, Word};

const SEED: u64 = 4242;
/// The client of what a case appends itself, beside the load.
const PROBES: u64 = 1 << 39;
/// Longer than anything takes on a loaded machine that does not hang.
const LONG: Duration = Duration::from_secs(120);

/// All cases, on one file system.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// What the stores lie on.
    pub file_system: FileSystem,
    /// Whether io_uring can be had here.
    pub uring: bool,
    /// Whether btrfs can be had here.
    pub btrfs: bool,
}

/// What came of a case: what it saw, or what must not be.
type Outcome = Result<String, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn drawn(uring: bool, write_dsync: bool) -> Drawn {
    Drawn {
        shards: 1,
        large_blocks: false,
        write_dsync,
        uring,
        // A drive that fails under a map kills the process.
        mapped: false,
        flush_window: 4,
        threads: 2,
        burst: 8,
    }
}

/// A store under load in this process.
struct Scene<'a> {
    rig: &'a Rig,
    drive: Option<DriveId>,
    file_system: FileSystem,
    drawn: Drawn,
    mounted: Mounted,
    heard: Arc<Heard>,
    probes: AtomicU64,
}

impl Scene<'_> {
    fn store_folder(&self) -> std::path::PathBuf {
        self.mounted.path().join(STORE)
    }

    fn open(&self) -> Result<Store, String> {
        self.drawn.options().open(self.store_folder()).map_err(text)
    }

    /// Loads the store until it stops, or `during` has returned and the load was told to end.
    fn under_load<R>(
        &self,
        store: &Store,
        life: u64,
        during: impl FnOnce() -> Result<R, String>,
    ) -> Result<R, String> {
        let stop = AtomicBool::new(false);
        let load = Load {
            seed: SEED,
            life,
            threads: self.drawn.threads,
            burst: self.drawn.burst,
            bytes: 24 << 20,
        };
        let result = thread::scope(|scope| {
            scope.spawn(|| load.run(store, &stop, &|word| self.heard.hear(word)));
            let result = during();
            stop.store(true, Ordering::Relaxed);
            result
        })?;
        let wrong = self.heard.wrong();
        ensure(wrong.is_empty(), || wrong.join("; "))?;
        Ok(result)
    }

    /// Makes one write more, and hears what comes of it.
    fn append(&self, store: &Store) -> Result<(), Error> {
        let sequence = self.probes.fetch_add(1, Ordering::Relaxed) + 1;
        let id = WriteId { client: PROBES, sequence };
        let plan = id.plan(SEED);
        match load::send(store, id, &plan, None) {
            Ok(ticket) => {
                let outcome = ticket.wait();
                let result = outcome.as_ref().map(drop).map_err(Error::clone);
                self.heard.hear(load::word_of(store, id, &plan, outcome));
                result
            }
            Err(error) => {
                self.heard.hear(Word::Refused(id));
                Err(error)
            }
        }
    }

    /// Appends until the shard says that it has stopped.
    fn wait_until_stopped(&self, store: &Store) -> Result<(), String> {
        wait_until("the store stops", || {
            self.append(store).is_err_and(|error| error.kind() == ErrorKind::Stopped)
        })
    }

    /// The shard has failed and takes nothing more, whatever the drive does now.
    fn stays_stopped(&self, store: &Store) -> Result<(), String> {
        for _ in 0..3 {
            match self.append(store) {
                Err(error) if error.kind() == ErrorKind::Stopped => {}
                other => {
                    return Err(format!("a shard that had failed says {other:?}, not Stopped"));
                }
            }
        }
        Ok(())
    }

    fn wait_for_acknowledgements(&self, count: usize) -> Result<(), String> {
        let from = self.heard.acknowledgements();
        wait_until("it acknowledges", || self.heard.acknowledgements() >= from + count)
    }

    /// Opens what is there now, holds it against all that was heard, and goes on with it.
    fn check_afterwards(self) -> Outcome {
        let Scene { rig, drive, file_system, drawn, mounted, heard, .. } = self;
        drop(mounted);
        let Some(drive) = drive else { return Err("there is no drive".to_owned()) };
        let truth = heard.truth(SEED, &[], heard.acknowledgements());
        let image = Image { drive, file_system, drawn, truth: &truth, number: 1, cut_again: false };
        let findings = image.examine(rig).map_err(text)?;
        rig.remove(drive).map_err(text)?;
        let mut all = String::new();
        for violation in &findings.violations {
            let _written = write!(all, "{violation}; ");
        }
        ensure(all.is_empty(), || all)?;
        let (_, unknown) = heard.replays_and_unknown();
        Ok(format!(
            "{} acknowledged are there, {} refused are not, {unknown} unknown; it goes on",
            findings.acknowledged,
            truth.refused.len()
        ))
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + LONG;
    while !holds() {
        if Instant::now() > deadline {
            return Err(format!("never: {what}"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

impl Faults {
    /// Runs all cases, tells of each, and says whether all went well.
    ///
    /// # Errors
    ///
    /// Of the rig.
    pub fn run(&self) -> io::Result<bool> {
        let began = Instant::now();
        let rig = Rig::new()?;
        let base = rig.make(self.file_system)?;
        let mut failed = 0;
        let mut tell_of = |name: String, outcome: Outcome| match outcome {
            Ok(seen) => tell(&format!("ok      {name}: {seen}")),
            Err(why) => {
                failed += 1;
                tell(&format!("FAILED  {name}: {why}"));
            }
        };
        for uring in [true, false] {
            if uring && !self.uring {
                continue;
            }
            let back_end = if uring { "io_uring" } else { "blocking" };
            for dsync in [true, false] {
                let method = if dsync { "dsync" } else { "sync" };
                for (what, fault) in [
                    ("one write fails", Fault::FailWrites { after: 3, times: 1 }),
                    ("writes fail", Fault::FailWrites { after: 3, times: u64::MAX }),
                    ("one flush fails", Fault::FailFlushes { after: 3, times: 1 }),
                    ("flushes fail", Fault::FailFlushes { after: 3, times: u64::MAX }),
                ] {
                    let scene = self.scene(&rig, base, drawn(uring, dsync));
                    tell_of(
                        format!("{back_end}, {method}: {what}"),
                        scene.and_then(|scene| fails(scene, fault)),
                    );
                }
            }
            let scene = || self.scene(&rig, base, drawn(uring, true));
            tell_of(
                format!("{back_end}: it stalls, then 20 requests a second"),
                scene().and_then(slow),
            );
            tell_of(format!("{back_end}: reads fail while it opens"), scene().and_then(unread));
            tell_of(format!("{back_end}: read-only at run time"), scene().and_then(read_only));
            tell_of(format!("{back_end}: the file system is full"), scene().and_then(full));
            tell_of(format!("{back_end}: a full file system in memory"), in_memory(&rig, uring));
            if self.btrfs {
                tell_of(
                    format!("{back_end}: btrfs is full under prepared segments"),
                    full_btrfs(&rig, uring),
                );
            }
            tell_of(format!("{back_end}: the drive goes away"), self.goes_away(uring));
        }
        let counts = rig.counts()?;
        tell(&format!(
            "{} writes failed, {} flushes failed, {} reads failed, {} requests delayed; {:.1} s",
            counts.failed_writes,
            counts.failed_flushes,
            counts.failed_reads,
            counts.delayed,
            began.elapsed().as_secs_f64()
        ));
        let planned =
            [counts.failed_writes, counts.failed_flushes, counts.failed_reads, counts.delayed];
        if planned.contains(&0) {
            tell("FAILED: a fault that was planned never happened");
            failed += 1;
        }
        if !self.btrfs {
            tell("SKIP: space that runs out inside a prepared segment (no mkfs.btrfs)");
        }
        Ok(failed == 0)
    }

    fn scene<'a>(&self, rig: &'a Rig, base: DriveId, drawn: Drawn) -> Result<Scene<'a>, String> {
        let (drive, _) = rig.cut(base, crate::device::Policy::Everything, 0).map_err(text)?;
        scene_on(rig, drive, self.file_system, drawn)
    }

    /// The process that serves the drive is killed: no answer comes any more.
    fn goes_away(&self, uring: bool) -> Outcome {
        let rig = Rig::new().map_err(text)?;
        let drive = rig.make(self.file_system).map_err(text)?;
        let scene = scene_on(&rig, drive, self.file_system, drawn(uring, true))?;
        let store = scene.open()?;
        let before = scene.under_load(&store, 1, || {
            scene.wait_for_acknowledgements(200)?;
            rig.pull_the_cable().map_err(text)?;
            scene.wait_until_stopped(&store)?;
            Ok(scene.heard.acknowledgements())
        })?;
        scene.stays_stopped(&store)?;
        // It may complain; it must come back.
        let _complaint = store.close();
        Ok(format!("{before} were acknowledged before, nothing since"))
    }
}

fn scene_on(
    rig: &Rig,
    drive: DriveId,
    file_system: FileSystem,
    drawn: Drawn,
) -> Result<Scene<'_>, String> {
    let mounted = rig.mount(drive, file_system).map_err(text)?;
    let (heard, probes) = (Arc::default(), AtomicU64::new(0));
    Ok(Scene { rig, drive: Some(drive), file_system, drawn, mounted, heard, probes })
}

/// Writes or flushes fail, once or for good.
fn fails(scene: Scene<'_>, fault: Fault) -> Outcome {
    let Some(drive) = scene.drive else { return Err("there is no drive".to_owned()) };
    let store = scene.open()?;
    scene.under_load(&store, 1, || {
        scene.wait_for_acknowledgements(100)?;
        // A single fault can hit the file system's own writes, or a segment that is being prepared and is tried again:
        // then the store has nothing to stop for, and what is there afterwards shows whether it was right.
        for _ in 0..50 {
            scene.rig.misbehave(drive, fault).map_err(text)?;
            let mut appends = (0..100).map(|_| scene.append(&store));
            if appends.any(|end| end.is_err_and(|error| error.kind() == ErrorKind::Stopped)) {
                return Ok(());
            }
        }
        Err("fifty faults, and the store did not stop".to_owned())
    })?;
    scene.rig.misbehave(drive, Fault::None).map_err(text)?;
    // The fault is gone, the store has not forgotten.
    scene.stays_stopped(&store)?;
    let acknowledged = scene.heard.acknowledgements();
    // Long enough for each thread to be refused: then it ends by itself.
    scene.under_load(&store, 2, || {
        thread::sleep(Duration::from_millis(30));
        Ok(())
    })?;
    ensure(scene.heard.acknowledgements() == acknowledged, || {
        "it acknowledged a write after it had stopped".to_owned()
    })?;
    let _complaint = store.close();
    drop(store);
    scene.check_afterwards()
}

/// The drive can't be read while the store opens: the opening fails, and takes nothing for the end of the log.
fn unread(mut scene: Scene<'_>) -> Outcome {
    let Some(drive) = scene.drive else { return Err("there is no drive".to_owned()) };
    let store = scene.open()?;
    scene.under_load(&store, 1, || scene.wait_for_acknowledgements(300))?;
    store.close().map_err(text)?;
    drop(store);
    let mut refusals = 0;
    for after in 0.. {
        // Mounted anew, so that nothing of it is in memory.
        let Scene { rig, file_system, drawn, mounted, heard, .. } = scene;
        drop(mounted);
        scene = scene_on(rig, drive, file_system, drawn)?;
        scene.heard = heard;
        rig.misbehave(drive, Fault::FailReads { after }).map_err(text)?;
        let opened = scene.drawn.options().open(scene.store_folder());
        rig.misbehave(drive, Fault::None).map_err(text)?;
        match opened {
            Ok(_) if refusals == 0 => return Err("it opens without reading".to_owned()),
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Io => refusals += 1,
            Err(error) => return Err(format!("{:?} when reads fail: {error}", error.kind())),
        }
    }
    scene.check_afterwards().map(|seen| format!("refused {refusals} times; {seen}"))
}

/// A drive that stalls, and one that answers twenty times a second.
fn slow(scene: Scene<'_>) -> Outcome {
    let Some(drive) = scene.drive else { return Err("there is no drive".to_owned()) };
    let store = scene.open()?;
    scene.under_load(&store, 1, || scene.wait_for_acknowledgements(50))?;
    scene.rig.misbehave(drive, Fault::Slow { millis: 400 }).map_err(text)?;
    let id = WriteId { client: PROBES + 1, sequence: 1 };
    let plan = id.plan(SEED);
    let ticket = load::send(&store, id, &plan, None).map_err(text)?;
    let early = ticket.wait_timeout(Duration::from_millis(1));
    ensure(early.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown), || {
        format!("after 1 ms of at least 400 the ticket says {early:?}")
    })?;
    scene.heard.hear(load::word_of(&store, id, &plan, ticket.wait()));
    scene.rig.misbehave(drive, Fault::Slow { millis: 50 }).map_err(text)?;
    scene.under_load(&store, 2, || scene.wait_for_acknowledgements(30))?;
    store.close().map_err(text)?;
    drop(store);
    scene.rig.misbehave(drive, Fault::None).map_err(text)?;
    scene.check_afterwards()
}

/// The file system turns read-only under an open store, as ext4 does when its journal fails.
fn read_only(scene: Scene<'_>) -> Outcome {
    if scene.file_system != FileSystem::Ext4 {
        return Ok("only ext4 can be told to".to_owned());
    }
    let store = scene.open()?;
    scene.under_load(&store, 1, || {
        scene.wait_for_acknowledgements(100)?;
        let mut remount = std::process::Command::new("mount");
        remount.args(["-o", "remount,abort"]).arg(scene.mounted.path());
        run(&mut remount).map_err(text)?;
        scene.wait_until_stopped(&store)
    })?;
    let file = scene.mounted.path().join("file");
    let refused = std::fs::write(file, "").map_err(|error| error.kind());
    ensure(refused == Err(io::ErrorKind::ReadOnlyFilesystem), || {
        format!("the file system is not read-only: {refused:?}")
    })?;
    scene.stays_stopped(&store)?;
    let count = judge::read_log(&store, SEED, &mut Vec::new()).len();
    ensure(count > 0, || "nothing can be read any more".to_owned())?;
    let _complaint = store.close();
    drop(store);
    scene.check_afterwards()
}

/// No space for another segment: full, and it goes on when there is space.
fn full(scene: Scene<'_>) -> Outcome {
    let store = scene.open()?;
    fills_up_and_goes_on(&scene, &store)?;
    store.close().map_err(text)?;
    drop(store);
    scene.check_afterwards()
}

fn in_memory(rig: &Rig, uring: bool) -> Outcome {
    let mounted = rig.mount_memory(12 << 20).map_err(text)?;
    let drawn = drawn(uring, true);
    let scene = Scene {
        rig,
        drive: None,
        file_system: FileSystem::Ext4,
        drawn,
        mounted,
        heard: Arc::default(),
        probes: AtomicU64::new(0),
    };
    let store = scene.open()?;
    fills_up_and_goes_on(&scene, &store)?;
    store.close().map_err(text)?;
    let verification = annals::verify(scene.store_folder(), |_, _| {}).map_err(text)?;
    ensure(verification.problems.is_empty(), || format!("{:?}", verification.problems))?;
    Ok(format!("full, then on; {} writes verified", verification.writes))
}

/// Fills the file system, appends until the store is full, makes space, and appends again.
fn fills_up_and_goes_on(scene: &Scene<'_>, store: &Store) -> Result<(), String> {
    let ballast = scene.mounted.path().join("ballast");
    scene.under_load(store, 1, || scene.wait_for_acknowledgements(20))?;
    fill(&ballast)?;
    let kind = |store: &Store| scene.append(store).map_err(|error| error.kind());
    let deadline = Instant::now() + LONG;
    loop {
        match kind(store) {
            Ok(()) => {}
            Err(ErrorKind::Full) => break,
            Err(other) => return Err(format!("a full file system is told as {other:?}")),
        }
        ensure(Instant::now() < deadline, || "the file system never got full".to_owned())?;
    }
    let mut violations = Vec::new();
    let read = judge::read_log(store, SEED, &mut violations).len();
    ensure(read > 0 && violations.is_empty(), || {
        format!("a full store reads {read} writes, {violations:?}")
    })?;
    std::fs::remove_file(&ballast).map_err(text)?;
    wait_until("it goes on when there is space", || kind(store).is_ok())?;
    scene.under_load(store, 2, || scene.wait_for_acknowledgements(20))
}

/// Writes a file until nothing more fits.
fn fill(path: &Path) -> Result<(), String> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).map_err(text)?;
    for bytes in [1 << 20, 64 << 10] {
        while file.write_all(&vec![1; bytes]).and_then(|()| file.sync_data()).is_ok() {}
    }
    Ok(())
}

/// btrfs writes nowhere in place: space can run out below bytes that were prepared.
fn full_btrfs(rig: &Rig, uring: bool) -> Outcome {
    let drive = rig.make(FileSystem::Btrfs).map_err(text)?;
    let scene = scene_on(rig, drive, FileSystem::Btrfs, drawn(uring, true))?;
    let store = scene.open()?;
    scene.under_load(&store, 1, || scene.wait_for_acknowledgements(20))?;
    let ballast = scene.mounted.path().join("ballast");
    fill(&ballast)?;
    let deadline = Instant::now() + LONG;
    let refused = loop {
        match scene.append(&store) {
            Ok(()) => ensure(Instant::now() < deadline, || "it never got full".to_owned())?,
            Err(error) => break error.kind(),
        }
    };
    let expected = matches!(
        refused,
        ErrorKind::Full | ErrorKind::Stopped | ErrorKind::OutcomeUnknown | ErrorKind::NotWritten
    );
    ensure(expected, || format!("a full file system is told as {refused:?}"))?;
    if refused != ErrorKind::Full {
        scene.stays_stopped(&store)?;
    }
    std::fs::remove_file(&ballast).map_err(text)?;
    let _complaint = store.close();
    drop(store);
    // Space that was freed can be had once the transaction is through.
    run(std::process::Command::new("sync").arg("-f").arg(scene.mounted.path())).map_err(text)?;
    scene.check_afterwards().map(|seen| format!("told as {refused:?}; {seen}"))
}
