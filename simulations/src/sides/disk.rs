//! A server's disk: ordered maps that, after a crash, come back with a random prefix of the batches written, at least up to the last sync.
//!
//! A database is its newest version, and what undoes the batches since the last sync; a persistent map, so that a view of it costs
//! nothing. A crash cuts all handles for good: what a dead server still tries to write goes nowhere.

use super::Chance;
use bytes::Bytes;
use imbl::OrdMap;
use seams::{
    Batch, Directory, Disk, DiskError, DiskOptions, FileInfo, Operation, Order, Pairs, Range,
    Reader, Room, Statistics, Synced,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Batches that a crash may undo; older ones count as having reached the disk by themselves, as a page cache's do.
const UNSYNCED_MAX: usize = 2_048;
/// A server's own database, before it is rebuilt from another's.
const STATE: &str = "state";
/// A checkpoint is one file of this name.
const FILE: &str = "content";
/// What a disk holds that nobody else fills.
pub const EMPTY: Room = Room {
    total: 1 << 40,
    free: 1 << 39,
};

type Map = OrdMap<Bytes, Bytes>;

/// What goes wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Syncs that fail, in a million.
    pub sync_fails: u64,
    /// Writes that fail, in a million: nothing of them is done.
    pub write_fails: u64,
    /// Reads that find a wrong checksum, in a million.
    pub reads_corrupt: u64,
    /// Writes and syncs of files that fail, in a million: of the pointers nothing is written, of a database that is being put together half.
    pub files_fail: u64,
    /// Pieces of files that are read with a wrong bit, in a million.
    pub pieces_wrong: u64,
    /// No room is left for anything.
    pub full: bool,
    /// A planted bug: synced writes are not synced.
    pub skips_sync: bool,
    /// A planted bug: of some events no record is written.
    pub skips_events: bool,
}

/// What went wrong with a disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    pub failed_syncs: u64,
    pub failed_writes: u64,
    pub corrupt_reads: u64,
    pub failed_files: u64,
    pub wrong_pieces: u64,
    /// Writes for which there was no room.
    pub full_writes: u64,
    /// By crashes.
    pub lost_batches: u64,
}

/// One server's disk, through all its lives.
#[derive(Clone)]
pub struct SimDisks(Arc<Mutex<Content>>);

struct Content {
    chance: Chance,
    faults: DiskFaults,
    room: Room,
    /// Grows with each crash: handles of an earlier life are cut.
    life: u64,
    files: BTreeMap<String, Vec<u8>>,
    databases: BTreeMap<String, Database>,
    /// Databases that are being put together file by file.
    parts: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Whoever checks the run is reading, and not the server.
    hushed: bool,
    counts: DiskCounts,
}

#[derive(Clone, Default)]
struct Database {
    current: Map,
    /// What undoes each batch since the last sync, oldest first.
    unsynced: VecDeque<Undo>,
    statistics: Statistics,
    /// As a file, since it was last asked for: a snapshot is read piece by piece.
    packed: Option<Bytes>,
}

/// Keys and what they held before, in the order in which they were written.
type Undo = Vec<(Bytes, Option<Bytes>)>;

impl Database {
    /// What was synced, and nothing else.
    fn of(current: Map) -> Self {
        Self {
            current,
            ..Self::default()
        }
    }

    /// What it is as a file.
    fn packed(&mut self) -> Bytes {
        let packed = self.packed.get_or_insert_with(|| pack(&self.current));
        packed.clone()
    }

    fn write(&mut self, batch: Batch, skips: impl Fn(&[u8]) -> bool) {
        self.packed = None;
        let mut undo = Undo::with_capacity(batch.operations().len());
        for operation in batch.into_operations() {
            match operation {
                Operation::Put { key, .. } if skips(&key) => {}
                Operation::Put { key, value } => {
                    let before = self.current.insert(key.clone(), value);
                    undo.push((key, before));
                }
                Operation::Delete { key } => {
                    let before = self.current.remove(&key);
                    undo.push((key, before));
                }
                Operation::DeleteRange { from, to } | Operation::Forget { from, to } => {
                    let gone = self.current.range(from..to);
                    let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
                    for key in gone {
                        let before = self.current.remove(&key);
                        undo.push((key, before));
                    }
                }
            }
        }
        self.unsynced.push_back(undo);
        if self.unsynced.len() > UNSYNCED_MAX {
            self.unsynced.pop_front();
        }
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.statistics.wal_syncs += 1;
    }

