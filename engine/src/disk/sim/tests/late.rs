use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_late_completion_waits_for_looks() {
    let (disk, file) = disk_with_file(3);
    disk.set_order(Order::Fifo);
    disk.set_lateness(10, Duration::ZERO);
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    let mut most = 0;
    for turn in 0..20 {
        disk.allow(Chance { most: 1, ..always(FaultKind::LateCompletion) });
        queue.start(flush(1, &file, 0, 1, 1));
        queue.start(flush(2, &file, BLOCK, 1, 1));
        let mut completed = Vec::new();
        let mut looks = 0;
        while completed.len() < 2 {
            queue.poll(&mut completed);
            looks += 1;
        }
        assert!(looks <= 12);
        most = most.max(looks);
        assert_eq!(happened(&disk, FaultKind::LateCompletion), turn + 1);
    }
    assert!(most > 6, "{most}");
    // The second overtook it, unless it was late by one look.
    assert!(happened(&disk, FaultKind::Reordered) > 10);
    // Who waits is not kept waiting for looks.
    disk.allow(always(FaultKind::LateCompletion));
    queue.start(flush(1, &file, 0, 1, 1));
    let mut completed = Vec::new();
    queue.wait(None, &mut completed);
    assert_eq!(completed.len(), 1);
}

#[test]
fn a_late_completion_waits_for_its_time() {
    let (disk, file) = disk_with_file(3);
    disk.set_lateness(0, SECOND);
    disk.set_now(SECOND);
    disk.allow(Chance { most: 1, ..always(FaultKind::LateCompletion) });
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    assert_eq!(disk.due(), None);
    queue.start(flush(1, &file, 0, 1, 1));
    let due = disk.due().unwrap();
    assert!(due > SECOND && due <= 2 * SECOND, "{due:?}");
    let mut completed = Vec::new();
    (0..20).for_each(|_| queue.wait(None, &mut completed));
    disk.set_now(due - Duration::from_micros(1));
    (0..20).for_each(|_| queue.wait(None, &mut completed));
    assert!(completed.is_empty());
    queue.start(flush(2, &file, BLOCK, 1, 1));
    assert_eq!(disk.due(), Some(Duration::ZERO), "this one can at once");
    queue.wait(None, &mut completed);
    assert_eq!(tokens(&completed), [2]);
    disk.set_now(due);
    queue.wait(None, &mut completed);
    assert_eq!(tokens(&completed), [2, 1]);
    assert_eq!(disk.due(), None);
    // A device that hangs has no time.
    queue.start(flush(3, &file, 0, 1, 1));
    disk.set_order(Order::Never);
    assert_eq!(disk.due(), None);
}

#[test]
fn a_sleeper_wakes_when_time_passes_and_when_the_power_fails() {
    let (disk, file) = disk_with_file(3);
    disk.set_stepped(false);
    disk.set_lateness(0, SECOND);
    disk.allow(always(FaultKind::LateCompletion));
    let mut queue = queue(&disk, SyncMethod::WriteDsync);
    queue.start(flush(1, &file, 0, 1, 1));
    queue.start(flush(2, &file, 0, 1, 1));
    let first = disk.due().unwrap();
    let other = Arc::clone(&disk);
    let thread = crate::sync::thread::spawn(move || {
        other.set_now(first);
        while other.ios() < 4 + 3 {
            crate::sync::thread::yield_now();
        }
        other.plan_cut(1, 1);
        other.list("").unwrap_err();
    });
    let mut completed = Vec::new();
    while completed.len() < 2 {
        queue.wait(Some(100 * SECOND), &mut completed);
    }
    thread.join().unwrap();
    assert!(completed[0].result.is_ok() && completed[1].result.is_err());
}
