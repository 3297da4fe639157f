use super::*;

#[test]
fn every_operation_can_fail_by_chance() {
    type Run = fn(&SimDisk, &Arc<dyn File>) -> io::Result<()>;
    let runs: [(FaultKind, Run); 11] = [
        (FaultKind::WriteError, |_, file| file.write_at(0, &[1; 512])),
        (FaultKind::SyncError, |_, file| file.sync()),
        (FaultKind::CreateError, |disk, _| disk.create("new").map(drop)),
        (FaultKind::CreateDirError, |disk, _| disk.create_dir("dir")),
        (FaultKind::OpenError, |disk, _| disk.open("file", Access::Read).map(drop)),
        (FaultKind::ReadError, |_, file| file.read_at(0, &mut [0; 512])),
        (FaultKind::ListError, |disk, _| disk.list("").map(drop)),
        (FaultKind::RenameError, |disk, _| disk.rename("file", "file")),
        (FaultKind::RemoveError, |disk, _| {
            let gone = disk.remove("file");
            assert!(gone.is_err() || disk.list("")?.is_empty());
            gone
        }),
        (FaultKind::SyncDirError, |disk, _| disk.sync_dir("")),
        (FaultKind::PrepareError, |_, file| file.prepare(9 * BLOCK as u64)),
    ];
    for (kind, run) in runs {
        let (disk, file) = disk_with_file(1);
        disk.allow(Chance { most: 1, ..always(kind) });
        run(&disk, &file).unwrap_err();
        assert_eq!(happened(&disk, kind), 1, "{kind:?}");
        run(&disk, &file).unwrap();
        assert_eq!(happened(&disk, kind), 1, "{kind:?}: once");

        let (disk, file) = disk_with_file(1);
        disk.allow(Chance { most: 1, lasting: true, ..always(kind) });
        assert!((0..3).all(|_| run(&disk, &file).is_err()));
        assert_eq!((happened(&disk, kind), happened(&disk, FaultKind::LastingError)), (3, 3));
        disk.repair();
        run(&disk, &file).unwrap();
    }
}

#[test]
fn a_chance_is_as_good_as_it_says() {
    let (disk, _) = disk_with_file(4);
    disk.allow(often(FaultKind::ListError, 250_000));
    let failed = (0..400).filter(|_| disk.list("").is_err()).count();
    assert!((60..140).contains(&failed), "{failed}");
    assert_eq!(happened(&disk, FaultKind::ListError), failed as u64);
    disk.allow(often(FaultKind::ListError, 0));
    assert!((0..400).all(|_| disk.list("").is_ok()));
}

#[test]
fn errors_by_chance_are_of_several_kinds() {
    let (disk, file) = disk_with_file(2);
    disk.allow(always(FaultKind::SyncError));
    let kinds: std::collections::BTreeSet<_> =
        (0..40).map(|_| file.sync().unwrap_err().kind().to_string()).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(happened(&disk, FaultKind::Full) > 0, "one of them says that there is no space");
}

#[test]
fn short_and_interrupted_writes_are_gone_on_with() {
    for kind in [FaultKind::ShortWrite, FaultKind::Interrupted] {
        let (disk, file) = disk_with_file(1);
        disk.set_order(Order::Fifo);
        let mut queue = queue(&disk, SyncMethod::WriteThenSync);
        disk.allow(often(kind, 500_000));
        let mut completed = Vec::new();
        for n in 0..8 {
            queue.start(flush(n, &file, n as usize % 4 * BLOCK, n as u8 + 1, 2));
            queue.wait(None, &mut completed);
        }
        assert!(completed.iter().all(|completion| completion.result.is_ok()), "{completed:?}");
        file.write_at(6 * BLOCK as u64, &[9; 2 * BLOCK]).unwrap();
        file.read_at(0, &mut [0; 100]).unwrap();
        assert!(happened(&disk, kind) > 3);
        let after = content(&disk, "file");
        let expected = [5, 6, 7, 8, 8, 0, 9, 9];
        assert!(after.chunks(BLOCK).zip(expected).all(|(b, e)| b.iter().all(|&b| b == e)));
        assert!(content(&disk.clone_durable(), "file")[..5 * BLOCK] == after[..5 * BLOCK]);
    }
}

