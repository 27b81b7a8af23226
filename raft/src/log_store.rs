//! The Raft log, vote and purge point on a disk with a write-ahead log.
//!
//! Everything that is written goes through one queue to one thread, which takes all that waits, writes it as one batch
//! and syncs once: appends that come while a sync runs share the next one. That is also what keeps vote and log in the
//! order in which openraft asked for them. An append is readable at once, from memory, and is reported flushed when the
//! sync that covers it has returned; never before. After the first failed write nothing is written any more, for what is
//! on the disk is not known.
//!
//! An entry lies under `e` + index with a checksum over key and bytes. All are verified at the start, so that a damaged
//! log is found before this server answers with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use seams::{Batch, Damages, Disk, DiskError, Order, Range, Runtime, Synced, Worker};
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::codec::{self, FlatVote, entry_bytes};
use crate::durations::Durations;
use crate::types::{Entry, LogId, NodeId, Position, Types, Vote};
use stored::{
    AFTER_ENTRIES, COMMITTED_KEY, KNOWN_PREFIX, PURGED_KEY, VOTE_KEY, checked_entry, corrupt,
    entry_key, entry_value, gone_key, io_error, read_disk, read_gone,
};

#[cfg(test)]
mod damaged_files;
pub(crate) mod stored;
#[cfg(test)]
mod tests;

/// Entries kept in memory behind the last, for replication and apply to read without touching the disk.
const CACHE_BYTES_MAX: usize = 8 << 20;
/// What one batch and one sync may carry. A single write above it goes alone.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// What one message of entries to a follower may carry. The largest entry is 9 MiB and goes alone; both stay below
/// [`seams::MESSAGE_BYTES_MAX`].
const REPLICATION_BYTES_MAX: usize = 6 << 20;
/// What is read at once to be applied.
const APPLY_ENTRIES_MAX: u64 = 1_000;

/// What stays behind a snapshot: no more entries than this, and no more bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// The log; clones are handles on the same.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    kept: Arc<Kept>,
    /// Writes, in order.
    writer: Box<dyn Worker>,
    /// Reads of what is no longer in memory.
    reader: Box<dyn Worker>,
}

/// What the threads' jobs hold: not the threads, so that whoever drops the log waits for them, and never one of them for itself.
struct Kept {
    disk: Arc<dyn Disk>,
    log: Mutex<Log>,
    /// How long each write took that was synced.
    syncs: Durations,
    /// Why nothing is written any more. Told at once: of some writes nobody waits for the end.
    failed: watch::Sender<Option<String>>,
    /// What a read came upon.
    damages: Arc<Damages>,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    /// What the disk says of it is older.
    committed_moved: bool,
    /// The last entry, or what was purged where there is none.
    pub(crate) last: Option<LogId>,
    /// The index of the oldest entry, where there is one.
    first: u64,
    /// Members that have left.
    gone: BTreeSet<NodeId>,
    /// The newest entries: all above some index, in memory.
    cache: BTreeMap<u64, Entry>,
    cache_bytes: usize,
    /// For each entry above the purge point, the bytes of it and all before.
    bytes_up_to: VecDeque<u64>,
    bytes_purged: u64,
    queue: VecDeque<Write>,
    /// A job is running that empties the queue.
    writing: bool,
    /// The lowest index in the group that is being written.
    in_flight: Option<u64>,
}

struct Write {
    batch: Batch,
    synced: Synced,
    first_index: Option<u64>,
    done: Done,
}

enum Done {
    Append(IOFlushed<Types>),
    Wait(oneshot::Sender<io::Result<()>>),
    Nobody,
}

impl LogStore {
    /// Reads and verifies what is on the disk.
    pub(crate) fn open(disk: Arc<dyn Disk>, runtime: &dyn Runtime) -> io::Result<Self> {
        let thread = |name| runtime.worker(name).map_err(io::Error::other);
        let log = load(&*disk)?;
        let (writer, reader) = (thread("log-write")?, thread("log-read")?);
        let kept = Kept {
            disk,
            log: Mutex::new(log),
            syncs: Durations::default(),
            failed: watch::Sender::new(None),
            damages: Arc::default(),
        };
        let shared = Shared {
            kept: Arc::new(kept),
            writer,
            reader,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Whether it has ever held a vote or an entry.
    pub(crate) fn is_used(&self) -> bool {
        let log = self.shared.kept.lock();
        log.vote.is_some() || log.last.is_some()
    }

    /// What was last voted, durable before anyone was told.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared.kept.lock().vote
    }

    /// The disk's own counters.
    pub(crate) fn statistics(&self) -> seams::Statistics {
        self.shared.kept.disk.statistics()
    }

    /// Why nothing can be written any more, once something could not.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.kept.failed.subscribe()
    }

