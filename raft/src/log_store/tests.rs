//! The log store under openraft's own suite, on a damaged disk, on one that fails, and on one that is slow.

use std::sync::{Condvar, Mutex as StdMutex};
use std::time::Duration;

use bytes::Bytes;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use seams::{
    Directory, DiskError, DiskOptions, FileDirectory, Pairs, Reader, Statistics, ThreadRuntime,
};
use tempfile::TempDir;

use super::*;
use crate::machine::Applier;
use crate::types::{EntryPayload, Payload, Seeded};

#[path = "../../tests/cluster/machine.rs"]
#[allow(dead_code, reason = "the tests of whole nodes use more of it")]
mod keeper;

struct OnRocks;

impl StoreBuilder<Types, LogStore, Applier, TempDir> for OnRocks {
    async fn build(&self) -> Result<(TempDir, LogStore, Applier), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let directory: Arc<dyn Directory> = Arc::new(FileDirectory::open(folder.path()).unwrap());
        let disk = directory.open("log", &DiskOptions::with_wal()).unwrap();
        let log = LogStore::open(disk, &ThreadRuntime).unwrap();
        let machine = keeper::Keeper::open(directory.clone(), keeper::Seen::default());
        let applier =
            Applier::new(Box::new(machine), directory, &ThreadRuntime, log.clone()).unwrap();
        Ok((folder, log, applier))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes() {
    Seeded::scope(1, Suite::test_all(OnRocks)).await.unwrap();
}

fn entry(index: u64) -> Entry {
    let payload = EntryPayload::Normal(Payload(Bytes::from(format!("payload {index}"))));
    Entry {
        log_id: Position { term: 1, index }.into(),
        payload,
    }
}

fn rocks(folder: &TempDir) -> Arc<dyn Disk> {
    FileDirectory::open(folder.path())
        .unwrap()
        .open("log", &DiskOptions::with_wal())
        .unwrap()
}

/// Appends, and gives what tells when that is flushed.
async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry> + Send) -> Flushed {
    let (sender, receiver) = Types::oneshot();
    let entries: Vec<Entry> = entries.into_iter().collect();
    log.append(entries, IOFlushed::signal(sender))
        .await
        .unwrap();
    receiver
}

type Flushed = openraft::type_config::alias::OneshotReceiverOf<Types, Result<(), io::Error>>;

#[tokio::test]
async fn damage_is_named_when_the_log_is_opened() {
    let check = async |damage: fn(&mut Batch), want: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogStore::open(rocks(&folder), &ThreadRuntime).unwrap();
        append(&mut log, (0..5).map(entry))
            .await
            .await
            .unwrap()
            .unwrap();
        let disk = log.shared.kept.disk.clone();
        let mut batch = Batch::new();
        damage(&mut batch);
        disk.write(batch, Synced::Yes).unwrap();
        let error = LogStore::open(disk, &ThreadRuntime).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(want), "{error}");
    };
    check(
        |batch| batch.put(entry_key(3), &b"\0\0\0\0what is this"[..]),
        "entry 3 of the Raft log",
    )
    .await;
    check(
        |batch| batch.put(entry_key(3), &b"x"[..]),
        "entry 3 of the Raft log",
    )
    .await;
    // A sound entry, in another's place.
    check(
        |batch| batch.put(entry_key(3), entry_value(&entry(2))),
        "entry 3 of the Raft log",
    )
    .await;
    check(
        |batch| batch.delete(entry_key(2)),
        "entry 2 should come before it",
    )
    .await;
}

#[tokio::test]
async fn it_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(rocks(&folder), &ThreadRuntime).unwrap();
    append(&mut log, (0..10).map(entry))
        .await
        .await
        .unwrap()
        .unwrap();
    log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    log.save_committed(Some(entry(7).log_id)).await.unwrap();
    log.purge(entry(3).log_id).await.unwrap();
    log.truncate_after(Some(entry(8).log_id)).await.unwrap();
    log.remember_disk(2, 77);
    log.flush().await.unwrap();
    let bytes = log.bytes_after(Some(5));
    assert_eq!(
        bytes,
        log.bytes_after(None) / 5 * 3,
        "three of five entries of the same size"
    );
    let disk = log.shared.kept.disk.clone();
    drop(log);

    let mut again = LogStore::open(disk, &ThreadRuntime).unwrap();
    let state = again.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(entry(3).log_id), Some(entry(8).log_id))
    );
    assert_eq!(
        again.read_vote().await.unwrap(),
        Some(Vote::new_committed(3, 2))
    );
    assert_eq!(again.read_committed().await.unwrap(), Some(entry(7).log_id));
    assert_eq!(
        again.try_get_log_entries(..).await.unwrap(),
        (4..=8).map(entry).collect::<Vec<_>>()
    );
    assert_eq!(again.bytes_after(Some(5)), bytes);
    assert_eq!(again.known_disks().unwrap(), BTreeMap::from([(2, 77)]));
}