    /// Undoes all but the first `kept` batches since the last sync.
    fn crash(&mut self, kept: usize) {
        self.packed = None;
        for undo in self.unsynced.drain(..).skip(kept).rev() {
            for (key, before) in undo.into_iter().rev() {
                match before {
                    Some(value) => self.current.insert(key, value),
                    None => self.current.remove(&key),
                };
            }
        }
    }
}

impl SimDisks {
    pub fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(Content {
            chance,
            faults: DiskFaults::default(),
            room: EMPTY,
            life: 0,
            files: BTreeMap::new(),
            databases: BTreeMap::new(),
            parts: BTreeMap::new(),
            hushed: false,
            counts: DiskCounts::default(),
        })))
    }

    /// Others fill it, or make room.
    pub fn set_room(&self, room: Room) {
        self.lock().room = room;
    }

    pub fn set_faults(&self, faults: DiskFaults) {
        self.lock().faults = faults;
    }

    pub fn faults(&self) -> DiskFaults {
        self.lock().faults
    }

    /// How much has come of databases that are being put together file by file.
    pub fn received_bytes(&self) -> usize {
        let content = self.lock();
        let files = content.parts.values().flat_map(BTreeMap::values);
        files.map(Vec::len).sum()
    }

    pub fn counts(&self) -> DiskCounts {
        self.lock().counts
    }

    /// Reads are not what a server asked for, and find no fault.
    pub fn hush(&self, hushed: bool) {
        self.lock().hushed = hushed;
    }

    /// The machine dies: handles are cut, and each database keeps a prefix of its batches.
    pub fn crash(&self) {
        let mut content = self.lock();
        content.life += 1;
        let chance = content.chance.clone();
        let mut lost = 0;
        for database in content.databases.values_mut() {
            let written = database.unsynced.len() as u64;
            let kept = chance.below(written + 1);
            lost += written - kept;
            database.crash(kept as usize);
        }
        content.counts.lost_batches += lost;
        // What was being received was never synced.
        content.parts.clear();
    }

    /// The directory as one life of the server sees it.
    pub fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(SimDirectory {
            disks: self.clone(),
            life: self.lock().life,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self, life: u64, what: &str) -> Result<MutexGuard<'_, Content>, DiskError> {
        let content = self.lock();
        if content.life == life {
            Ok(content)
        } else {
            Err(DiskError::Closed {
                what: what.to_owned(),
            })
        }
    }
}

struct SimDirectory {
    disks: SimDisks,
    life: u64,
}

impl SimDirectory {
    fn content(&self, what: &str) -> Result<MutexGuard<'_, Content>, DiskError> {
        self.disks.alive(self.life, what)
    }
}

impl Content {
    /// Whether there is room to write.
    fn room_for(&mut self, what: &str) -> Result<(), DiskError> {
        if !self.faults.full {
            return Ok(());
        }
        self.counts.full_writes += 1;
        Err(DiskError::Full {
            what: what.to_owned(),
        })
    }

    /// Whether this write or sync of a file is one of those that fail.
    fn file_fails(&mut self) -> bool {
        let fails = self.faults.files_fail;
        let fails = fails > 0 && self.chance.happens(fails);
        self.counts.failed_files += u64::from(fails);
        fails
    }

    /// What was read of a file, or nearly.
    fn piece(&mut self, bytes: Bytes) -> Bytes {
        let wrong = self.faults.pieces_wrong;
        if wrong == 0 || bytes.is_empty() || !self.chance.happens(wrong) {
            return bytes;
        }
        self.counts.wrong_pieces += 1;
        let mut bytes = bytes.to_vec();
        let at = self.chance.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.chance.below(8);
        bytes.into()
    }
}