#[test]
fn a_flush_that_gets_nowhere_fails() {
    for (kind, error) in [
        (FaultKind::TryAgain, io::ErrorKind::WouldBlock),
        (FaultKind::Interrupted, io::ErrorKind::Interrupted),
    ] {
        let (disk, file) = disk_with_file(1);
        let mut queue = queue(&disk, SyncMethod::WriteDsync);
        disk.allow(always(kind));
        queue.start(flush(1, &file, 0, 1, 1));
        let mut completed = Vec::new();
        queue.wait(None, &mut completed);
        assert_eq!(completed[0].result.as_ref().unwrap_err().kind(), error);
        assert_eq!(happened(&disk, kind), 17);
    }
}

#[test]
fn a_short_read_is_an_early_end() {
    let (disk, file) = disk_with_file(1);
    file.write_at(0, &[1; 100]).unwrap();
    disk.allow(Chance { most: 1, ..always(FaultKind::ShortRead) });
    let mut bytes = [0; 100];
    assert_eq!(file.read_at(0, &mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!((bytes[49], bytes[50], happened(&disk, FaultKind::ShortRead)), (1, 0, 1));
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes[50], 1);
}

/// A file of eight blocks of ones and one of twos.
fn two_files() -> (Arc<SimDisk>, Arc<dyn File>) {
    let (disk, file) = disk_with_file(1);
    file.write_at(0, &[1; 8 * BLOCK]).unwrap();
    file.sync().unwrap();
    let other = disk.create("other").unwrap();
    other.write_at(0, &[2; 4 * BLOCK]).unwrap();
    other.sync().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

#[test]
fn a_write_lands_elsewhere_for_good_or_nowhere() {
    for (kind, there, other) in [
        (FaultKind::MisdirectedWrite, 1, 0),
        (FaultKind::StrayWrite, 0, 1),
        (FaultKind::LostWrite, 0, 0),
    ] {
        let (disk, file) = two_files();
        disk.set_order(Order::Fifo);
        let mut queue = queue(&disk, SyncMethod::WriteDsync);
        disk.allow(always(kind));
        let mut hits = 0;
        for n in 0..20 {
            let before = happened(&disk, kind);
            queue.start(flush(n, &file, 3 * BLOCK, 3, 1));
            let mut completed = Vec::new();
            queue.wait(None, &mut completed);
            completed.remove(0).result.unwrap();
            // It may be sent where it was to go.
            if happened(&disk, kind) == before {
                break;
            }
            hits += 1;
            let after = disk.clone_durable();
            let threes =
                |name| content(&after, name).chunks(BLOCK).any(|block| block == [3; BLOCK]);
            assert_eq!((threes("file"), threes("other")), (there == 1, other == 1), "{kind:?}");
            assert_eq!(content(&after, "file")[3 * BLOCK], 1, "{kind:?}");
        }
        assert!(hits > 0, "{kind:?}");
    }
}

#[test]
fn a_read_is_of_elsewhere() {
    for (kind, seen) in [(FaultKind::MisdirectedRead, 9), (FaultKind::StrayRead, 2)] {
        let (disk, file) = two_files();
        file.write_at(0, &[9; 7 * BLOCK]).unwrap();
        disk.allow(always(kind));
        let mut bytes = [0; 16];
        while happened(&disk, kind) == 0 || bytes[0] == 1 {
            file.read_at(7 * BLOCK as u64, &mut bytes).unwrap();
        }
        assert_eq!(bytes, [seen; 16]);
    }
}

#[test]
fn a_disk_that_lies_loses_what_it_said_was_durable() {
    let (disk, file) = disk_with_file(1);
    disk.set_order(Order::Fifo);
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    disk.allow(always(FaultKind::LyingSync));
    disk.allow(always(FaultKind::LyingSyncDir));
    queue.start(flush(1, &file, 0, 1, 1));
    let mut completed = Vec::new();
    queue.wait(None, &mut completed);
    completed.remove(0).result.unwrap();
    file.write_at(BLOCK as u64, &[1; 512]).unwrap();
    file.sync().unwrap();
    disk.create("new").unwrap();
    disk.sync_dir("").unwrap();
    let after = disk.clone_durable();
    assert!(content(&after, "file").iter().all(|&byte| byte == 0));
    assert_eq!(after.list("").unwrap().len(), 1);
    assert_eq!(
        (happened(&disk, FaultKind::LyingSync), happened(&disk, FaultKind::LyingSyncDir)),
        (2, 1)
    );
    // It has not forgotten: an honest sync makes up for it.
    disk.repair();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    let after = disk.clone_durable();
    assert_eq!((content(&after, "file")[0], after.list("").unwrap().len()), (1, 2));
}

#[test]
fn a_file_rots_where_it_is_told_to() {
    let (disk, file) = disk_with_file(5);
    for rot in [Rot::Bit, Rot::Byte, Rot::Sector] {
        let before = (content(&disk, "file"), content(&disk.clone_durable(), "file"));
        file.write_at(0, &[0; 512]).unwrap();
        let hit = disk.rot("file", 600..5000, rot).unwrap();
        assert!(hit.start >= 512 && hit.end <= 5120);
        let changed = |before: &[u8], after: &[u8]| {
            let at = (0..before.len()).filter(|&at| before[at] != after[at]).collect::<Vec<_>>();
            assert!(at.iter().all(|&at| hit.contains(&(at as u64))), "{at:?} {hit:?}");
            at.len()
        };
        let live = changed(&before.0, &content(&disk, "file"));
        let durable = changed(&before.1, &content(&disk.clone_durable(), "file"));
        assert_eq!(live, durable);
        assert!(if rot == Rot::Sector { live > 400 } else { live == 1 }, "{rot:?}: {live}");
    }
    assert_eq!(happened(&disk, FaultKind::Rot), 3);
    disk.rot("file", (1 << 20)..(1 << 21), Rot::Byte).unwrap_err();
}

#[test]
fn no_space_is_counted() {
    let (disk, file) = disk_with_file(1);
    disk.set_capacity(8 * BLOCK as u64);
    assert_eq!(file.prepare(1 << 20).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_at(8 * BLOCK as u64 - 1, &[1; 2]).unwrap_err();
    assert_eq!(happened(&disk, FaultKind::Full), 2);
    disk.set_capacity(u64::MAX);
    file.prepare(1 << 20).unwrap();
}

#[test]
fn the_seed_decides_what_goes_wrong() {
    let run = |seed| {
        let (disk, file) = disk_with_file(seed);
        FaultKind::ALL.iter().for_each(|&kind| disk.allow(often(kind, 200_000)));
        let mut queue = queue(&disk, SyncMethod::WriteDsync);
        let mut completed = Vec::new();
        for n in 0..40 {
            queue.start(flush(n, &file, n as usize % 8 * BLOCK, n as u8, 1));
            queue.poll(&mut completed);
            let _ = file.sync();
            let _ = disk.create(&n.to_string());
            let _ = disk.sync_dir("");
        }
        let results: Vec<_> = completed.iter().map(|c| (c.token, c.result.is_ok())).collect();
        (results, disk.faults(), content(&disk.crash(seed), "file"))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn every_fault_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = FaultKind::ALL.iter().map(|k| k.name()).collect();
    assert_eq!(names.len(), FaultKind::ALL.len());
}