    /// What was found damaged since it was opened.
    pub(crate) fn damages(&self) -> &Arc<Damages> {
        &self.shared.kept.damages
    }

    /// How long synced writes took.
    pub(crate) fn syncs(&self) -> &Durations {
        &self.shared.kept.syncs
    }

    /// Up to where the log has been cut off below.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.shared.kept.lock().purged
    }

    /// Bytes of the entries behind this index.
    pub(crate) fn bytes_after(&self, index: Option<u64>) -> u64 {
        let log = self.shared.kept.lock();
        let total = log.bytes_up_to.back().copied().unwrap_or(log.bytes_purged);
        let upto = match index {
            Some(index) if index >= log.first => log
                .bytes_up_to
                .get((index - log.first) as usize)
                .copied()
                .unwrap_or(total),
            _ => log.bytes_purged,
        };
        total - upto
    }

    /// The last entry that may go when there is a snapshot up to this index. None: nothing has to.
    pub(crate) fn purgeable(&self, snapshot: u64, keep: Keep) -> Option<u64> {
        self.shared.kept.lock().purgeable(snapshot, keep)
    }

    /// Cuts it off as far as a snapshot up to this index allows.
    pub(crate) async fn shorten(&self, snapshot: u64, keep: Keep) -> io::Result<()> {
        let Some(upto) = self.purgeable(snapshot, keep) else {
            return Ok(());
        };
        let last = self.read(upto..=upto, usize::MAX).await?;
        match last.first() {
            Some(last) => self.clone().purge(last.log_id).await,
            None => Ok(()),
        }
    }

    /// Which disk each server was first seen with.
    pub(crate) fn known_disks(&self) -> io::Result<BTreeMap<NodeId, u64>> {
        stored::read_known(&*self.shared.kept.disk)
    }

    /// Whether it was a member, and has left or was left behind.
    pub(crate) fn is_gone(&self, id: NodeId) -> bool {
        self.shared.kept.lock().gone.contains(&id)
    }

    /// Remembers that a member has left.
    pub(crate) fn remember_gone(&self, id: NodeId) {
        if !self.shared.kept.lock().gone.insert(id) {
            return;
        }
        let mut batch = Batch::new();
        batch.put(gone_key(id), Vec::new());
        self.shared.enqueue(Write {
            batch,
            synced: Synced::Yes,
            first_index: None,
            done: Done::Nobody,
        });
    }

    /// Remembers that a server was seen with this disk; durable before anything that is queued later.
    pub(crate) fn remember_disk(&self, id: NodeId, disk: u64) {
        let mut batch = Batch::new();
        batch.put(
            [KNOWN_PREFIX, &codec::encode(&id)].concat(),
            codec::encode(&disk),
        );
        self.shared.enqueue(Write {
            batch,
            synced: Synced::Yes,
            first_index: None,
            done: Done::Nobody,
        });
    }

    /// Writes up to where the log is known to be committed, if nothing else is about to.
    pub(crate) fn write_committed(&self) {
        let waits = {
            let log = self.shared.kept.lock();
            log.committed_moved && !log.writing
        };
        if waits {
            self.shared.enqueue(Write {
                batch: Batch::new(),
                synced: Synced::No,
                first_index: None,
                done: Done::Nobody,
            });
        }
    }

    /// Waits until all that was queued before is on the disk.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        self.shared.written(Batch::new(), Synced::Yes).await
    }

    /// Entries of a range, bounded by bytes but one at least if there is any.
    async fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (from, to, mut cached) = {
            let log = self.shared.kept.lock();
            let end = log.last.map_or(0, |id| id.index + 1);
            let from = lower(&range).max(log.first);
            let to = upper(&range).min(end);
            if from >= to {
                return Ok(Vec::new());
            }
            let cached: Vec<Entry> = log
                .cache
                .range(from..to)
                .map(|(_, entry)| entry.clone())
                .collect();
            (from, to, cached)
        };
        let cached_from = cached.first().map_or(to, |entry| entry.log_id.index);
        let mut entries = Vec::new();
        if from < cached_from {
            let disk = self.shared.kept.disk.clone();
            let read = move || read_disk(&*disk, from, cached_from, bytes_max);
            let read = seams::run(&*self.shared.reader, read)
                .await
                .map_err(io::Error::other)?;
            entries = read.inspect_err(|error| {
                if DiskError::makes_corrupt(error) {
                    self.shared.kept.damages.note(error);
                }
            })?;
            let read_to = entries
                .last()
                .map_or(from, |entry: &Entry| entry.log_id.index + 1);
            if read_to < cached_from {
                // The bound was reached on the disk already, or the log was cut off meanwhile.
                cached.clear();
            }
        }
        entries.append(&mut cached);
        cut(&mut entries, bytes_max);
        consecutive(&entries)?;
        Ok(entries)
    }
}