fn invalid(what: &str) -> DiskError {
    DiskError::io(what, std::io::Error::from(std::io::ErrorKind::InvalidInput))
}

fn failed(doing: String) -> DiskError {
    DiskError::io(doing, std::io::Error::other("as the simulation wants"))
}

impl Directory for SimDirectory {
    fn open(&self, name: &str, _options: &DiskOptions) -> Result<Arc<dyn Disk>, DiskError> {
        let mut content = self.content(name)?;
        if let Some(parts) = content.parts.remove(name) {
            let map = parts
                .get(FILE)
                .map_or_else(|| Err(invalid(name)), |bytes| unpack(name, bytes))?;
            content.databases.insert(name.to_owned(), Database::of(map));
        }
        content.databases.entry(name.to_owned()).or_default();
        Ok(Arc::new(SimDisk {
            disks: self.disks.clone(),
            life: self.life,
            name: name.to_owned(),
        }))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        let content = self.content(name)?;
        Ok(content.databases.contains_key(name) || content.parts.contains_key(name))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut content = self.content(name)?;
        content.databases.remove(name);
        content.parts.remove(name);
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let content = self.content("list")?;
        let mut names: Vec<_> = content
            .databases
            .keys()
            .chain(content.parts.keys())
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.content(name)?.files.get(name).cloned())
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let mut content = self.content(name)?;
        content.room_for(name)?;
        if content.file_fails() {
            return Err(failed(format!("writing {name}")));
        }
        content.files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn room(&self) -> Result<Room, DiskError> {
        Ok(self.content("room")?.room)
    }

    fn files(&self, name: &str) -> Result<Vec<FileInfo>, DiskError> {
        let mut content = self.content(name)?;
        if let Some(parts) = content.parts.get(name) {
            return Ok(parts
                .iter()
                .map(|(name, bytes)| FileInfo {
                    name: name.clone(),
                    len: bytes.len() as u64,
                })
                .collect());
        }
        let database = content.databases.get_mut(name);
        Ok(vec![FileInfo {
            name: FILE.to_owned(),
            len: database.ok_or_else(|| invalid(name))?.packed().len() as u64,
        }])
    }

    fn read_at(&self, name: &str, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let mut content = self.content(name)?;
        let within = |bytes: &[u8]| {
            let from = (offset as usize).min(bytes.len());
            from..from.saturating_add(len).min(bytes.len())
        };
        if let Some(parts) = content.parts.get(name) {
            let bytes = parts.get(file).ok_or_else(|| invalid(file))?;
            let piece = Bytes::copy_from_slice(&bytes[within(bytes)]);
            return Ok(content.piece(piece));
        }
        let database = content.databases.get_mut(name);
        let bytes = database.ok_or_else(|| invalid(name))?.packed();
        let piece = bytes.slice(within(&bytes));
        Ok(content.piece(piece))
    }

    fn verify(&self, name: &str) -> Result<(), DiskError> {
        let mut content = self.content(name)?;
        let database = content.databases.get_mut(name);
        let bytes = database.ok_or_else(|| invalid(name))?.packed();
        unpack(name, &bytes).map(drop)
    }

    fn append_at(
        &self,
        name: &str,
        file: &str,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let mut content = self.content(name)?;
        content.room_for(name)?;
        let fails = content.file_fails();
        let part = content
            .parts
            .entry(name.to_owned())
            .or_default()
            .entry(file.to_owned())
            .or_default();
        if offset == 0 {
            part.clear();
        }
        if offset != part.len() as u64 {
            return Err(invalid(file));
        }
        if fails {
            part.extend_from_slice(&bytes[..bytes.len() / 2]);
            return Err(failed(format!("appending to {name}/{file}")));
        }
        part.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        let mut content = self.content(name)?;
        if content.file_fails() {
            return Err(failed(format!("syncing {name}")));
        }
        // Once it is whole it survives as a database does.
        let parts = content.parts.get(name);
        if let Some(bytes) = parts.and_then(|parts| parts.get(FILE))
            && let Ok(map) = unpack(name, bytes)
        {
            content.parts.remove(name);
            content.databases.insert(name.to_owned(), Database::of(map));
        }
        Ok(())
    }
}

