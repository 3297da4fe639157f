//! The machine that a run uses, and how much of it went to others meanwhile.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use procfs::{CpuInfo, Current, CurrentSI, KernelStats, LoadAverage, Meminfo, process::Process};

use crate::{
    measure::usage::{own_processor_time, processor_time, ticks, trees},
    results::Machine,
};

/// The machine, as it is now. What the system does not tell is said to be unknown, or is 0.
#[must_use]
pub fn describe(dir: &Path) -> Machine {
    let (file_system, block_device) = ground(dir);
    Machine {
        processor: CpuInfo::current()
            .ok()
            .and_then(|info| info.model_name(0).map(str::to_owned))
            .unwrap_or_else(|| unknown("processor")),
        processors: std::thread::available_parallelism().map_or(0, |count| count.get() as u32),
        memory_bytes: Meminfo::current().map_or(0, |memory| memory.mem_total),
        kernel: kernel(),
        compiler: env!("BENCH_COMPILER").to_owned(),
        annals: env!("CARGO_PKG_VERSION").to_owned(),
        file_system,
        block_device,
        load_before: load(),
        load_after: load(),
        foreign_share: 0.0,
    }
}

fn kernel() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

fn load() -> f64 {
    LoadAverage::current().map_or(0.0, |load| load.one.into())
}

fn unknown(what: &str) -> String {
    format!("unknown {what}")
}

/// The file system that holds a folder, with its options, and the device under it.
fn ground(dir: &Path) -> (String, String) {
    let unknown = || (unknown("file system"), unknown("device"));
    let Ok(metadata) = fs::metadata(dir) else { return unknown() };
    let device = metadata.dev();
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    // The later of two mounts of one device is as good as the earlier: the file system is the same.
    let mount =
        mounts.ok().and_then(|mounts| mounts.0.into_iter().find(|mount| mount.majmin == number));
    let Some(mount) = mount else { return unknown() };
    let mut options: Vec<String> = mount
        .super_options
        .into_iter()
        .map(|(name, value)| value.map_or(name.clone(), |value| format!("{name}={value}")))
        .collect();
    options.sort_unstable();
    let file_system = format!("{} ({})", mount.fs_type, options.join(","));
    let source = mount.mount_source.unwrap_or_default();
    (file_system, format!("{source}{}", queue(&number)))
}

/// What the system says of a block device: its sectors and its cache. Nothing of what is none.
fn queue(number: &str) -> String {
    // A partition has no queue of its own: its disk is the directory above.
    let read = |name: &str| {
        ["queue", "../queue"].iter().find_map(|queue| {
            let text =
                fs::read_to_string(format!("/sys/dev/block/{number}/{queue}/{name}")).ok()?;
            Some(text.trim().to_owned())
        })
    };
    let model = ["device", "../device"].iter().find_map(|device| {
        let text = fs::read_to_string(format!("/sys/dev/block/{number}/{device}/model")).ok()?;
        Some(format!(" {}", text.trim()))
    });
    let sectors = read("logical_block_size").zip(read("physical_block_size"));
    let facts = [
        sectors.map(|(logical, physical)| format!("sectors of {logical}/{physical} bytes")),
        read("write_cache").map(|cache| format!("cache: {cache}")),
        read("fua").map(|fua| (if fua == "1" { "FUA" } else { "no FUA" }).to_owned()),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    model.unwrap_or_default() + &facts
}

/// Sees how much of the processors goes to others.
///
/// Others are all processes that this one did not start, the kernel's own threads among them, and interrupts: some of what these do
/// is done for this process. What the host takes away from a virtual machine counts too.
#[derive(Debug)]
pub struct Watch {
    before: Times,
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub fn begin() -> Watch {
        Watch { before: Times::now() }
    }

    /// Ends it: notes the others' share, and the load now.
    pub fn end(self, machine: &mut Machine) {
        machine.foreign_share = Times::now().foreign_share_since(&self.before);
        machine.load_after = load();
    }
}

/// Processor time of the whole machine.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// Busy, or taken by the host.
    busy: Duration,
    /// All there was.
    all: Duration,
    /// This process's and what it started.
    own: Duration,
}

impl Times {
    fn now() -> Times {
        let own = own_processor_time() + of_children();
        let Ok(stats) = KernelStats::current() else { return Times { own, ..Times::default() } };
        let time = stats.total;
        let or_none = |ticks: Option<u64>| ticks.unwrap_or(0);
        let busy = time.user
            + time.nice
            + time.system
            + or_none(time.irq)
            + or_none(time.softirq)
            + or_none(time.steal);
        let all = busy + time.idle + or_none(time.iowait);
        Times { busy: ticks(busy), all: ticks(all), own }
    }

    fn foreign_share_since(&self, before: &Times) -> f64 {
        let all = self.all.saturating_sub(before.all).as_secs_f64();
        let busy = self.busy.saturating_sub(before.busy);
        let foreign = busy.saturating_sub(self.own.saturating_sub(before.own)).as_secs_f64();
        if all == 0.0 { 0.0 } else { foreign / all }
    }
}

/// The processor time of all processes that this one started, those included that have ended.
fn of_children() -> Duration {
    let own = std::process::id();
    let all = trees(&[own]);
    all.iter()
        .map(|stat| match u32::try_from(stat.pid) == Ok(own) {
            true => ticks(u64::try_from(stat.cutime + stat.cstime).unwrap_or(0)),
            false => processor_time(stat),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let machine = describe(Path::new("/var/tmp"));
        assert!(machine.processors > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.compiler.starts_with("rustc ") && machine.kernel.starts_with("Linux "));
        assert!(!machine.file_system.starts_with("unknown") && !machine.block_device.is_empty());
        assert!(!describe(Path::new("/proc/self")).file_system.contains("ext4"));
        assert!(describe(Path::new("/nowhere at all")).file_system.starts_with("unknown"));
    }

    #[test]
    fn only_others_count_as_others() {
        let seconds = Duration::from_secs;
        let times =
            |busy, all, own| Times { busy: seconds(busy), all: seconds(all), own: seconds(own) };
        let before = times(100, 1000, 7);
        assert_eq!(times(160, 1200, 67).foreign_share_since(&before), 0.0);
        assert_eq!(times(160, 1200, 57).foreign_share_since(&before), 0.05);
        // Own time is finer than the machine's: what is negative by that is none.
        assert_eq!(times(160, 1200, 68).foreign_share_since(&before), 0.0);
        assert_eq!(before.foreign_share_since(&before), 0.0);
    }

    #[test]
    fn own_work_and_that_of_children_is_not_foreign() {
        let before = Times::now();
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(std::process::Command::new("sh").args(["-c", script]).status().unwrap().success());
        let begin = own_processor_time();
        while own_processor_time() - begin < Duration::from_millis(50) {}
        let after = Times::now();
        assert!(after.own - before.own >= Duration::from_millis(60), "{before:?} {after:?}");
        let mut machine = Machine::default();
        Watch { before }.end(&mut machine);
        assert!((0.0..=1.0).contains(&machine.foreign_share), "{machine:?}");
    }
}
