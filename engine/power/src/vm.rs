//! The power is cut under a whole machine: a guest in QEMU writes to a disk whose cache is another process's memory, and
//! both are killed at a random instant. What the disk's file then holds is looked at as any other image is.
//!
//! The guest's kernel, its ext4 and its virtio driver decide what is flushed, not a loop device of this machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::draw::Drawn;
use crate::examine::Image;
use crate::judge::Violation;
use crate::release::Owned;
use crate::rig::{FileSystem, Rig, run, tell};
use crate::truth::Heard;
use crate::writer::Task;

/// What the guest loads, in this order.
const MODULES: [&str; 12] = [
    "crc32c_generic",
    "libcrc32c",
    "crc16",
    "mbcache",
    "jbd2",
    "ext4",
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
];
/// The programs that it takes.
pub const TOOLS: [&str; 6] = ["qemu-system-x86_64", "nbdkit", "busybox", "cpio", "ldd", "setpriv"];
/// An emulated machine on a loaded one is slow to start.
const BOOT_MAX: Duration = Duration::from_secs(600);

/// Cuts under a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where a Debian kernel package was unpacked: `boot/vmlinuz-*` and `lib/modules`.
    pub kernel: PathBuf,
    /// How often the power is cut.
    pub cuts: u64,
    /// Fixes options and load.
    pub seed: u64,
    /// The disk ignores flushes. It fails then if nothing is found to be lost.
    pub lying: bool,
}

/// A process that dies with this one.
fn spawn(program: &str, arguments: impl FnOnce(&mut Command)) -> io::Result<Owned> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]).stdin(Stdio::null());
    arguments(&mut command);
    Ok(Owned(command.spawn()?))
}

