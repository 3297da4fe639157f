use super::*;
use crate::disk::{Chunk, Completion, Flush};

mod chances;
mod cuts;
mod late;

const BLOCK: usize = 4096;

fn flush(token: u64, file: &Arc<dyn File>, offset: usize, byte: u8, blocks: usize) -> Flush {
    let mut memory = Chunk::new(blocks * BLOCK).unwrap();
    memory.get_mut().fill(byte);
    let (file, memory) = (Arc::clone(file), Arc::new(memory));
    Flush { token, file, offset: offset as u64, memory, start: 0, bytes: blocks * BLOCK }
}

/// A disk with a durable file of eight blocks.
fn disk_with_file(seed: u64) -> (Arc<SimDisk>, Arc<dyn File>) {
    let disk = SimDisk::new(seed);
    let file = disk.create("file").unwrap();
    file.prepare(8 * BLOCK as u64).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    disk.set_stepped(true);
    (disk, file)
}

fn content(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, Access::Read).unwrap();
    let bytes = file.len().unwrap();
    file.map(bytes).unwrap().to_vec()
}

fn queue(disk: &SimDisk, method: SyncMethod) -> Box<dyn Queue> {
    let lock = disk.lock().unwrap();
    disk.queue(&lock, 8, method).unwrap()
}

fn happened(disk: &SimDisk, kind: FaultKind) -> u64 {
    disk.faults().get(&kind).copied().unwrap_or(0)
}

/// As often as that, of a million.
fn often(kind: FaultKind, per_million: u32) -> Chance {
    Chance { kind, per_million, lasting: false, most: u64::MAX }
}

fn always(kind: FaultKind) -> Chance {
    often(kind, 1_000_000)
}

fn tokens(completed: &[Completion]) -> Vec<u64> {
    completed.iter().map(|completion| completion.token).collect()
}

#[test]
#[cfg_attr(miri, ignore = "too many sectors for an interpreter")]
fn a_crash_keeps_what_is_durable_and_tears_the_rest_by_sectors() {
    let mut torn = 0;
    for seed in 0..40 {
        let (disk, file) = disk_with_file(1);
        let mut queue = queue(&disk, SyncMethod::WriteDsync);
        let mut completed = Vec::new();
        queue.start(flush(1, &file, 0, 1, 1));
        queue.wait(None, &mut completed);
        completed.remove(0).result.unwrap();
        queue.start(flush(2, &file, BLOCK, 2, 1));
        let after = content(&disk.crash(seed), "file");
        assert!(after[..BLOCK].iter().all(|&b| b == 1));
        let kept: Vec<_> = after[BLOCK..2 * BLOCK].chunks(512).map(|sector| sector[0]).collect();
        assert!(kept.iter().all(|b| matches!(b, 0 | 2)));
        torn += usize::from(kept.contains(&0) && kept.contains(&2));
        assert!(after[2 * BLOCK..].iter().all(|&b| b == 0));
        assert_eq!(after, content(&disk.crash(seed), "file"), "the seed decides");
        let durable = content(&disk.clone_durable(), "file");
        assert!(durable[BLOCK..].iter().all(|&b| b == 0));
        assert_eq!(durable[..BLOCK], after[..BLOCK]);
    }
    assert!(torn > 20, "{torn}");
}

#[test]
fn names_are_durable_after_the_directory_is_synced() {
    let (mut first, mut second, mut neither) = (0, 0, 0);
    for seed in 0..60 {
        let disk = SimDisk::new(1);
        disk.create_dir("dir").unwrap();
        disk.sync_dir("").unwrap();
        disk.create("dir/a").unwrap().write_at(0, b"a").unwrap();
        assert!(disk.clone_durable().list("dir").unwrap().is_empty());
        disk.sync_dir("dir").unwrap();
        assert_eq!(disk.clone_durable().list("dir").unwrap().len(), 1);
        // A rename is whole or not at all; what came after it is lost with it.
        disk.rename("dir/a", "dir/b").unwrap();
        disk.remove("dir/b").unwrap();
        let after = disk.crash(seed);
        match after.list("dir").unwrap().as_slice() {
            [] => neither += 1,
            [entry] if entry.name == "a" => first += 1,
            [entry] if entry.name == "b" => second += 1,
            other => panic!("{other:?}"),
        }
        // What was durable after a crash is so after the next.
        assert_eq!(
            after.list("dir").unwrap().len(),
            after.crash(seed + 1).list("dir").unwrap().len()
        );
    }
    assert!(first > 5 && second > 5 && neither > 5, "{first} {second} {neither}");
}