impl Shared {
    fn enqueue(&self, write: Write) {
        let start = {
            let mut log = self.kept.lock();
            log.queue.push_back(write);
            !std::mem::replace(&mut log.writing, true)
        };
        if start {
            let kept = self.kept.clone();
            if let Err(error) = self.writer.submit(Box::new(move || kept.drain())) {
                self.kept.fail(&error.to_string());
            }
        }
    }

    async fn written(&self, batch: Batch, synced: Synced) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(Write {
            batch,
            synced,
            first_index: None,
            done: Done::Wait(sender),
        });
        receiver
            .await
            .map_err(|_| io::Error::other("the log's thread has ended"))?
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic under the lock leaves at worst a count wrong in a server that is going down.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all that waits, group by group, until nothing does.
    fn drain(&self) {
        loop {
            let Some((group, failed)) = self.take_group() else {
                return;
            };
            let (batch, synced, done) = merge(group);
            let result = match failed {
                Some(reason) => Err(reason),
                None if batch.is_empty() && synced == Synced::No => Ok(()),
                None => self.write(batch, synced).map_err(|error| error.to_string()),
            };
            if let Err(reason) = &result {
                self.has_failed(reason);
            }
            {
                let mut log = self.lock();
                log.in_flight = None;
                log.evict();
            }
            for done in done {
                done.complete(&result);
            }
        }
    }

    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        let started = Instant::now();
        let result = self.disk.write(batch, synced);
        if synced == Synced::Yes {
            self.syncs.since(started);
        }
        result
    }

    fn take_group(&self) -> Option<(Vec<Write>, Option<String>)> {
        let mut log = self.lock();
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = log.queue.front() {
            bytes += next.batch.bytes();
            if !group.is_empty() && bytes > GROUP_BYTES_MAX {
                break;
            }
            group.extend(log.queue.pop_front());
        }
        if group.is_empty() {
            log.writing = false;
            return None;
        }
        // Never before the entries that it speaks of, which may still be in the queue.
        if log.queue.is_empty() && std::mem::take(&mut log.committed_moved) {
            let committed = codec::encode(&log.committed.map(Position::from));
            group[0].batch.put(COMMITTED_KEY, committed);
        }
        log.in_flight = group.iter().filter_map(|write| write.first_index).min();
        Some((group, self.failed.borrow().clone()))
    }

    fn has_failed(&self, reason: &str) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    fn fail(&self, reason: &str) {
        self.has_failed(reason);
        let queue = std::mem::take(&mut self.lock().queue);
        for write in queue {
            write.done.complete(&Err(reason.to_owned()));
        }
    }
}