struct SimDisk {
    disks: SimDisks,
    life: u64,
    name: String,
}

impl SimDisk {
    fn map(&self) -> Result<Map, DiskError> {
        let mut content = self.disks.alive(self.life, &self.name)?;
        let corrupt = content.faults.reads_corrupt;
        if corrupt > 0 && !content.hushed && content.chance.happens(corrupt) {
            content.counts.corrupt_reads += 1;
            return Err(DiskError::corrupt(&self.name, "as the simulation wants"));
        }
        content
            .databases
            .get(&self.name)
            .map(|database| database.current.clone())
            .ok_or_else(|| invalid(&self.name))
    }

    fn sync(&self, content: &mut Content) -> Result<(), DiskError> {
        let faults = content.faults;
        if faults.sync_fails > 0 && content.chance.happens(faults.sync_fails) {
            content.counts.failed_syncs += 1;
            return Err(failed(format!("syncing {}", self.name)));
        }
        if !faults.skips_sync
            && let Some(database) = content.databases.get_mut(&self.name)
        {
            database.sync();
        }
        Ok(())
    }
}

impl Reader for SimDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        Ok(self.map()?.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        View(self.map()?).multi_get(keys)
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        Ok(pairs(self.map()?, range, order))
    }
}

impl Disk for SimDisk {
    fn view(&self) -> Result<Box<dyn Reader>, DiskError> {
        Ok(Box::new(View(self.map()?)))
    }

    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        let mut content = self.disks.alive(self.life, &self.name)?;
        let faults = content.faults;
        content.room_for(&self.name)?;
        if faults.write_fails > 0 && content.chance.happens(faults.write_fails) {
            content.counts.failed_writes += 1;
            return Err(failed(format!("writing {}", self.name)));
        }
        let database = content
            .databases
            .get_mut(&self.name)
            .ok_or_else(|| invalid(&self.name))?;
        database.statistics.written_bytes += batch.bytes() as u64;
        database.statistics.keys_written += batch.operations().len() as u64;
        let skips = faults.skips_events && self.name.starts_with(STATE);
        database.write(batch, |key| skips && is_skipped_event(key));
        match synced {
            Synced::Yes => self.sync(&mut content),
            Synced::No => Ok(()),
        }
    }

    /// What a slow disk holds up is the server's jobs ([`super::SimRuntime`]).
    fn takes_at_once(&self) -> bool {
        true
    }

    fn flush(&self) -> Result<(), DiskError> {
        let mut content = self.disks.alive(self.life, &self.name)?;
        content.room_for(&self.name)?;
        self.sync(&mut content)
    }

    fn checkpoint(&self, into: &str) -> Result<(), DiskError> {
        let map = self.map()?;
        let mut content = self.disks.alive(self.life, &self.name)?;
        content.room_for(into)?;
        if content.databases.contains_key(into) || content.parts.contains_key(into) {
            return Err(DiskError::io(
                into,
                std::io::Error::from(std::io::ErrorKind::AlreadyExists),
            ));
        }
        content.databases.insert(into.to_owned(), Database::of(map));
        Ok(())
    }

    fn statistics(&self) -> Statistics {
        let content = self.disks.lock();
        content
            .databases
            .get(&self.name)
            .map(|database| database.statistics)
            .unwrap_or_default()
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self
            .map()?
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum())
    }
}

/// A version that stands still.
struct View(Map);

impl Reader for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        Ok(self.0.get(key).cloned())
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        Ok(keys.iter().map(|key| self.0.get(*key).cloned()).collect())
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        Ok(pairs(self.0.clone(), range, order))
    }
}