#[test]
fn a_directory_that_is_lost_takes_its_files_along() {
    let disk = SimDisk::new(1);
    disk.create_dir("dir").unwrap();
    disk.create("dir/a").unwrap();
    disk.sync_dir("dir").unwrap();
    let after = disk.clone_durable();
    assert!(after.list("").unwrap().is_empty());
    assert_eq!(after.open("dir/a", Access::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
#[cfg_attr(miri, ignore = "too many sectors for an interpreter")]
fn an_unsynced_length_is_kept_or_lost() {
    let lengths: std::collections::BTreeSet<_> = (0..20)
        .map(|seed| {
            let (disk, file) = disk_with_file(1);
            file.set_len(100).unwrap();
            content(&disk.crash(seed), "file").len()
        })
        .collect();
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [100, 8 * BLOCK]);
}

#[test]
#[cfg_attr(miri, ignore = "too many sectors for an interpreter")]
fn completions_come_in_the_order_asked_for() {
    let (disk, file) = disk_with_file(3);
    let mut queue = queue(&disk, SyncMethod::WriteThenSync);
    let mut run = |order: Order| {
        disk.set_order(order);
        (0..4).for_each(|n| queue.start(flush(n, &file, n as usize * BLOCK, 1, 1)));
        let mut completed = Vec::new();
        while completed.len() < 4 {
            queue.wait(None, &mut completed);
        }
        assert!(completed.iter().all(|completion| completion.result.is_ok()));
        tokens(&completed)
    };
    assert_eq!(run(Order::Fifo), [0, 1, 2, 3]);
    assert_eq!(run(Order::Script([3, 1].into())), [3, 1, 0, 2]);
    let orders: std::collections::BTreeSet<_> = (0..30).map(|_| run(Order::Random)).collect();
    assert!(orders.len() > 10);
    disk.set_order(Order::Never);
    queue.start(flush(9, &file, 0, 1, 1));
    let mut completed = Vec::new();
    queue.wait(None, &mut completed);
    assert!(completed.is_empty());
    disk.set_order(Order::Fifo);
    queue.wait(None, &mut completed);
    assert_eq!(tokens(&completed), [9]);
}

#[test]
fn a_fault_hits_the_operation_it_is_planned_for() {
    let fault =
        |op, nth, lasting, short| Fault { op, nth, lasting, short, kind: io::ErrorKind::Other };
    let (disk, file) = disk_with_file(1);
    let before = disk.count(Op::Write);
    disk.plan(fault(Op::Write, 2, false, true));
    file.write_at(0, &[1; 2048]).unwrap();
    file.write_at(0, &[2; 2048]).unwrap_err();
    file.write_at(4096, &[3; 512]).unwrap();
    assert_eq!(disk.count(Op::Write), before + 3);
    let bytes = content(&disk, "file");
    assert_eq!((bytes[0], bytes[1023], bytes[1024], bytes[4096]), (2, 2, 1, 3));

    disk.plan(fault(Op::Create, 1, true, false));
    disk.create("x").unwrap_err();
    disk.create("x").unwrap_err();
    disk.repair();
    disk.create("x").unwrap();

    disk.set_capacity(9 * BLOCK as u64);
    let other = disk.create("y").unwrap();
    other.prepare(BLOCK as u64).unwrap();
    let full = other.prepare(BLOCK as u64 + 1).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    disk.remove("file").unwrap();
    other.prepare(2 * BLOCK as u64).unwrap();

    disk.flip("y", 7).unwrap();
    assert_eq!(content(&disk, "y")[7], 0xFF);
    assert_eq!(disk.flip("y", 1 << 20).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_a_failed_sync_had_to_save_no_later_one_saves() {
    let (disk, file) = disk_with_file(1);
    disk.plan(Fault {
        op: Op::Sync,
        nth: 1,
        lasting: false,
        short: false,
        kind: io::ErrorKind::Other,
    });
    file.write_at(0, &[1; 512]).unwrap();
    file.sync().unwrap_err();
    file.write_at(512, &[2; 512]).unwrap();
    file.sync().unwrap();
    assert_eq!(content(&disk, "file")[0], 1);
    // The system's cache still shows it; the device never had it.
    file.write_at(1024, &[3; 512]).unwrap();
    let mut bytes = [9; 1500];
    file.read_direct_at(100, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[411], bytes[412], bytes[923], bytes[924]), (0, 0, 2, 2, 3));
    disk.set_loss(Loss::All);
    let after = content(&disk.crash(1), "file");
    assert_eq!((after[0], after[512], after[1024]), (0, 2, 0));
}

#[test]
fn a_flush_of_anything_but_blocks_is_refused() {
    let (disk, file) = disk_with_file(1);
    disk.set_order(Order::Fifo);
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    let good = || flush(1, &file, 0, 1, 2);
    let bad = [
        Flush { offset: 512, ..good() },
        Flush { start: 512, bytes: BLOCK, ..good() },
        Flush { bytes: 100, ..good() },
        Flush { bytes: 0, ..good() },
        Flush { bytes: 3 * BLOCK, ..good() },
        Flush { file: disk.open("file", Access::Read).unwrap(), ..good() },
    ];
    let count = bad.len();
    let mut completed = Vec::new();
    bad.into_iter().for_each(|flush| queue.start(flush));
    (0..count).for_each(|_| queue.wait(None, &mut completed));
    assert_eq!(completed.len(), count);
    assert!(completed.iter().all(|completion| completion.result.is_err()));
}
