//! What lives comes back after a restart, from its records and from the events behind them.

use crate::folder::{Kept, directory};
use crate::language::*;
use eventstore::{Act, Horizons, Object};
use eventstore_disk::StoreConfig;
use seams::{Batch, Directory, DiskOptions, Order, Range, Synced};
use std::sync::Arc;

fn keeping_warm(most_warm: usize) -> StoreConfig {
    StoreConfig {
        most_warm,
        ..StoreConfig::default()
    }
}

/// Closes the store, does something to what it left, and opens it again.
fn reopened(
    kept: Kept,
    directory: &Arc<dyn Directory>,
    most_warm: usize,
    between: impl FnOnce(&dyn Directory),
) -> Kept {
    kept.store.flush().unwrap();
    drop(kept);
    between(&**directory);
    Kept::open(directory, keeping_warm(most_warm))
}

fn living(kept: &Kept) -> Vec<Arc<Object>> {
    kept.store.view().objects().cloned().collect()
}

/// The names that have records of what is current, while no store is open.
fn records(directory: &dyn Directory) -> Vec<String> {
    let disk = directory
        .open("state", &DiskOptions::without_wal())
        .unwrap();
    let records = disk
        .scan(&Range::prefix(*b"c"), Order::Ascending, usize::MAX)
        .unwrap();
    let name = |record: &[u8]| {
        let name = record.rsplit(|byte| *byte == 0).next().unwrap();
        String::from_utf8(name.to_vec()).unwrap()
    };
    records.iter().map(|(record, _)| name(record)).collect()
}

#[test]
fn a_key_is_written_once_it_has_cooled() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, keeping_warm(8));
    let hot = map("hot");
    for number in 0..20 {
        kept.take(objects(2 + 2 * number, vec![put(&hot, "")]));
        let cold = map(&format!("cold-{number:02}"));
        kept.take(objects(3 + 2 * number, vec![put(&cold, "")]));
    }
    let before = living(&kept);
    assert_eq!(before.len(), 21);
    let mut kept = reopened(kept, &directory, 8, |directory| {
        // The last eight changes are warm: four of them of the key that changes often.
        let cold: Vec<String> = (0..16).map(|number| format!("cold-{number:02}")).collect();
        assert_eq!(records(directory), cold);
    });
    assert_eq!(living(&kept), before);
    // One that has cooled goes, one that is warm goes, and both are warm again.
    for (number, name) in [(100, "cold-00"), (101, "hot")] {
        kept.take(objects(number, vec![remove(&map(name))]));
    }
    let before = living(&kept);
    assert_eq!(before.len(), 19);
    let mut kept = reopened(kept, &directory, 8, |directory| {
        assert!(records(directory).contains(&"cold-00".to_owned()));
    });
    assert_eq!(living(&kept), before);
    for number in 0..20 {
        kept.take(objects(200 + number, vec![put(&map("other"), "")]));
    }
    reopened(kept, &directory, 8, |directory| {
        let cold: Vec<String> = (1..20).map(|number| format!("cold-{number:02}")).collect();
        assert_eq!(records(directory), cold);
    });
}

#[test]
fn what_events_are_needed_for_is_written_before_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, keeping_warm(1_000));
    kept.take(of(proposal(200, Act::RaiseLevel { level: 2 }), server()));
    for number in 0..30 {
        let name = format!("map-{}", number % 10);
        kept.take(objects(2 + number, vec![put(&map(&name), "")]));
    }
    let all = kept.store.view().revision - 3;
    let horizons = Horizons {
        all,
        resources: Vec::new(),
    };
    kept.take(of(proposal(100, Act::Prune(horizons)), server()));
    while kept.store.prune(7).unwrap().more {}
    let before = living(&kept);
    let kept = reopened(kept, &directory, 1_000, |_| {});
    assert_eq!(living(&kept), before);
    kept.store.verify(0..=u64::MAX, |_| {}).unwrap();
}

#[test]
fn a_database_of_before_has_a_record_for_each_change() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(folder.path());
    let mut kept = Kept::open(&directory, keeping_warm(0));
    for number in 0..10 {
        let name = format!("map-{}", number % 5);
        kept.take(objects(2 + number, vec![put(&map(&name), "")]));
    }
    let before = living(&kept);
    let mut kept = reopened(kept, &directory, 8, |directory| {
        let disk = directory
            .open("state", &DiskOptions::without_wal())
            .unwrap();
        let mut batch = Batch::new();
        batch.delete(b"u".to_vec());
        disk.write(batch, Synced::Yes).unwrap();
    });
    assert_eq!(living(&kept), before);
    kept.take(objects(100, vec![remove(&map("map-1"))]));
    kept.take(objects(101, vec![put(&map("map-2"), "")]));
    let before = living(&kept);
    let kept = reopened(kept, &directory, 8, |_| {});
    assert_eq!(living(&kept), before);
    kept.store.verify(0..=u64::MAX, |_| {}).unwrap();
}
