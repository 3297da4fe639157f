use super::*;

/// A life of a few operations, of which the last ones are not durable.
fn live(disk: &Arc<SimDisk>) -> io::Result<()> {
    disk.create_dir("dir")?;
    disk.sync_dir("")?;
    let file = disk.create("dir/a")?;
    file.prepare(4 * BLOCK as u64)?;
    file.sync()?;
    disk.sync_dir("dir")?;
    file.write_at(0, &[1; BLOCK])?;
    file.sync()?;
    disk.rename("dir/a", "dir/b")?;
    disk.list("dir")?;
    disk.open("dir/b", Access::Read)?.read_at(0, &mut [0; 10])?;
    disk.remove("dir/b")
}

#[test]
fn the_power_is_cut_at_each_operation() {
    let whole = SimDisk::new(1);
    live(&whole).unwrap();
    assert_eq!(whole.ios(), 13);
    for nth in 1..=whole.ios() {
        let disk = SimDisk::new(1);
        disk.plan_cut(nth, nth);
        live(&disk).unwrap_err();
        assert!(disk.is_cut());
        assert_eq!(happened(&disk, FaultKind::PowerCut), 1);
        // From then on nothing works and nothing is counted.
        live(&disk).unwrap_err();
        assert!(disk.lock().is_err() && disk.list("").is_err() && disk.ios() == nth);
        let after = disk.take_cut().unwrap();
        assert!(disk.take_cut().is_none() && !after.is_cut());
        // The write of one is durable after the eighth operation.
        let file = after.open("dir/a", Access::Read).or_else(|_| after.open("dir/b", Access::Read));
        if nth > 8 {
            let mut bytes = [0; BLOCK];
            file.unwrap().read_at(0, &mut bytes).unwrap();
            assert!(bytes == [1; BLOCK], "cut at {nth}");
        } else if nth <= 3 {
            assert!(file.is_err(), "cut at {nth}");
        }
    }
    let disk = SimDisk::new(1);
    disk.plan_cut(14, 1);
    live(&disk).unwrap();
    assert!(!disk.is_cut() && disk.take_cut().is_none());
}

#[test]
fn a_planned_cut_ends_flushes_in_flight() {
    let (disk, file) = disk_with_file(1);
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    disk.set_order(Order::Never);
    (0..3).for_each(|n| queue.start(flush(n, &file, n as usize * BLOCK, 1, 1)));
    disk.plan_cut(1, 1);
    file.sync().unwrap_err();
    let mut completed = Vec::new();
    queue.wait(None, &mut completed);
    assert_eq!(tokens(&completed), [0, 1, 2], "also of a device that hangs");
    assert!(completed.iter().all(|completion| completion.result.is_err()));
    queue.start(flush(3, &file, 0, 1, 1));
    queue.wait(None, &mut completed);
    assert!(completed[3].result.is_err());
    drop(queue);
    assert!(disk.take_cut().is_some());
}

#[test]
fn a_cut_loses_what_it_is_told_to() {
    let (disk, file) = disk_with_file(1);
    file.write_at(0, &[1; 2 * BLOCK]).unwrap();
    file.set_len(9 * BLOCK as u64).unwrap();
    disk.create("other").unwrap();
    let look = |loss| {
        disk.set_loss(loss);
        let after = disk.crash(7);
        let ones = content(&after, "file").iter().filter(|&&byte| byte == 1).count();
        (ones / 512, content(&after, "file").len() / BLOCK, after.list("").unwrap().len())
    };
    assert_eq!(look(Loss::Nothing), (16, 9, 2));
    assert_eq!(happened(&disk, FaultKind::LostSector), 0);
    assert_eq!(look(Loss::All), (0, 8, 1));
    let lost = |kind| happened(&disk, kind);
    // The two blocks that were written, and the one that the file grew by, which is beyond the length that is left.
    assert_eq!(lost(FaultKind::LostSector), 24);
    assert_eq!((lost(FaultKind::LostLength), lost(FaultKind::LostName)), (1, 1));
    assert_eq!(lost(FaultKind::TornWrite), 0);
    let (sectors, ..) = look(Loss::Random);
    assert!((1..16).contains(&sectors) && lost(FaultKind::TornWrite) > 0);
}

#[test]
fn a_whole_block_is_damaged_of_which_a_sector_was_being_written() {
    let (disk, file) = disk_with_file(1);
    file.write_at(0, &[1; 8 * BLOCK]).unwrap();
    file.sync().unwrap();
    file.write_at(BLOCK as u64 + 512, &[2; 512]).unwrap();
    let whole = |after: &SimDisk| {
        let bytes = content(after, "file");
        let rest = [&bytes[..BLOCK], &bytes[2 * BLOCK..]].concat();
        assert!(rest.iter().all(|&byte| byte == 1), "other blocks stay whole");
        let neighbours = [&bytes[BLOCK..BLOCK + 512], &bytes[BLOCK + 1024..2 * BLOCK]].concat();
        neighbours.iter().all(|&byte| byte == 1)
    };
    assert!((0..20).all(|seed| whole(&disk.crash(seed))));
    disk.set_damage(true);
    let spared = (0..40).filter(|&seed| whole(&disk.crash(seed))).count();
    assert!((10..30).contains(&spared), "{spared}");
    assert_eq!(happened(&disk, FaultKind::DamagedBlock), 40 - spared as u64);
}

