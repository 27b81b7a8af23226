//! What nobody reads any more, where keys lie in their order: whole files of it go.
//!
//! A mark on what is deleted would be flushed beside what is newest, into a file that spans all between the two, and its compaction would
//! write all of that again. But files follow one another there, so one with nothing else in it can go as it is: a record in the
//! MANIFEST, and no byte is written again. What shares its file with others stays until these may go too; so does what was flushed lately,
//! until RocksDB has moved it down.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Rocks;
use crate::disk::{Disk, DiskError};

/// The last range of each letter, from inclusive, to exclusive.
#[derive(Default)]
pub(super) struct Forgotten(Mutex<BTreeMap<u8, (Bytes, Bytes)>>);

impl Forgotten {
    pub fn put(&self, letter: u8, from: Bytes, to: Bytes) {
        self.lock().insert(letter, (from, to));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u8, (Bytes, Bytes)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rocks {
    /// Drops files once they are as much as a flush writes, for it takes one.
    pub(super) fn drop_forgotten(&self) -> Result<(), DiskError> {
        let forgotten = self.forgotten.lock().clone();
        let families = self.families.of(&self.db);
        for (letter, (from, to)) in forgotten {
            let Some((name, family)) = families.of_letter(letter) else {
                continue;
            };
            let (bytes, last) = self.within(name, &from, &to)?;
            let Some(last) = last.filter(|_| bytes >= self.write_buffer_bytes) else {
                continue;
            };
            // A view may be of before. It is for the length of a request, and this is asked again.
            if self.views()? > 0 {
                return Ok(());
            }
            // What says that they are not read comes back from a crash: else they would be missing.
            self.flush()?;
            // Inclusive, so not up to where what is left begins.
            self.db
                .delete_file_in_range_cf(&family, &*from, &last)
                .map_err(|error| self.failed("dropping files of", error))?;
        }
        Ok(())
    }

    /// How much the files come to that lie in a range, and the last key in them. RocksDB drops none that was just flushed.
    fn within(
        &self,
        family: &str,
        from: &[u8],
        to: &[u8],
    ) -> Result<(u64, Option<Vec<u8>>), DiskError> {
        let files = self.db.live_files();
        let files = files.map_err(|error| self.failed("listing the files of", error))?;
        let (mut bytes, mut last) = (0, None);
        for file in files {
            let (Some(first), Some(end)) = (file.start_key, file.end_key) else {
                continue;
            };
            let is_of = file.column_family_name == family && file.level > 0;
            if is_of && first.as_slice() >= from && end.as_slice() < to {
                bytes += file.size as u64;
                last = last.max(Some(end));
            }
        }
        Ok((bytes, last))
    }

    fn views(&self) -> Result<u64, DiskError> {
        let views = self.db.property_int_value(c"rocksdb.num-snapshots");
        let views = views.map_err(|error| self.failed("asking who reads", error))?;
        Ok(views.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use crate::rocks::tests::{numbered, rests};
    use crate::rocks::{FLUSHED_FILES, Rocks};
    use crate::{Batch, Disk, DiskOptions, Order, Range, Reader, Synced};

    const EACH: u32 = 500;
    const BUFFER_BYTES: usize = 256 << 10;
    /// What a record takes: it can't be compressed.
    const RECORD_BYTES: u64 = 320;
    const EVENTS: u32 = 60_000;
    const ALIVE: u32 = 12_000;
    /// Where it is written down which record is the first that is left.
    const FIRST: &[u8] = b"p";

    fn open(folder: &Path) -> Rocks {
        let options = DiskOptions {
            write_buffer_bytes: BUFFER_BYTES,
            ..DiskOptions::without_wal().in_order(b"e")
        };
        Rocks::open(folder, "state", &options).unwrap()
    }

    fn key(number: u32) -> Vec<u8> {
        [&b"e"[..], &number.to_be_bytes()].concat()
    }

    fn number(key: &[u8]) -> u32 {
        u32::from_be_bytes(*key.last_chunk().unwrap())
    }

    fn value(number: u32) -> Vec<u8> {
        (1..80)
            .flat_map(|part| numbered(number ^ (part << 20)))
            .collect()
    }

    type Away = fn(&mut Batch, u32, u32);

    fn forgotten(batch: &mut Batch, _: u32, to: u32) {
        batch.forget(key(0), key(to));
        batch.put(FIRST, to.to_be_bytes().to_vec());
    }

    fn deleted(batch: &mut Batch, from: u32, to: u32) {
        batch.delete_range(key(from), key(to));
        batch.put(FIRST, to.to_be_bytes().to_vec());
    }

    /// Adds some records behind `number`, and does away with as many of the oldest.
    fn step(disk: &Rocks, number: u32, away: Away) {
        disk.reclaim().unwrap();
        let mut batch = Batch::new();
        for number in number..number + EACH {
            batch.put(key(number), value(number));
        }
        if let Some(from) = number.checked_sub(ALIVE) {
            away(&mut batch, from, from + EACH);
        }
        disk.write(batch, Synced::No).unwrap();
    }

    fn table_bytes(disk: &Rocks) -> u64 {
        let files = disk.db.live_files().unwrap();
        let files = files
            .iter()
            .filter(|file| file.column_family_name == "letter-65");
        files.map(|file| file.size as u64).sum()
    }

    fn first(disk: &Rocks) -> u32 {
        disk.get(FIRST).unwrap().map_or(0, |first| number(&first))
    }

    /// From the first that is left on all are there.
    fn is_whole(disk: &Rocks) -> u32 {
        let pairs = disk.iterate(&Range::prefix("e"), Order::Ascending).unwrap();
        let numbers = pairs.map(|pair| pair.unwrap());
        let left = numbers.filter(|(key, _)| number(key) >= first(disk));
        let mut next = first(disk);
        for (key, found) in left {
            assert_eq!((number(&key), &*found), (next, &*value(next)));
            next += 1;
        }
        next
    }

    /// As a crash at this moment would leave it, but for what the disk itself loses.
    fn crashed(folder: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("state")).unwrap();
        for file in fs::read_dir(folder.join("state")).unwrap() {
            let file = file.unwrap();
            fs::copy(
                file.path(),
                copy.path().join("state").join(file.file_name()),
            )
            .unwrap();
        }
        copy
    }

    #[test]
    fn files_go_without_a_byte_written_again() {
        let mut compacted = BTreeMap::new();
        let ways: [(&str, Away); 2] = [("forgotten", forgotten), ("deleted", deleted)];
        for (way, away) in ways {
            let folder = tempfile::tempdir().unwrap();
            let disk = open(folder.path());
            let mut most = 0;
            for from in (0..EVENTS).step_by(EACH as usize) {
                step(&disk, from, away);
                rests(&disk);
                most = most.max(table_bytes(&disk));
            }
            assert_eq!(is_whole(&disk), EVENTS);
            let bytes = disk.statistics().compaction_bytes;
            println!("{way}: {most} bytes at the most, {bytes} written again");
            compacted.insert(way, (most, bytes));
            drop(disk);
            assert_eq!(is_whole(&open(folder.path())), EVENTS);
        }
        let (most, bytes) = compacted["forgotten"];
        // What was flushed before RocksDB moves it down, what is worth a flush, and a file that is shared.
        let few = (FLUSHED_FILES as u64 + 4) * BUFFER_BYTES as u64;
        let alive = u64::from(ALIVE) * RECORD_BYTES;
        assert!(most < alive + few, "{most} bytes of {alive} that are alive");
        // What is in no order still is.
        assert!(
            100 * bytes < compacted["deleted"].1,
            "{bytes} bytes were written again"
        );
    }

    fn filled(folder: &Path) -> Rocks {
        let disk = open(folder);
        for from in (0..EVENTS).step_by(EACH as usize) {
            step(&disk, from, |_, _, _| {});
        }
        rests(&disk);
        disk
    }

    /// All but the last.
    fn forget_all(disk: &Rocks) {
        let mut batch = Batch::new();
        forgotten(&mut batch, 0, EVENTS - 1);
        disk.write(batch, Synced::No).unwrap();
        disk.reclaim().unwrap();
    }

    #[test]
    fn a_crash_leaves_what_is_not_known_to_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let disk = filled(folder.path());
        let all = table_bytes(&disk);
        forget_all(&disk);
        assert!(table_bytes(&disk) < all / 3, "it is still there");
        rests(&disk);
        let copy = crashed(folder.path());
        let again = open(copy.path());
        assert_eq!(is_whole(&again), EVENTS, "from {} on", first(&again));
    }

    #[test]
    fn who_reads_reads_on() {
        let folder = tempfile::tempdir().unwrap();
        let disk = filled(folder.path());
        let all = table_bytes(&disk);
        let (view, mut pairs) = (
            disk.view().unwrap(),
            disk.iterate(&Range::prefix("e"), Order::Ascending).unwrap(),
        );
        assert!(pairs.next().is_some());
        forget_all(&disk);
        assert!(view.get(&key(1)).unwrap().is_some(), "a view stands still");
        assert!(table_bytes(&disk) >= all, "it went under a view");
        drop(view);
        disk.reclaim().unwrap();
        assert!(table_bytes(&disk) < all / 3, "it is still there");
        assert_eq!(pairs.count() as u32, EVENTS - 1);
        assert!(disk.get(&key(EVENTS - 1)).unwrap().is_some());
    }

    /// In a database of before they lie among others.
    #[test]
    fn what_lies_among_others_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Rocks::open(folder.path(), "state", &DiskOptions::without_wal()).unwrap();
        let mut batch = Batch::new();
        (0..9).for_each(|number| batch.put(key(number), value(number)));
        disk.write(batch, Synced::Yes).unwrap();
        drop(disk);
        let disk = open(folder.path());
        for (to, left) in [(3, 6), (3, 6), (7, 2), (20, 0)] {
            let mut batch = Batch::new();
            batch.forget(key(0), key(to));
            disk.write(batch, Synced::No).unwrap();
            let found = disk
                .scan(&Range::prefix("e"), Order::Ascending, 20)
                .unwrap();
            assert_eq!(found.len(), left, "up to {to}");
        }
    }
}