#[test]
fn what_stays_behind_a_snapshot_is_bounded_by_count_and_by_bytes() {
    // first entry, bytes of each, snapshot's index, entries and bytes to keep; the last that goes
    type Row = (u64, &'static [u64], u64, u64, u64, Option<u64>);
    let rows: [Row; 13] = [
        (1, &[], 9, 0, 0, None),
        (1, &[10, 10, 10], 3, 5, 100, None),
        (1, &[10, 10, 10], 3, 3, 30, None),
        (1, &[10, 10, 10], 3, 2, 30, Some(1)),
        (1, &[10, 10, 10], 3, 3, 29, Some(1)),
        (1, &[10, 10, 10], 3, 3, 20, Some(1)),
        (1, &[10, 10, 10], 3, 3, 19, Some(2)),
        (1, &[10, 10, 10], 3, 3, 0, Some(3)),
        (1, &[10, 10, 10], 3, 0, 100, Some(3)),
        // What the snapshot does not cover neither goes nor counts.
        (1, &[10, 10, 10], 2, 1, 100, Some(1)),
        (1, &[10, 10, 90], 2, 9, 20, None),
        (100, &[10, 20, 30, 40], 102, 9, 50, Some(100)),
        (100, &[10, 20, 30, 40], 99, 0, 0, None),
    ];
    for (first, sizes, snapshot, entries, bytes, goes) in rows {
        // Some went before.
        let mut log = Log {
            first,
            bytes_purged: 1_000,
            ..Log::default()
        };
        let mut total = log.bytes_purged;
        for size in sizes {
            total += size;
            log.bytes_up_to.push_back(total);
        }
        let purgeable = log.purgeable(snapshot, Keep { entries, bytes });
        assert_eq!(
            purgeable, goes,
            "from {first}, {sizes:?}, snapshot {snapshot}, keep {entries} and {bytes}"
        );
    }
}

#[tokio::test]
async fn what_is_no_longer_in_memory_is_read_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(rocks(&folder), &ThreadRuntime).unwrap();
    append(&mut log, (0..100).map(entry))
        .await
        .await
        .unwrap()
        .unwrap();
    let forget_below = |log: &LogStore, index: u64| {
        let mut inner = log.shared.kept.lock();
        inner.cache = inner.cache.split_off(&index);
    };
    let all: Vec<Entry> = (0..100).map(entry).collect();
    for below in [0, 1, 50, 99, 100] {
        forget_below(&log, below);
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), all, "{below}");
        assert_eq!(
            log.try_get_log_entries(40..60).await.unwrap(),
            all[40..60],
            "{below}"
        );
        // Two fit, or one that does not.
        let two = 2 * entry_bytes(&entry(50));
        assert_eq!(log.read(50..60, two).await.unwrap().len(), 2, "{below}");
        assert_eq!(log.read(50..60, 1).await.unwrap(), [entry(50)], "{below}");
    }
}

/// A disk that waits before each write until it is told to go on, and fails when it is told to.
struct Held {
    rocks: Arc<dyn Disk>,
    control: StdMutex<Control>,
    changed: Condvar,
}

#[derive(Default)]
struct Control {
    open: bool,
    fail: bool,
    writes: usize,
}

impl Held {
    fn set(&self, change: impl FnOnce(&mut Control)) {
        change(&mut self.control.lock().unwrap());
        self.changed.notify_all();
    }
}

impl Reader for Held {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.rocks.get(key)
    }
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        self.rocks.multi_get(keys)
    }
    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        self.rocks.iterate(range, order)
    }
}