impl Machine {
    /// Makes all cuts, and says whether each left what it must.
    ///
    /// # Errors
    ///
    /// If a program is missing, or the guest does not start.
    pub fn run(&self) -> io::Result<bool> {
        let began = Instant::now();
        let rig = Rig::new()?;
        let base = rig.make(FileSystem::Ext4)?;
        let work = tempfile::tempdir_in(rig.folder())?;
        let (mut failed, mut acknowledged, mut read) = (0, 0, 0);
        for cut in 1..=self.cuts {
            let started = Instant::now();
            let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ (cut << 32));
            let drawn = Drawn { burst: 4, ..Drawn::new(&mut random, true) };
            let disk = work.path().join("disk.img");
            rig.save(base, &disk)?;
            let task = Task { seed: self.seed, life: cut, drawn, bytes: 8 << 20 };
            let heard = self.cut(work.path(), &disk, &task, &mut random)?;
            let truth = heard.truth(self.seed, &[], heard.acknowledgements());
            let drive = rig.load(&disk)?;
            let file_system = FileSystem::Ext4;
            let image =
                Image { drive, file_system, drawn, truth: &truth, number: cut, cut_again: false };
            let findings = image.examine(&rig)?;
            rig.remove(drive)?;
            tell(&format!(
                "cut {cut}: {} acknowledged, {} found as they were, {} writes read; {:.1} s",
                truth.acknowledged.len(),
                findings.acknowledged,
                findings.log.len(),
                started.elapsed().as_secs_f64()
            ));
            if self.lying {
                let lost =
                    findings.violations.iter().any(|each| matches!(each, Violation::Lost(_)));
                failed += u64::from(!lost);
                tell(if lost {
                    "it lost writes, and that was found"
                } else {
                    "FAILED: no loss was found"
                });
                continue;
            }
            acknowledged += findings.acknowledged;
            read += findings.log.len();
            let violations = findings.violations.iter().map(ToString::to_string);
            let wrong: Vec<_> = heard.wrong().into_iter().chain(violations).collect();
            if !wrong.is_empty() {
                failed += 1;
                for what in wrong.iter().take(10) {
                    tell(&format!("FAILED  cut {cut} of seed {}: {what}", self.seed));
                }
            }
        }
        let time = began.elapsed().as_secs_f64();
        tell(&format!(
            "{} cuts under a virtual machine, seed {}: {acknowledged} acknowledged writes found as they were, {read} writes read, {failed} failed; {:.1} s a cut",
            self.cuts,
            self.seed,
            time / self.cuts.max(1) as f64
        ));
        Ok(failed == 0)
    }

    /// Starts disk and guest, lets the guest write for a while, and kills the disk, then the guest.
    fn cut(
        &self,
        work: &Path,
        disk: &Path,
        task: &Task,
        random: &mut ChaCha8Rng,
    ) -> io::Result<Arc<Heard>> {
        let initrd = self.initrd(work, task)?;
        let socket = work.join("disk.sock");
        let _absent = fs::remove_file(&socket);
        let mut server = spawn("nbdkit", |command| {
            command.args(["-f", "-U"]).arg(&socket).args(["--filter=cache", "file"]);
            // The cache is a file that has no name: it dies with its process.
            let cache = if self.lying { "cache=unsafe" } else { "cache=writeback" };
            command.arg(disk).arg(cache).env("TMPDIR", work);
        })?;
        let patience = Instant::now() + BOOT_MAX;
        while !socket.exists() {
            give_up_after(patience, "nbdkit does not start")?;
        }
        let console = work.join("console");
        let mut guest = spawn("qemu-system-x86_64", |command| {
            command.args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-smp", "2"]);
            command.args(["-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults"]);
            command.arg("-serial").arg(format!("file:{}", console.display()));
            command.args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1 quiet"]);
            command.arg("-drive").arg(format!(
                "file=nbd:unix:{},format=raw,if=virtio,cache=writeback",
                socket.display()
            ));
            command.arg("-kernel").arg(self.image()).arg("-initrd").arg(&initrd);
            command.stdout(Stdio::piped());
        })?;
        let output =
            guest.0.stdout.take().ok_or_else(|| io::Error::other("a child without pipes"))?;
        let heard = Arc::new(Heard::default());
        let ear = Arc::clone(&heard);
        let listener = thread::spawn(move || ear.listen(output));
        let wanted = random.random_range(1..400);
        while heard.acknowledgements() < wanted {
            let said = || fs::read_to_string(&console).unwrap_or_default();
            if guest.0.try_wait()?.is_some() {
                return Err(io::Error::other(format!("the guest has ended: {}", said())));
            }
            give_up_after(patience, "the guest does not write")
                .map_err(|error| io::Error::other(format!("{error}: {}", said())))?;
        }
        thread::sleep(Duration::from_micros(random.random_range(0..300_000)));
        // The disk first: what is acknowledged after this was durable before it.
        server.kill()?;
        guest.kill()?;
        listener.join().map_err(|_| io::Error::other("the listener panicked"))?;
        Ok(heard)
    }

    fn image(&self) -> PathBuf {
        let entries = fs::read_dir(self.kernel.join("boot")).into_iter().flatten().flatten();
        let mut paths = entries.map(|entry| entry.path());
        let is_kernel = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
        };
        paths.find(is_kernel).unwrap_or_else(|| self.kernel.join("boot/vmlinuz"))
    }

    /// The guest's whole system: a shell, the modules, this program with its libraries, and the task.
    fn initrd(&self, work: &Path, task: &Task) -> io::Result<PathBuf> {
        let root = work.join("root");
        for folder in ["bin", "proc", "sys", "dev", "mnt", "modules"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let program = std::env::current_exe()?;
        let busybox = run(Command::new("sh").args(["-c", "command -v busybox"]))?;
        fs::copy(busybox, root.join("bin/busybox"))?;
        fs::copy(&program, root.join("bin/power"))?;
        let list = run(Command::new("ldd").arg(&program))?;
        for library in list.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap_or(&root))?;
            fs::copy(library, to)?;
        }
        for module in MODULES {
            let mut find = Command::new("find");
            find.arg(self.kernel.join("lib/modules")).args(["-name", &format!("{module}.ko")]);
            let found = run(&mut find)?;
            let Some(file) = found.lines().next() else {
                return Err(io::Error::other(format!(
                    "no module {module}.ko under {}",
                    self.kernel.display()
                )));
            };
            fs::copy(file, root.join(format!("modules/{module}.ko")))?;
        }
        fs::write(root.join("modules/order"), MODULES.join("\n"))?;
        fs::write(root.join("task"), format!("{}\n", serde_json::to_string(task)?))?;
        let init = root.join("init");
        File::create(&init)?.write_all(include_bytes!("init.sh"))?;
        run(Command::new("chmod").arg("755").arg(&init))?;
        let initrd = work.join("initrd");
        let pack = "find . | cpio --quiet -o -H newc > \"$1\"";
        run(Command::new("sh").args(["-c", pack, "sh"]).arg(&initrd).current_dir(&root))?;
        Ok(initrd)
    }
}

fn give_up_after(time: Instant, what: &str) -> io::Result<()> {
    if Instant::now() > time {
        return Err(io::Error::other(what.to_owned()));
    }
    thread::sleep(Duration::from_millis(5));
    Ok(())
}