/// Pairs of a range, a few at a time, from a version that stands still.
fn pairs(map: Map, range: &Range, order: Order) -> Pairs<'static> {
    let (mut from, mut to) = (
        Bytes::from(range.from.clone()),
        range.to.clone().map(Bytes::from),
    );
    let mut done = to.as_ref().is_some_and(|to| *to <= from);
    Box::new(std::iter::from_fn(move || {
        if done {
            return None;
        }
        let next = match (&to, order) {
            (Some(to), Order::Ascending) => map.range(from.clone()..to.clone()).next(),
            (None, Order::Ascending) => map.range(from.clone()..).next(),
            (Some(to), Order::Descending) => map.range(from.clone()..to.clone()).next_back(),
            (None, Order::Descending) => map.range(from.clone()..).next_back(),
        };
        let (key, value) = next.map(|(key, value)| (key.clone(), value.clone()))?;
        match order {
            Order::Ascending => {
                // The next key in order: this one and a zero byte.
                let mut after = key.to_vec();
                after.push(0);
                from = after.into();
                done = to.as_ref().is_some_and(|to| *to <= from);
            }
            Order::Descending => {
                to = Some(key.clone());
                done = key <= from;
            }
        }
        Some(Ok((key, value)))
    }))
}

/// One of an event whose revision ends in two zeros: the letter `e` and the revision (`eventstore_disk`'s layout).
fn is_skipped_event(key: &[u8]) -> bool {
    let revision = key
        .strip_prefix(b"e")
        .and_then(|rest| rest.try_into().ok().map(u64::from_be_bytes));
    revision.is_some_and(|revision| revision > 0 && revision.is_multiple_of(100))
}

