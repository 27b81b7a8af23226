//! The real disk of what is synced write by write, the Raft log: records in segments, and an index of them in memory.
//!
//! This is a log-structured hash table (Bitcask), with an ordered map in place of the hash table. A write is one record behind the last
//! and one sync; nothing is written twice, sorted or compacted, for what a Raft log holds is soon deleted again, oldest first. A segment
//! nothing lives in any more becomes the next one to be written. RocksDB, which held the log before and holds the state, writes each
//! entry a second time into a table and asks the file system for new blocks at every sync.
//!
//! What a crash tore is told from what the disk has damaged ([`record`]); the one is taken back, the other refused. After a write that
//! failed nothing is written any more, for what is on the disk is not known.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use bytes::Bytes;

mod migrate;
mod record;
mod segment;
#[cfg(test)]
mod tests;

use record::{Image, Within, checksum};
use segment::{SEGMENT_BYTES, Segment, Spare};

use crate::directory::sync_folder;
use crate::disk::{
    Batch, Disk, DiskError, Operation, Order, Pair, Pairs, Range, Reader, Statistics, Synced,
};

/// Values up to this are kept in memory.
const SMALL_BYTES: usize = 64;
/// The oldest segments with no more than this alive together are emptied, by writing that again.
const CARRIED_BYTES: u64 = SEGMENT_BYTES / 16;
/// Files kept for the next segments.
const SPARES: usize = 2;
/// What a copy writes at once.
const COPIED_AT_ONCE: usize = 4 << 20;

/// An open log.
pub(crate) struct Journal {
    folder: PathBuf,
    index: RwLock<Index>,
    writer: Mutex<Writer>,
    spares: Arc<Spares>,
    filler: Mutex<Option<JoinHandle<()>>>,
    syncs: AtomicU64,
    record_bytes: AtomicU64,
    batch_bytes: AtomicU64,
    keys: AtomicU64,
}

/// What lives, and where.
#[derive(Default, Clone)]
struct Index {
    values: BTreeMap<Bytes, Stored>,
    /// How much of each segment lives. One that is not here is empty.
    alive: BTreeMap<u64, Alive>,
}

#[derive(Default, Clone, Copy)]
struct Alive {
    keys: u64,
    bytes: u64,
}

#[derive(Clone)]
struct Stored {
    segment: Arc<Segment>,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Here(Bytes),
    There {
        record: u64,
        within: Within,
        sum: u32,
    },
}

struct Writer {
    /// Oldest first; the last is being written.
    segments: VecDeque<Arc<Segment>>,
    /// Where its next record goes.
    at: u64,
    /// The next record's.
    sequence: u64,
    /// Up to which all is synced.
    durable: u64,
    image: Image,
    failed: bool,
}

#[derive(Default)]
struct Spares {
    ready: Mutex<Vec<Spare>>,
    stop: AtomicBool,
}

impl Journal {
    pub(crate) fn open(parent: &Path, name: &str) -> Result<Self, DiskError> {
        let folder = parent.join(name);
        fs::create_dir_all(&folder).map_err(|error| segment::failed("creating", &folder, error))?;
        sync_folder(parent)?;
        migrate::from_rocks(parent, name)?;
        let mut ready = Spare::all(&folder)?;
        let mut index = Index::default();
        let mut sequence = None;
        let mut at = 0;
        let mut content = Vec::new();
        let mut segments: VecDeque<Arc<Segment>> =
            Segment::all(&folder)?.into_iter().map(Arc::new).collect();
        for (place, segment) in segments.iter().enumerate() {
            let next = segments.get(place + 1);
            at = segment.recover(
                &mut content,
                next.is_none(),
                &mut sequence,
                |record, operations| {
                    for (operation, within) in &operations {
                        index.publish(segment, record, operation, *within);
                    }
                },
            )?;
            if let Some(next) = next
                && next.number != segment.number + 1
            {
                return Err(DiskError::corrupt(
                    format!("opening {}", folder.display()),
                    format!("segment {} is missing", segment.number + 1),
                ));
            }
        }
        match segments.back() {
            // What a process wrote and did not sync is there after its end, but not yet on the disk.
            Some(last) => last.sync()?,
            None => {
                let spare = match ready.pop() {
                    Some(spare) => Some(spare),
                    None => Spare::fill(&folder, true, || false)?,
                };
                let first = spare.map_or_else(
                    || Segment::create(&folder, 1, SEGMENT_BYTES),
                    |spare| Segment::reuse(&folder, 1, &spare),
                )?;
                segments.push_back(Arc::new(first));
            }
        }
        let sequence = sequence.unwrap_or(1);
        let journal = Self {
            folder,
            index: RwLock::new(index),
            writer: Mutex::new(Writer {
                segments,
                at,
                sequence,
                durable: sequence,
                image: Image::default(),
                failed: false,
            }),
            spares: Arc::new(Spares {
                ready: Mutex::new(ready),
                stop: AtomicBool::new(false),
            }),
            filler: Mutex::new(None),
            syncs: AtomicU64::new(0),
            record_bytes: AtomicU64::new(0),
            batch_bytes: AtomicU64::new(0),
            keys: AtomicU64::new(0),
        };
        journal.fill_spare();
        Ok(journal)
    }

    fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        // A panic under a lock leaves at worst a count wrong in a server that is going down.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, DiskError> {
        let writer = lock(&self.writer);
        if writer.failed {
            return Err(DiskError::Closed {
                what: format!("{}, since a write failed", self.folder.display()),
            });
        }
        Ok(writer)
    }

    /// Has a file made for the next segment, while nobody waits for it.
    fn fill_spare(&self) {
        let mut filler = lock(&self.filler);
        let filling = filler.as_ref().is_some_and(|filler| !filler.is_finished());
        if filling || !lock(&self.spares.ready).is_empty() {
            return;
        }
        let (spares, folder) = (self.spares.clone(), self.folder.clone());
        let fill = move || {
            let stop = || spares.stop.load(Ordering::Relaxed) || !lock(&spares.ready).is_empty();
            match Spare::fill(&folder, false, stop) {
                Ok(spare) => lock(&spares.ready).extend(spare),
                // The next segment grows as it is written, if there is room.
                Err(error) => tracing::warn!(%error, "no file is ready for the next segment"),
            }
        };
        let thread = std::thread::Builder::new().name("log-fill".to_owned());
        *filler = thread.spawn(fill).ok();
    }

    /// Writes a record behind the last.
    fn append(&self, writer: &mut Writer, batch: &Batch) -> Result<(), DiskError> {
        let len = record::len(batch) as u64;
        if writer.at > 0 && writer.at + len > writer.current().len {
            self.roll(writer, len)?;
        }
        let segment = writer.current().clone();
        let (at, sequence, durable) = (writer.at, writer.sequence, writer.durable);
        let image = &mut writer.image;
        let (record, places) = image.record(&segment.stamps, sequence, durable, batch);
        segment.write(record, at)?;
        writer.at += len;
        writer.sequence += 1;
        self.record_bytes.fetch_add(len, Ordering::Relaxed);
        let mut index = self.change_index();
        for (operation, within) in batch.operations().iter().zip(places) {
            index.publish(&segment, at, operation, within);
        }
        Ok(())
    }

    /// Goes on in another file.
    fn roll(&self, writer: &mut Writer, len: u64) -> Result<(), DiskError> {
        // Only in the last segment may anything be torn.
        self.sync(writer)?;
        let number = writer.current().number + 1;
        let spare = if len <= SEGMENT_BYTES {
            lock(&self.spares.ready).pop()
        } else {
            None
        };
        let next = match spare {
            Some(spare) => Segment::reuse(&self.folder, number, &spare)?,
            None => Segment::create(&self.folder, number, len.max(SEGMENT_BYTES))?,
        };
        writer.segments.push_back(Arc::new(next));
        writer.at = 0;
        Ok(())
    }

    fn sync(&self, writer: &mut Writer) -> Result<(), DiskError> {
        if writer.durable < writer.sequence {
            writer.current().sync()?;
            writer.durable = writer.sequence;
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives up the oldest segments in which nothing lives.
    fn retire(&self, writer: &mut Writer) -> Result<(), DiskError> {
        loop {
            let Some(oldest) = writer.segments.front() else {
                return Ok(());
            };
            if writer.segments.len() == 1 || self.read_index().alive.contains_key(&oldest.number) {
                return Ok(());
            }
            // Not before what deleted it is on the disk.
            self.sync(writer)?;
            if let Some(oldest) = writer.segments.pop_front() {
                let mut ready = lock(&self.spares.ready);
                // Whoever reads of it still must find what it was.
                let keep = Arc::strong_count(&oldest) == 1 && ready.len() < SPARES;
                ready.extend(oldest.retire(keep)?);
            }
        }
    }

    /// Writes again what lives in the oldest segments, where it is little.
    fn carry(&self, writer: &mut Writer) -> Result<(), DiskError> {
        let mut carried = Batch::new();
        {
            let index = self.read_index();
            let mut bytes = 0;
            let old = writer.segments.iter().take(writer.segments.len() - 1);
            let little = old.map(|segment| segment.number).take_while(|number| {
                bytes += index.alive.get(number).map_or(0, |alive| alive.bytes);
                bytes <= CARRIED_BYTES
            });
            let Some(last) = little.last() else {
                return Ok(());
            };
            for (key, stored) in &index.values {
                if stored.segment.number <= last {
                    carried.put(key.clone(), stored.read(&self.folder, key)?);
                }
            }
        }
        let room = writer.current().len - writer.at;
        if !carried.is_empty() && record::len(&carried) as u64 <= room {
            self.append(writer, &carried)?;
        }
        Ok(())
    }

    fn write_in_turn(
        &self,
        writer: &mut Writer,
        batch: &Batch,
        synced: Synced,
    ) -> Result<(), DiskError> {
        let before = writer.current().number;
        if !batch.is_empty() {
            self.append(writer, batch)?;
        }
        let rolled = writer.current().number != before;
        // Where much has gone at once, what little is left would hold files that the next start reads.
        let is_range = |operation: &Operation| matches!(operation, Operation::DeleteRange { .. });
        if rolled || batch.operations().iter().any(is_range) {
            self.carry(writer)?;
        }
        if synced == Synced::Yes {
            self.sync(writer)?;
        }
        self.retire(writer)?;
        if rolled {
            self.fill_spare();
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    fn current(&self) -> &Arc<Segment> {
        // There is one from the start on, and the last is never retired.
        &self.segments[self.segments.len() - 1]
    }
}

impl Index {
    fn publish(
        &mut self,
        segment: &Arc<Segment>,
        record: u64,
        operation: &Operation,
        within: Within,
    ) {
        match operation {
            Operation::Put { key, value } => {
                let value = if value.len() <= SMALL_BYTES {
                    Value::Here(Bytes::copy_from_slice(value))
                } else {
                    let sum = checksum(&[value]);
                    Value::There {
                        record,
                        within,
                        sum,
                    }
                };
                let alive = self.alive.entry(segment.number).or_default();
                alive.keys += 1;
                alive.bytes += (key.len() + within.len) as u64;
                let stored = Stored {
                    segment: segment.clone(),
                    value,
                };
                // A slice of a record would keep all of it in memory.
                let kept = Bytes::copy_from_slice(key);
                if let Some(before) = self.values.insert(kept, stored) {
                    self.forget(key, &before);
                }
            }
            Operation::Delete { key } => {
                if let Some(before) = self.values.remove(key) {
                    self.forget(key, &before);
                }
            }
            Operation::DeleteRange { from, to } | Operation::Forget { from, to } => {
                let gone = self.range(&Range::new(from.as_ref(), to.as_ref()));
                for (key, before) in gone {
                    self.values.remove(&key);
                    self.forget(&key, &before);
                }
            }
        }
    }

    fn forget(&mut self, key: &[u8], stored: &Stored) {
        let number = stored.segment.number;
        if let Some(alive) = self.alive.get_mut(&number) {
            alive.keys -= 1;
            alive.bytes -= (key.len() + stored.value.len()) as u64;
            if alive.keys == 0 {
                self.alive.remove(&number);
            }
        }
    }

    /// Where the values of a range are.
    fn range(&self, range: &Range) -> Vec<(Bytes, Stored)> {
        let to = range.to.as_deref();
        if to.is_some_and(|to| to <= range.from.as_slice()) {
            return Vec::new();
        }
        let bounds = (
            Bound::Included(range.from.as_slice()),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let values = self.values.range::<[u8], _>(bounds);
        values
            .map(|(key, stored)| (key.clone(), stored.clone()))
            .collect()
    }
}

impl Value {
    fn len(&self) -> usize {
        match self {
            Self::Here(value) => value.len(),
            Self::There { within, .. } => within.len,
        }
    }
}

impl Stored {
    fn read(&self, folder: &Path, key: &[u8]) -> Result<Bytes, DiskError> {
        match &self.value {
            Value::Here(value) => Ok(value.clone()),
            Value::There {
                record,
                within,
                sum,
            } => {
                let value = self.segment.read(*record, *within)?;
                if checksum(&[&value]) != *sum {
                    return Err(DiskError::corrupt(
                        format!("reading key {} of {}", key.escape_ascii(), folder.display()),
                        format!(
                            "{}: the record at byte {record} is damaged",
                            self.segment.path.display()
                        ),
                    ));
                }
                Ok(value.into())
            }
        }
    }
}

fn get(index: &Index, folder: &Path, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
    let stored = index.values.get(key);
    stored.map(|stored| stored.read(folder, key)).transpose()
}

fn pairs(index: &Index, folder: &Path, range: &Range, order: Order) -> Pairs<'static> {
    let mut places = index.range(range);
    if order == Order::Descending {
        places.reverse();
    }
    let folder = folder.to_owned();
    let read = move |(key, stored): (Bytes, Stored)| -> Result<Pair, DiskError> {
        let value = stored.read(&folder, &key)?;
        Ok((key, value))
    };
    Box::new(places.into_iter().map(read))
}

impl Reader for Journal {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        get(&self.read_index(), &self.folder, key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        let index = self.read_index();
        let values = keys.iter().map(|key| get(&index, &self.folder, key));
        values.collect()
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        Ok(pairs(&self.read_index(), &self.folder, range, order))
    }
}

/// The log as it was at one moment.
struct View {
    index: Index,
    folder: PathBuf,
}

impl Reader for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        get(&self.index, &self.folder, key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        let values = keys.iter().map(|key| self.get(key));
        values.collect()
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        Ok(pairs(&self.index, &self.folder, range, order))
    }
}

impl Disk for Journal {
    fn view(&self) -> Result<Box<dyn Reader>, DiskError> {
        Ok(Box::new(View {
            index: self.read_index().clone(),
            folder: self.folder.clone(),
        }))
    }

    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        let mut writer = self.writer()?;
        let written = self.write_in_turn(&mut writer, &batch, synced);
        writer.failed = written.is_err();
        self.batch_bytes
            .fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        self.keys
            .fetch_add(batch.operations().len() as u64, Ordering::Relaxed);
        written
    }

    /// Each write goes to the file system.
    fn takes_at_once(&self) -> bool {
        false
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.write(Batch::new(), Synced::Yes)
    }

    fn checkpoint(&self, into: &str) -> Result<(), DiskError> {
        let parent = self.folder.parent().unwrap_or(Path::new("."));
        let copy = parent.join(into);
        fs::create_dir(&copy).map_err(|error| segment::failed("creating", &copy, error))?;
        let copy = Self::open(parent, into)?;
        let view = self.view()?;
        let mut batch = Batch::new();
        for pair in view.iterate(&Range::all(), Order::Ascending)? {
            let (key, value) = pair?;
            batch.put(key, value);
            if batch.bytes() > COPIED_AT_ONCE {
                copy.write(std::mem::take(&mut batch), Synced::No)?;
            }
        }
        copy.write(batch, Synced::Yes)
    }

    fn statistics(&self) -> Statistics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            wal_syncs: count(&self.syncs),
            wal_bytes: count(&self.record_bytes),
            written_bytes: count(&self.batch_bytes),
            keys_written: count(&self.keys),
            flush_bytes: 0,
            compaction_bytes: 0,
        }
    }

    fn size(&self) -> Result<u64, DiskError> {
        let segments = lock(&self.writer)
            .segments
            .iter()
            .map(|one| one.len)
            .sum::<u64>();
        let spares = lock(&self.spares.ready).len() as u64;
        Ok(segments + spares * SEGMENT_BYTES)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.spares.stop.store(true, Ordering::Relaxed);
        // The folder may be removed next.
        if let Some(filler) = lock(&self.filler).take() {
            filler.thread().unpark();
            drop(filler.join());
        }
    }
}