impl Disk for Held {
    fn view(&self) -> Result<Box<dyn Reader>, DiskError> {
        self.rocks.view()
    }
    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        let mut control = self.control.lock().unwrap();
        control.writes += 1;
        self.changed.notify_all();
        let control = self
            .changed
            .wait_while(control, |control| !control.open)
            .unwrap();
        if control.fail {
            return Err(DiskError::Full {
                what: "writing".to_owned(),
            });
        }
        drop(control);
        self.rocks.write(batch, synced)
    }
    fn takes_at_once(&self) -> bool {
        false
    }
    fn flush(&self) -> Result<(), DiskError> {
        self.rocks.flush()
    }
    fn checkpoint(&self, into: &str) -> Result<(), DiskError> {
        self.rocks.checkpoint(into)
    }
    fn statistics(&self) -> Statistics {
        self.rocks.statistics()
    }
    fn size(&self) -> Result<u64, DiskError> {
        self.rocks.size()
    }
}

fn held(folder: &TempDir) -> Arc<Held> {
    Arc::new(Held {
        rocks: rocks(folder),
        control: StdMutex::default(),
        changed: Condvar::new(),
    })
}

#[tokio::test]
async fn appends_that_come_during_a_sync_share_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let disk = held(&folder);
    let mut log = LogStore::open(disk.clone(), &ThreadRuntime).unwrap();
    let mut flushed = vec![append(&mut log, [entry(0)]).await];
    drop(
        disk.changed
            .wait_while(disk.control.lock().unwrap(), |control| control.writes == 0)
            .unwrap(),
    );
    for index in 1..100 {
        flushed.push(append(&mut log, [entry(index)]).await);
    }
    // Readable at once, flushed not yet.
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 100);
    assert!(
        flushed
            .iter_mut()
            .all(|flushed| flushed.try_recv().is_err())
    );
    let before = disk.statistics().wal_syncs;
    disk.set(|control| control.open = true);
    for flushed in flushed {
        flushed.await.unwrap().unwrap();
    }
    assert_eq!(disk.control.lock().unwrap().writes, 2);
    assert_eq!(disk.statistics().wal_syncs - before, 2);
}

#[tokio::test]
async fn how_far_it_is_committed_goes_with_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let disk = held(&folder);
    disk.set(|control| control.open = true);
    let mut log = LogStore::open(disk.clone(), &ThreadRuntime).unwrap();
    let writes = || disk.control.lock().unwrap().writes;
    let mark = || disk.get(COMMITTED_KEY).unwrap();
    append(&mut log, [entry(0)]).await.await.unwrap().unwrap();
    log.save_committed(Some(entry(0).log_id)).await.unwrap();
    assert_eq!((writes(), mark()), (1, None), "not by itself");
    append(&mut log, [entry(1)]).await.await.unwrap().unwrap();
    let first = mark();
    assert!(writes() == 2 && first.is_some());
    log.save_committed(Some(entry(1).log_id)).await.unwrap();
    // Nothing else comes, so it is asked to.
    log.write_committed();
    log.flush().await.unwrap();
    assert_ne!(mark(), first);
    let before = writes();
    log.write_committed();
    log.flush().await.unwrap();
    assert_eq!(writes(), before + 1, "the flush alone: it is written");
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_is_told_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let disk = held(&folder);
    disk.set(|control| control.open = true);
    let mut log = LogStore::open(disk.clone(), &ThreadRuntime).unwrap();
    append(&mut log, (0..3).map(entry))
        .await
        .await
        .unwrap()
        .unwrap();
    let mut failed = log.failed();
    assert_eq!(*failed.borrow(), None);
    disk.set(|control| control.fail = true);
    log.purge(entry(1).log_id).await.unwrap();
    let told = failed.wait_for(Option::is_some);
    let told = tokio::time::timeout(Duration::from_secs(10), told).await;
    let told = told.unwrap().unwrap().clone().unwrap();
    assert!(told.contains("no space left"), "{told}");
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_written_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let disk = held(&folder);
    disk.set(|control| (control.open, control.fail) = (true, true));
    let mut log = LogStore::open(disk.clone(), &ThreadRuntime).unwrap();
    let failed = append(&mut log, [entry(0)])
        .await
        .await
        .unwrap()
        .unwrap_err();
    assert!(failed.to_string().contains("no space left"), "{failed}");
    disk.set(|control| control.fail = false);
    append(&mut log, [entry(1)])
        .await
        .await
        .unwrap()
        .unwrap_err();
    log.save_vote(&Vote::new(2, 1)).await.unwrap_err();
    assert_eq!(disk.control.lock().unwrap().writes, 1);
    assert_eq!(
        disk.rocks.scan(&Range::all(), Order::Ascending, 9).unwrap(),
        []
    );
}