/// Lengths and bytes, one pair after another, and a sum behind them.
fn pack(map: &Map) -> Bytes {
    let pairs = map.iter();
    let pairs: usize = pairs.map(|(key, value)| 8 + key.len() + value.len()).sum();
    let mut bytes = Vec::with_capacity(pairs + SUM_BYTES);
    for (key, value) in map {
        for part in [key, value] {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(&sum(&bytes).to_le_bytes());
    bytes.into()
}

const SUM_BYTES: usize = 8;

/// FNV-1a: one wrong bit is noticed, as RocksDB's checksums would.
fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn unpack(name: &str, bytes: &[u8]) -> Result<Map, DiskError> {
    let Some((mut bytes, stored)) = bytes.split_last_chunk::<SUM_BYTES>() else {
        return Err(DiskError::corrupt(name, "it is cut short"));
    };
    if sum(bytes) != u64::from_le_bytes(*stored) {
        return Err(DiskError::corrupt(name, "its checksum is wrong"));
    }
    let mut part = || -> Option<Bytes> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        bytes = rest;
        Some(Bytes::copy_from_slice(part))
    };
    let mut map = Map::new();
    while let Some(key) = part() {
        let value = part().ok_or_else(|| DiskError::corrupt(name, "a value is missing"))?;
        map.insert(key, value);
    }
    if bytes.is_empty() {
        Ok(map)
    } else {
        Err(DiskError::corrupt(name, "it is cut short"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract() {
        let disks = SimDisks::new(Chance::new(1, 1));
        seams::contract::disk(&*disks.directory());
        seams::contract::directory(&*disks.directory());
    }

    #[test]
    fn a_crash_keeps_a_prefix_from_the_last_sync_on() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let disks = SimDisks::new(Chance::new(seed, 1));
            let disk = disks
                .directory()
                .open("d", &DiskOptions::with_wal())
                .unwrap();
            for number in 0..6_u8 {
                let mut batch = Batch::new();
                batch.put(vec![number], vec![number]);
                disk.write(batch, if number == 2 { Synced::Yes } else { Synced::No })
                    .unwrap();
            }
            disks.crash();
            assert!(matches!(disk.get(&[0]), Err(DiskError::Closed { .. })));
            let disk = disks
                .directory()
                .open("d", &DiskOptions::with_wal())
                .unwrap();
            let kept: Vec<_> = disk
                .scan(&Range::all(), Order::Ascending, 9)
                .unwrap()
                .into_iter()
                .map(|(key, _)| key[0])
                .collect();
            assert_eq!(kept, (0..kept.len() as u8).collect::<Vec<_>>(), "a prefix");
            assert!(kept.len() >= 3, "the sync covers the first three");
            seen.insert(kept.len());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
    }

    #[test]
    fn a_full_disk_takes_nothing_and_keeps_what_it_has() {
        let disks = SimDisks::new(Chance::new(1, 1));
        let directory = disks.directory();
        let open = || directory.open("d", &DiskOptions::with_wal()).unwrap();
        let write = |key: u8| {
            let mut batch = Batch::new();
            batch.put(vec![key], vec![key]);
            open().write(batch, Synced::Yes)
        };
        let full = |result: Result<(), DiskError>| matches!(result, Err(DiskError::Full { .. }));
        write(1).unwrap();
        directory.write_file("f", b"before").unwrap();
        disks.set_faults(DiskFaults {
            full: true,
            ..DiskFaults::default()
        });
        assert!(full(write(2)));
        assert!(full(open().flush()));
        assert!(full(open().checkpoint("c")));
        assert!(full(directory.write_file("f", b"after")));
        assert!(full(directory.append_at("p", FILE, 0, b"piece")));
        assert_eq!(disks.counts().full_writes, 5);
        disks.crash();
        disks.set_faults(DiskFaults::default());
        let directory = disks.directory();
        let disk = directory.open("d", &DiskOptions::with_wal()).unwrap();
        assert_eq!(
            disk.scan(&Range::all(), Order::Ascending, 9).unwrap().len(),
            1
        );
        assert_eq!(directory.read_file("f").unwrap().unwrap(), b"before");
        assert!(!directory.exists("p").unwrap());
    }

    #[test]
    fn a_wrong_bit_of_a_file_that_was_read_is_noticed() {
        let disks = SimDisks::new(Chance::new(1, 1));
        let directory = disks.directory();
        let disk = directory.open("d", &DiskOptions::with_wal()).unwrap();
        let mut batch = Batch::new();
        batch.put(&b"key"[..], &b"value"[..]);
        disk.write(batch, Synced::Yes).unwrap();
        for (pieces_wrong, fine) in [(0, true), (1_000_000, false)] {
            disks.set_faults(DiskFaults {
                pieces_wrong,
                ..DiskFaults::default()
            });
            let piece = directory.read_at("d", FILE, 0, usize::MAX).unwrap();
            directory.append_at("copy", FILE, 0, &piece).unwrap();
            directory.sync("copy").unwrap();
            let opened = directory.open("copy", &DiskOptions::with_wal());
            assert_eq!(opened.is_ok(), fine);
            directory.remove("copy").unwrap();
        }
        assert_eq!(disks.counts().wrong_pieces, 1);
    }

    #[test]
    fn a_crash_undoes_whatever_was_written() {
        let contents = |disk: &dyn Disk| disk.scan(&Range::all(), Order::Ascending, 99).unwrap();
        for seed in 0..50 {
            let chance = Chance::new(seed, 7);
            let disks = SimDisks::new(Chance::new(seed, 1));
            let open = || disks.directory().open("d", &DiskOptions::with_wal());
            let disk = open().unwrap();
            // What may come back: the contents at the last sync, and after each batch since.
            let mut versions = vec![contents(&*disk)];
            for _ in 0..20 {
                let mut batch = Batch::new();
                for _ in 0..=chance.below(3) {
                    let key = vec![chance.below(6) as u8];
                    match chance.below(4) {
                        0 => batch.delete(key),
                        1 => batch.delete_range(key, vec![5]),
                        _ => batch.put(key, vec![chance.below(200) as u8]),
                    }
                }
                let synced = chance.happens(200_000);
                let how = if synced { Synced::Yes } else { Synced::No };
                disk.write(batch, how).unwrap();
                if synced {
                    versions.clear();
                }
                versions.push(contents(&*disk));
            }
            disks.crash();
            let back = contents(&*open().unwrap());
            assert!(
                versions.contains(&back),
                "seed {seed}: {back:?} of {versions:?}"
            );
        }
    }
}