impl Log {
    /// Forgets the oldest entries in memory that the disk has.
    fn evict(&mut self) {
        let waiting = self
            .queue
            .iter()
            .filter_map(|write| write.first_index)
            .min();
        let unwritten = [waiting, self.in_flight]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX);
        while self.cache_bytes > CACHE_BYTES_MAX {
            match self.cache.first_entry() {
                Some(first) if *first.key() < unwritten => {
                    self.cache_bytes -= entry_bytes(&first.remove());
                }
                _ => break,
            }
        }
    }

    fn add(&mut self, entry: Entry) {
        if self.bytes_up_to.is_empty() {
            self.first = entry.log_id.index;
        }
        let bytes = entry_bytes(&entry);
        let total = self
            .bytes_up_to
            .back()
            .copied()
            .unwrap_or(self.bytes_purged);
        self.bytes_up_to.push_back(total + bytes as u64);
        self.cache_bytes += bytes;
        self.last = Some(entry.log_id);
        self.cache.insert(entry.log_id.index, entry);
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let keep_to = last.map_or(0, |id| id.index + 1);
        for (_, entry) in self.cache.split_off(&keep_to) {
            self.cache_bytes -= entry_bytes(&entry);
        }
        self.bytes_up_to
            .truncate(keep_to.saturating_sub(self.first) as usize);
        // Behind the end there is nothing to cut off.
        if self.last.is_some_and(|id| id.index >= keep_to) {
            self.last = last.or(self.purged);
        }
    }

    fn purgeable(&self, snapshot: u64, keep: Keep) -> Option<u64> {
        let covered = (snapshot + 1).checked_sub(self.first)?;
        let covered = self.bytes_up_to.len().min(usize::try_from(covered).ok()?);
        let total = *self.bytes_up_to.get(covered.checked_sub(1)?)?;
        let by_count = covered.saturating_sub(usize::try_from(keep.entries).unwrap_or(usize::MAX));
        let by_bytes = if total - self.bytes_purged <= keep.bytes {
            0
        } else {
            let too_far = |upto: &u64| total - upto.min(&total) > keep.bytes;
            self.bytes_up_to.partition_point(too_far) + 1
        };
        let gone = by_count.max(by_bytes) as u64;
        Some(self.first + gone.checked_sub(1)?)
    }

    fn purge(&mut self, upto: LogId) {
        let kept = self.cache.split_off(&(upto.index + 1));
        for entry in std::mem::replace(&mut self.cache, kept).values() {
            self.cache_bytes -= entry_bytes(entry);
        }
        while self.first <= upto.index {
            match self.bytes_up_to.pop_front() {
                Some(bytes) => self.bytes_purged = bytes,
                None => break,
            }
            self.first += 1;
        }
        self.first = self.first.max(upto.index + 1);
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(self.purged);
    }
}

impl Done {
    fn complete(self, result: &Result<(), String>) {
        let result = result.clone().map_err(io::Error::other);
        match self {
            Self::Append(callback) => callback.io_completed(result),
            // Who waited may have gone away.
            Self::Wait(sender) => drop(sender.send(result)),
            Self::Nobody => {}
        }
    }
}

