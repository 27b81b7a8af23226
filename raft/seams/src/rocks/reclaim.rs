//! The room of what is deleted.
//!
//! What goes is only marked, until a compaction meets both the mark and what it deletes; large values stay in their file until all of it has
//! gone, or a compaction writes the rest anew. Compactions by size seldom touch what is old. So it is looked now and then how much is
//! deleted, and once it is a good part, all is compacted, and what is left in the oldest quarter of the large values' files moved. That is
//! done no faster than `DiskOptions::background_bytes_per_s`, for the log is synced on the same disk meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rocksdb::{BottommostLevelCompaction, CompactOptions, DB, Error};

/// Which part of the files of large values may be holes, and which part of the records what only deletes others, before room is given back.
const HOLES_MAX: f64 = 0.5;
const DELETIONS_MAX: f64 = 0.25;

/// Whether it is being given back just now.
#[derive(Default)]
pub(super) struct Reclaim(Mutex<Option<JoinHandle<()>>>);

impl Reclaim {
    /// Gives it back, on a thread of its own, if there is much and none is at it.
    pub fn begin(&self, db: &Arc<DB>) -> Result<(), Error> {
        let mut running = self.running();
        if running.as_ref().is_some_and(|one| !one.is_finished()) || !has_much_deleted(db)? {
            return Ok(());
        }
        // Families have no large values apart.
        db.set_options(&[("enable_blob_garbage_collection", "true")])?;
        let db = db.clone();
        let compact = move || {
            let mut how = CompactOptions::default();
            how.set_exclusive_manual_compaction(false);
            how.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &how);
        };
        match thread::Builder::new()
            .name("reclaim".to_owned())
            .spawn(compact)
        {
            Ok(thread) => *running = Some(thread),
            Err(error) => tracing::warn!(%error, "the room of what is deleted is given back later"),
        }
        Ok(())
    }

    /// Cuts it short, for the database is about to be closed.
    pub fn end(&self, db: &DB) {
        if let Some(thread) = self.running().take() {
            if !thread.is_finished() {
                db.cancel_all_background_work(false);
            }
            // One that panicked has said so.
            drop(thread.join());
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_much_deleted(db: &DB) -> Result<bool, Error> {
    let bytes = |property| Ok::<_, Error>(db.property_int_value(property)?.unwrap_or(0) as f64);
    let holes = bytes(c"rocksdb.live-blob-file-garbage-size")?;
    if holes > 0.0 && holes >= HOLES_MAX * bytes(c"rocksdb.live-blob-file-size")? {
        return Ok(true);
    }
    let (mut records, mut deletions) = (0, 0);
    for file in db.live_files()? {
        if file.column_family_name == rocksdb::DEFAULT_COLUMN_FAMILY_NAME {
            records += file.num_entries;
            deletions += file.num_deletions;
        }
    }
    Ok(deletions > 0 && deletions as f64 >= DELETIONS_MAX * records as f64)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::rocks::Rocks;
    use crate::rocks::tests::numbered;
    use crate::{Batch, Disk, DiskOptions, Reader, Synced};

    #[test]
    fn a_close_cuts_it_short_and_it_is_done_later() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Rocks::open(folder.path(), "state", &DiskOptions::without_wal()).unwrap();
        let disk = open();
        for round in 0..100_u32 {
            let mut batch = Batch::new();
            for number in round * 1_000..(round + 1) * 1_000 {
                batch.put(numbered(number), vec![round as u8; 600]);
            }
            disk.write(batch, Synced::No).unwrap();
        }
        let mut batch = Batch::new();
        for number in 0..99_999 {
            batch.delete(numbered(number));
        }
        disk.write(batch, Synced::No).unwrap();
        disk.flush().unwrap();
        disk.reclaim().unwrap();
        assert!(disk.reclaim.running().is_some(), "there was much");
        drop(disk);
        let disk = open();
        assert!(has_much_deleted(&disk.db).unwrap(), "it went on to its end");
        disk.reclaim().unwrap();
        while disk
            .reclaim
            .running()
            .as_ref()
            .is_some_and(|one| !one.is_finished())
        {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(
            !has_much_deleted(&disk.db).unwrap(),
            "it was not done later"
        );
        assert!(disk.get(&numbered(99_999)).unwrap().is_some());
        assert!(disk.get(&numbered(99_998)).unwrap().is_none());
    }

    fn is_at_it(disk: &Rocks) -> bool {
        let running = disk.reclaim.running();
        running.as_ref().is_some_and(|one| !one.is_finished())
    }

    /// Records that can't be compressed, and lie beside their keys.
    fn fill(disk: &Rocks, numbers: std::ops::Range<u32>) {
        for round in numbers.step_by(1_000) {
            let mut batch = Batch::new();
            for number in round..round + 1_000 {
                let part = |part: u32| numbered(number ^ (part << 20));
                batch.put(
                    numbered(number),
                    (1..100).flat_map(part).collect::<Vec<_>>(),
                );
            }
            disk.write(batch, Synced::No).unwrap();
        }
        disk.flush().unwrap();
    }

    #[test]
    fn it_takes_its_time_and_flushes_go_first() {
        const BYTES_PER_S: u64 = 4 << 20;
        /// What the first moment's part and what RocksDB has counted but not yet written come to, at the most.
        const SLACK: f64 = 1.5 * (1 << 20) as f64;
        let folder = tempfile::tempdir().unwrap();
        let open = |options| Rocks::open(folder.path(), "state", &options).unwrap();
        let disk = open(DiskOptions::without_wal());
        fill(&disk, 0..60_000);
        let mut batch = Batch::new();
        (0..60_000)
            .filter(|number| number % 3 == 0)
            .for_each(|number| batch.delete(numbered(number)));
        disk.write(batch, Synced::No).unwrap();
        disk.flush().unwrap();
        drop(disk);

        let disk = open(DiskOptions {
            background_bytes_per_s: BYTES_PER_S,
            ..DiskOptions::without_wal()
        });
        disk.reclaim().unwrap();
        assert!(is_at_it(&disk), "there was much");
        let begun = Instant::now();
        let (mut written, mut longest) = (0.0, Duration::ZERO);
        for number in 0.. {
            let took = begun.elapsed().as_secs_f64();
            written = disk.statistics().compaction_bytes as f64;
            if !is_at_it(&disk) {
                break;
            }
            let most = took * BYTES_PER_S as f64 + SLACK;
            assert!(written <= most, "{written} bytes after {took} s");
            // What a writer does meanwhile, and its flush, wait for no more than what is being written just then.
            let asked = Instant::now();
            let mut batch = Batch::new();
            batch.put(format!("new-{number}").into_bytes(), vec![7; 1_000]);
            disk.write(batch, Synced::Yes).unwrap();
            longest = longest.max(asked.elapsed());
            thread::sleep(Duration::from_millis(250));
        }
        let took = begun.elapsed();
        println!("{written} bytes in {took:?}; the longest flush meanwhile {longest:?}");
        assert!(took > Duration::from_secs(2), "{written} bytes in {took:?}");
        assert!(longest < took / 4, "a flush took {longest:?} of {took:?}");
        assert!(!has_much_deleted(&disk.db).unwrap());
    }
}
