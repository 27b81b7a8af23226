//! A folder with a store in it, and a disk that can fail and lie.

use crate::language::*;
use bytes::Bytes;
use eventstore::{Applied, Entry, Position, Proposal, Time};
use eventstore_disk::{Store, StoreConfig, StoreError};
use seams::{
    Batch, Directory, Disk, DiskError, DiskOptions, FileDirectory, FileInfo, Order, Pairs, Range,
    Reader, Room, Statistics, Synced,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// A store and where its log stands.
pub struct Kept {
    pub store: Store,
    pub term: u64,
    pub clock: Time,
}

impl Kept {
    /// Opens `state` in a directory, and founds the cluster if it is new.
    pub fn open(directory: &Arc<dyn Directory>, config: StoreConfig) -> Self {
        Self::named(directory, "state", config)
    }

    pub fn named(directory: &Arc<dyn Directory>, name: &str, config: StoreConfig) -> Self {
        let store = Store::open(directory.clone(), name, config).unwrap();
        let mut kept = Self {
            store,
            term: 1,
            clock: START,
        };
        if kept.store.view().level == 0 {
            kept.apply(vec![vec![found()]]);
        }
        kept
    }

    pub fn group(&self, entries: Vec<Vec<Proposal>>) -> Vec<(Position, Option<Entry>)> {
        let index = self.store.view().position.index;
        let position = |number: usize| Position {
            term: self.term,
            index: index + 1 + number as u64,
        };
        let entry = |(number, proposals)| {
            (
                position(number),
                Some(Entry {
                    clock: self.clock,
                    proposals,
                }),
            )
        };
        entries.into_iter().enumerate().map(entry).collect()
    }

    pub fn try_apply(&mut self, entries: Vec<Vec<Proposal>>) -> Result<Vec<Applied>, StoreError> {
        let group = self.group(entries);
        let metadata = format!(
            "as of {}",
            group.last().map_or(0, |(position, _)| position.index)
        );
        self.store.apply(group, metadata.as_bytes())
    }

    /// A group of entries.
    pub fn apply(&mut self, entries: Vec<Vec<Proposal>>) -> Vec<Applied> {
        self.try_apply(entries).unwrap()
    }

    /// One proposal, which must be accepted.
    pub fn take(&mut self, proposal: Proposal) -> u64 {
        let applied = self.apply(vec![vec![proposal]]);
        assert_eq!(applied[0].events.len(), 1, "{:?}", applied[0].outcomes);
        self.store.view().revision
    }
}

pub fn directory(path: &Path) -> Arc<dyn Directory> {
    Arc::new(FileDirectory::open(path).unwrap())
}

/// What the folder would be after a crash now: its files, as they are, without what is only in memory.
pub fn crash_image(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            crash_image(&entry.path(), &target);
        } else if entry.file_name() != "lock" && entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What is wrong with a disk.
#[derive(Default)]
pub struct Faults {
    pub full: AtomicBool,
    /// Flips the last bit of the value of each key that begins so, as it is read.
    pub flip: Mutex<Option<Vec<u8>>>,
    /// How many records were read, by the first letter of their keys. No fault.
    read: Mutex<BTreeMap<char, u64>>,
}

impl Faults {
    pub fn flip(&self, prefix: Option<&[u8]>) {
        *self.flip.lock().unwrap() = prefix.map(<[u8]>::to_vec);
    }

    /// What was read since this was asked last.
    pub fn take_read(&self) -> BTreeMap<char, u64> {
        std::mem::take(&mut self.read.lock().unwrap())
    }

    fn read(&self, key: &[u8], value: Bytes) -> Bytes {
        let letter = key.first().map_or(' ', |letter| char::from(*letter));
        *self.read.lock().unwrap().entry(letter).or_default() += 1;
        match &*self.flip.lock().unwrap() {
            Some(prefix) if key.starts_with(prefix) => {
                let mut value = value.to_vec();
                *value.last_mut().unwrap() ^= 1;
                value.into()
            }
            _ => value,
        }
    }
}

/// A directory whose databases have these faults; none yet.
pub fn faulty(path: &Path) -> (Arc<Faults>, Arc<dyn Directory>) {
    let faults = Arc::new(Faults::default());
    let directory = FaultyDirectory {
        inner: directory(path),
        faults: faults.clone(),
    };
    (faults, Arc::new(directory))
}

struct FaultyDirectory {
    inner: Arc<dyn Directory>,
    faults: Arc<Faults>,
}

struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Faults>,
}

impl Directory for FaultyDirectory {
    fn open(&self, name: &str, options: &DiskOptions) -> Result<Arc<dyn Disk>, DiskError> {
        Ok(Arc::new(FaultyDisk {
            inner: self.inner.open(name, options)?,
            faults: self.faults.clone(),
        }))
    }
    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.inner.exists(name)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.inner.remove(name)
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.inner.list()
    }
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        self.inner.read_file(name)
    }
    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), DiskError> {
        self.inner.write_file(name, content)
    }
    fn room(&self) -> Result<Room, DiskError> {
        self.inner.room()
    }
    fn files(&self, name: &str) -> Result<Vec<FileInfo>, DiskError> {
        self.inner.files(name)
    }
    fn read_at(&self, name: &str, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        self.inner.read_at(name, file, offset, len)
    }
    fn verify(&self, name: &str) -> Result<(), DiskError> {
        self.inner.verify(name)
    }
    fn append_at(
        &self,
        name: &str,
        file: &str,
        offset: u64,
        content: &[u8],
    ) -> Result<(), DiskError> {
        self.inner.append_at(name, file, offset, content)
    }
    fn sync(&self, name: &str) -> Result<(), DiskError> {
        self.inner.sync(name)
    }
}

impl Reader for FaultyDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        Ok(self
            .inner
            .get(key)?
            .map(|value| self.faults.read(key, value)))
    }
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        keys.iter().map(|key| self.get(key)).collect()
    }
    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        let pairs = self.inner.iterate(range, order)?;
        Ok(Box::new(pairs.map(|pair| {
            pair.map(|(key, value)| {
                let value = self.faults.read(&key, value);
                (key, value)
            })
        })))
    }
}

impl Disk for FaultyDisk {
    fn view(&self) -> Result<Box<dyn Reader>, DiskError> {
        self.inner.view()
    }
    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        if self.faults.full.load(SeqCst) {
            return Err(DiskError::Full {
                what: "writing to state".into(),
            });
        }
        self.inner.write(batch, synced)
    }
    fn takes_at_once(&self) -> bool {
        self.inner.takes_at_once()
    }
    fn flush(&self) -> Result<(), DiskError> {
        self.inner.flush()
    }
    fn checkpoint(&self, into: &str) -> Result<(), DiskError> {
        self.inner.checkpoint(into)
    }
    fn prefetch(&self, newest_bytes: u64) {
        self.inner.prefetch(newest_bytes);
    }
    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
    fn size(&self) -> Result<u64, DiskError> {
        self.inner.size()
    }
}