fn merge(group: Vec<Write>) -> (Batch, Synced, Vec<Done>) {
    let mut merged = Batch::new();
    let mut synced = Synced::No;
    let mut done = Vec::with_capacity(group.len());
    for write in group {
        merged.append(write.batch);
        if write.synced == Synced::Yes {
            synced = Synced::Yes;
        }
        done.push(write.done);
    }
    (merged, synced, done)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(lower(&range)..upper(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, REPLICATION_BYTES_MAX).await
    }

    /// In pieces, so that a long stretch to be applied is never all in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let state = (self.clone(), lower(&range), upper(&range));
        let pieces = futures::stream::unfold(state, async |(store, from, to)| {
            if from >= to {
                return None;
            }
            let piece = store
                .read(
                    from..to.min(from.saturating_add(APPLY_ENTRIES_MAX)),
                    REPLICATION_BYTES_MAX,
                )
                .await;
            let (items, next): (Vec<io::Result<Entry>>, u64) = match piece {
                Ok(entries) => {
                    let next = entries.last().map_or(to, |entry| entry.log_id.index + 1);
                    (entries.into_iter().map(Ok).collect(), next)
                }
                Err(error) => (vec![Err(error)], to),
            };
            Some((futures::stream::iter(items), (store, next, to)))
        });
        Box::pin(futures::StreamExt::flatten(pieces))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.kept.lock().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let log = self.shared.kept.lock();
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: log.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut batch = Batch::new();
        batch.put(VOTE_KEY, codec::encode(&FlatVote::from(vote)));
        self.shared.written(batch, Synced::Yes).await?;
        self.shared.kept.lock().vote = Some(*vote);
        Ok(())
    }

    /// Goes to the disk with what is written next, for a write of its own would double their number. A crash may take it back, which is
    /// why nothing is served before the node has recovered.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut log = self.shared.kept.lock();
        log.committed = committed;
        log.committed_moved = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.kept.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::new();
        let mut first_index = None;
        {
            let mut log = self.shared.kept.lock();
            for entry in entries {
                first_index.get_or_insert(entry.log_id.index);
                batch.put(entry_key(entry.log_id.index), entry_value(&entry));
                log.add(entry);
            }
        }
        self.shared.enqueue(Write {
            batch,
            synced: Synced::Yes,
            first_index,
            done: Done::Append(callback),
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.shared.kept.lock().truncate(last_log_id);
        let mut batch = Batch::new();
        batch.delete_range(
            entry_key(last_log_id.map_or(0, |id| id.index + 1)),
            AFTER_ENTRIES,
        );
        self.shared.written(batch, Synced::Yes).await
    }

    /// Not awaited: lost in a crash, the entries are merely still there.
    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.shared.kept.lock().purge(log_id);
        let mut batch = Batch::new();
        batch.put(PURGED_KEY, codec::encode(&Position::from(log_id)));
        batch.delete_range(entry_key(0), entry_key(log_id.index + 1));
        self.shared.enqueue(Write {
            batch,
            synced: Synced::No,
            first_index: None,
            done: Done::Nobody,
        });
        Ok(())
    }
}

/// Reads the marks and verifies every entry.
pub(crate) fn load(disk: &dyn Disk) -> io::Result<Log> {
    let mark = |key| disk.get(key).map_err(io_error);
    let mut log = Log {
        gone: read_gone(disk)?,
        ..Log::default()
    };
    if let Some(bytes) = mark(VOTE_KEY)? {
        log.vote = Some(read_mark::<FlatVote>(VOTE_KEY, &bytes)?.into());
    }
    if let Some(bytes) = mark(PURGED_KEY)? {
        log.purged = Some(read_mark::<Position>(PURGED_KEY, &bytes)?.into());
    }
    if let Some(bytes) = mark(COMMITTED_KEY)? {
        log.committed = read_mark::<Option<Position>>(COMMITTED_KEY, &bytes)?.map(LogId::from);
    }
    log.last = log.purged;
    log.first = log.purged.map_or(0, |id| id.index + 1);
    let range = Range::new(entry_key(log.first), AFTER_ENTRIES);
    for pair in disk.iterate(&range, Order::Ascending).map_err(io_error)? {
        let (key, value) = pair.map_err(io_error)?;
        let entry = checked_entry(&key, &value)?;
        let expected = log.last.map_or(0, |id| id.index + 1);
        if entry.log_id.index != expected {
            return Err(corrupt(
                &key,
                &format!("entry {expected} should come before it"),
            ));
        }
        log.add(entry);
        log.evict();
    }
    Ok(log)
}

fn read_mark<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> io::Result<T> {
    codec::decode(bytes).map_err(|error| corrupt(key, &error.to_string()))
}

/// Keeps what fits, one entry at least.
fn cut(entries: &mut Vec<Entry>, bytes_max: usize) {
    let mut bytes = 0_usize;
    let fit = entries.iter().take_while(|entry| {
        bytes = bytes.saturating_add(entry_bytes(entry));
        bytes <= bytes_max
    });
    let fit = fit.count().max(1);
    entries.truncate(fit);
}

fn consecutive(entries: &[Entry]) -> io::Result<()> {
    match entries
        .windows(2)
        .find(|pair| pair[0].log_id.index + 1 != pair[1].log_id.index)
    {
        None => Ok(()),
        Some(pair) => Err(corrupt(
            &entry_key(pair[0].log_id.index),
            "the entry behind it is missing",
        )),
    }
}

fn lower(range: &impl RangeBounds<u64>) -> u64 {
    match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    }
}

/// Exclusive.
fn upper(range: &impl RangeBounds<u64>) -> u64 {
    match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    }
}