#[test]
fn files_without_a_name_are_gone_after_a_cut() {
    let disk = SimDisk::new(1);
    for turn in 0..3 {
        let file = disk.create("a").unwrap();
        file.write_at(0, &[turn; 600]).unwrap();
        file.sync().unwrap();
        if turn < 2 {
            disk.remove("a").unwrap();
        }
    }
    disk.sync_dir("").unwrap();
    let lengths = |disk: &SimDisk| {
        disk.state().files.iter().map(|file| file.durable.len()).collect::<Vec<_>>()
    };
    let after = disk.crash(1);
    assert_eq!((lengths(&disk), lengths(&after)), (vec![600; 3], vec![0, 0, 600]));
    assert_eq!(content(&after, "a"), [2; 600]);
}

#[test]
fn the_death_of_a_process_makes_nothing_durable() {
    let (disk, file) = disk_with_file(1);
    file.write_at(0, &[1; BLOCK]).unwrap();
    file.set_len(9 * BLOCK as u64).unwrap();
    disk.create("new").unwrap();
    disk.rename("file", "other").unwrap();
    disk.set_loss(Loss::Nothing);
    let after = disk.crash(1);
    let look = |disk: &SimDisk, name| (content(disk, name).len() / BLOCK, content(disk, name)[0]);
    for disk in [&disk, &after] {
        disk.set_loss(Loss::Nothing);
        let dead = disk.crash(1);
        assert_eq!((look(&dead, "other"), dead.list("").unwrap().len()), ((9, 1), 2));
        disk.set_loss(Loss::All);
        let cut = disk.crash(1);
        assert_eq!((look(&cut, "file"), cut.list("").unwrap().len()), ((8, 0), 1));
    }
    assert_eq!(
        (happened(&disk, FaultKind::ProcessDeath), happened(&disk, FaultKind::PowerCut)),
        (2, 1)
    );
    after.open("other", Access::Write).unwrap().sync().unwrap();
    after.sync_dir("").unwrap();
    assert_eq!(look(&after.crash(1), "other"), (9, 1));
}

#[test]
fn blocks_of_a_twin_take_the_place_of_others() {
    let (disk, file) = disk_with_file(1);
    let twin = disk.clone_durable();
    file.write_at(0, &[1; 8 * BLOCK]).unwrap();
    twin.open("file", Access::Write).unwrap().write_at(0, &[2; 8 * BLOCK]).unwrap();
    disk.graft(&twin, "file", BLOCK as u64..2 * BLOCK as u64).unwrap();
    assert_eq!(happened(&disk, FaultKind::Grafted), 1);
    let blocks = |disk: &SimDisk| {
        content(disk, "file").chunks(BLOCK).map(|block| block[0]).collect::<Vec<_>>()
    };
    assert_eq!(blocks(&disk), [1, 2, 1, 1, 1, 1, 1, 1]);
    assert_eq!(blocks(&disk.clone_durable()), [0, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(blocks(&twin), [2; 8]);
    disk.graft(&twin, "missing", 0..10).unwrap_err();
    disk.graft(&twin, "file", 0..1 << 30).unwrap_err();
}

#[test]
fn a_straggler_lands_before_the_lock_is_let_go() {
    let (disk, file) = disk_with_file(1);
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    disk.set_order(Order::Never);
    (1..=2).for_each(|n| queue.start(flush(n, &file, n as usize * BLOCK, n as u8, 1)));
    disk.allow(always(FaultKind::Straggler));
    disk.set_loss(Loss::Nothing);
    let after = disk.crash(1);
    assert!(content(&after, "file").iter().all(|&byte| byte == 0), "on their way");
    assert_eq!(happened(&after, FaultKind::Straggler), 0);
    for landed in 1..=2 {
        assert_eq!(after.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(happened(&after, FaultKind::Straggler), landed);
    }
    after.lock().unwrap();
    let bytes = content(&after, "file");
    assert_eq!((bytes[0], bytes[BLOCK], bytes[2 * BLOCK]), (0, 1, 2));

    // Somebody who does not ask for the lock sees them land.
    let after = disk.crash(1);
    let mut looks = 0;
    while happened(&after, FaultKind::Straggler) < 2 {
        after.list("").unwrap();
        looks += 1;
    }
    assert!((3..=128).contains(&looks), "{looks}");
    after.lock().unwrap();
    // They are like any write: not durable.
    assert!(content(&after.clone_durable(), "file").iter().all(|&byte| byte == 0));
}

#[test]
#[cfg(feature = "mutants")]
fn with_a_mutant_a_straggler_lands_after_the_lock_is_taken() {
    use crate::sync::fault;
    let (disk, file) = disk_with_file(1);
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    disk.set_order(Order::Never);
    queue.start(flush(1, &file, 0, 1, 1));
    disk.allow(always(FaultKind::Straggler));
    let after = disk.crash(1);
    fault::set(Some(fault::Fault::OpensBeforeStragglers));
    let lock = after.lock();
    fault::set(None);
    let before = content(&after, "file")[0];
    (0..64).for_each(|_| drop(after.list("").unwrap()));
    assert_eq!((lock.is_ok(), before, content(&after, "file")[0]), (true, 0, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too many sectors for an interpreter")]
fn cuts_share_what_they_do_not_change() {
    let disk = SimDisk::new(1);
    for name in ["a", "b", "c", "d"] {
        let file = disk.create(name).unwrap();
        file.write_at(0, &[7; 1 << 18]).unwrap();
        file.sync().unwrap();
        file.write_at(0, &[8; 1 << 12]).unwrap();
    }
    disk.sync_dir("").unwrap();
    let pages = |disk: &SimDisk| {
        let files = disk.state().files.clone();
        files.iter().map(|file| file.durable.clone()).collect::<Vec<_>>()
    };
    let after = disk.clone_durable();
    let shared = pages(&disk).iter().zip(&pages(&after)).all(|(a, b)| a.shares_all(b));
    assert!(shared, "a power cut copies no bytes that were durable");
}
