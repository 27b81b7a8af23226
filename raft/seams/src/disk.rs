//! What a server keeps: a directory of small files and databases.
//!
//! A database is one map of ordered keys, for that is what RocksDB, an ordered map in memory and a plain argument about
//! crashes have in common. Everything here blocks; async code calls it through a [`crate::Runtime`] worker where the
//! call may take long.
//!
//! # The contract after a crash
//!
//! Each database comes back with a prefix of the batches written to it, each whole or not at all: at least up to the
//! last `write` with [`Synced::Yes`] or the last `flush` that returned `Ok`, possibly further. Small files come back as
//! one of the versions written, at least the last whose `write_file` returned. Nothing is promised about the order
//! between two databases. An error from `write`, `flush` or `write_file` leaves open whether it happened; the caller
//! must stop writing to that database and open it again.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

/// A server's data directory, held by one process at a time.
///
/// Names are single path components of `[a-z0-9._-]`. Small files and databases share one name space.
pub trait Directory: Send + Sync + 'static {
    /// Opens a database, creating an empty one where there is none. A name is open at most once at a time.
    fn open(&self, name: &str, options: &DiskOptions) -> Result<Arc<dyn Disk>, DiskError>;

    /// Whether there is a database or checkpoint of this name.
    fn exists(&self, name: &str) -> Result<bool, DiskError>;

    /// Removes a database or checkpoint that is not open. Nothing there is fine.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Names of all databases and checkpoints, in order.
    fn list(&self) -> Result<Vec<String>, DiskError>;

    /// A small file's content.
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, DiskError>;

    /// Replaces a small file: whole or not at all, and durable when this returns.
    fn write_file(&self, name: &str, content: &[u8]) -> Result<(), DiskError>;

    /// The room on the device that it lies on.
    fn room(&self) -> Result<Room, DiskError>;

    /// The files of a checkpoint, or of a database that is not open, by name.
    fn files(&self, name: &str) -> Result<Vec<FileInfo>, DiskError>;

    /// Up to `len` bytes of one of those files from `offset`; fewer only at its end.
    fn read_at(&self, name: &str, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError>;

    /// Reads all of a checkpoint, or of a database without a write-ahead log that is not open. An error names the file that is not what
    /// was written.
    fn verify(&self, name: &str) -> Result<(), DiskError>;

    /// Appends to a file of a database that is being put together, creating both where missing. `offset` is what has
    /// been appended so far: an offset of zero starts the file again, any other must be its length.
    fn append_at(
        &self,
        name: &str,
        file: &str,
        offset: u64,
        content: &[u8],
    ) -> Result<(), DiskError>;

    /// Makes all that was appended to this database durable.
    fn sync(&self, name: &str) -> Result<(), DiskError>;
}

/// How much a device holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub total: u64,
    /// What this process may still fill.
    pub free: u64,
}

/// A buffer that has to be flushed before something goes on, as before a checkpoint, still takes no more than a twentieth of a second.
const BACKGROUND_BYTES_PER_S: u64 = 256 << 20;

/// How a database is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// With a write-ahead log a write can be synced by itself. Without one, writes are durable only after `flush`,
    /// which costs far less when whatever is lost can be replayed from elsewhere.
    pub wal: bool,
    /// Memory for blocks read.
    pub cache_bytes: usize,
    /// Writes kept in memory before they go to a file of their own.
    pub write_buffer_bytes: usize,
    /// What is flushed and compacted is written no faster, flushes first: far more than callers write for long, and less than a disk takes
    /// when all that there is is compacted at once.
    pub background_bytes_per_s: u64,
    /// First bytes of keys that are written in their order, each once: they can lie by themselves and stay where they were written.
    pub in_order: Vec<u8>,
}

impl DiskOptions {
    /// A database whose writes can be synced one by one.
    pub fn with_wal() -> Self {
        Self {
            wal: true,
            cache_bytes: 8 << 20,
            write_buffer_bytes: 16 << 20,
            background_bytes_per_s: BACKGROUND_BYTES_PER_S,
            in_order: Vec::new(),
        }
    }

    /// A database that is durable up to its last flush. What is not yet flushed is what a start has to do again, and what each write's
    /// place is looked for in: a small buffer makes both cheap.
    pub fn without_wal() -> Self {
        Self {
            wal: false,
            cache_bytes: 64 << 20,
            write_buffer_bytes: 16 << 20,
            background_bytes_per_s: BACKGROUND_BYTES_PER_S,
            in_order: Vec::new(),
        }
    }

    /// The same, with keys of these first bytes apart.
    #[must_use]
    pub fn in_order(self, first_bytes: &[u8]) -> Self {
        Self {
            in_order: first_bytes.to_vec(),
            ..self
        }
    }
}

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// Pairs in order, read as they are asked for.
pub type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, DiskError>> + 'a>;

/// What can be read: a database as it is now, or a view of it that stands still.
pub trait Reader: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError>;

    /// One result for each key, in the order asked. From a database (not a view) they need not be of one moment.
    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError>;

    /// The pairs of a range. From a database (not a view) it reads as of the moment it was called.
    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError>;

    /// The first `limit` pairs of a range in this order.
    fn scan(&self, range: &Range, order: Order, limit: usize) -> Result<Vec<Pair>, DiskError> {
        self.iterate(range, order)?.take(limit).collect()
    }
}

/// An open database.
pub trait Disk: Reader + Send + Sync + 'static {
    /// A consistent view of this moment, which later writes don't change. It holds back the disk space of what is
    /// overwritten meanwhile, so it is for the length of a request.
    fn view(&self) -> Result<Box<dyn Reader>, DiskError>;

    /// Writes all of a batch, or nothing. Visible to readers when it returns; durable too with [`Synced::Yes`] (which
    /// in a database without a WAL is a `flush` after the write).
    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError>;

    /// Whether a few KiB that are written now without a sync go into memory and no further: nothing waits there for the disk, so neither
    /// does who writes.
    fn takes_at_once(&self) -> bool;

    /// Makes everything written so far durable.
    fn flush(&self) -> Result<(), DiskError>;

    /// A durable copy of this moment, beside, under `into`, which must not exist. It can be opened, or read file by
    /// file. Cheap: it shares the files that don't change.
    fn checkpoint(&self, into: &str) -> Result<(), DiskError>;

    /// To be called now and then where much is deleted: gives back the room of it, if it is much by now, even where that means to write
    /// again what lies beside it. Does not wait for the end of that; for a flush, at the most.
    fn reclaim(&self) -> Result<(), DiskError> {
        Ok(())
    }

    /// Of what was written last, so many bytes are about to be read: whole files, then, come faster than one piece after another. It is
    /// only asked for; what goes wrong shows when it is read.
    fn prefetch(&self, _newest_bytes: u64) {}

    fn statistics(&self) -> Statistics;

    /// Roughly how many bytes it takes on disk.
    fn size(&self) -> Result<u64, DiskError>;
}

/// Whether a write waits until the disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    Yes,
    No,
}

/// Which way a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// Keys from `from` up to but without `to`; no `to` means to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub from: Vec<u8>,
    pub to: Option<Vec<u8>>,
}

impl Range {
    pub fn all() -> Self {
        Self {
            from: Vec::new(),
            to: None,
        }
    }

    /// `from` inclusive, `to` exclusive.
    pub fn new(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> Self {
        Self {
            from: from.into(),
            to: Some(to.into()),
        }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let from = prefix.into();
        let mut to = from.clone();
        // The first key behind the prefix: its last byte that can grow, grown. All 0xff has nothing behind it.
        while let Some(last) = to.pop() {
            if last < u8::MAX {
                to.push(last + 1);
                return Self { from, to: Some(to) };
            }
        }
        Self { from, to: None }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.to.as_deref().is_none_or(|to| key < to)
    }
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// From inclusive, to exclusive.
    DeleteRange {
        from: Bytes,
        to: Bytes,
    },
    /// The same range, for which the disk may take its time.
    Forget {
        from: Bytes,
        to: Bytes,
    },
}

/// Writes that happen together, in the order they were added: a later one on the same key wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.operations.push(Operation::Put { key, value });
    }

    pub fn delete(&mut self, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len();
        self.operations.push(Operation::Delete { key });
    }

    /// `from` inclusive, `to` exclusive.
    pub fn delete_range(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        let (from, to) = (from.into(), to.into());
        self.bytes += from.len() + to.len();
        self.operations.push(Operation::DeleteRange { from, to });
    }

    /// As `delete_range`, of keys that nobody reads or writes again but in views of before: they go now or later, and a part of them may
    /// never. In order they cost least where the first key of their letter is in the range: files that hold nothing else go as they
    /// are, when [`Disk::reclaim`] is asked. Of one letter only the last range counts.
    pub fn forget(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        let (from, to) = (from.into(), to.into());
        self.bytes += from.len() + to.len();
        self.operations.push(Operation::Forget { from, to });
    }

    /// Adds all of another batch behind what is here.
    pub fn append(&mut self, mut other: Self) {
        self.bytes += other.bytes;
        self.operations.append(&mut other.operations);
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Keys and values together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A file of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    pub name: String,
    pub len: u64,
}

/// Counters since the database was opened. On the real side those of flushes and compactions are RocksDB's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// How often the write-ahead log was synced.
    pub wal_syncs: u64,
    /// Bytes written to the write-ahead log.
    pub wal_bytes: u64,
    /// Bytes of all batches.
    pub written_bytes: u64,
    pub keys_written: u64,
    /// Bytes written to files by flushes.
    pub flush_bytes: u64,
    /// Bytes written again by compactions.
    pub compaction_bytes: u64,
}

/// What went wrong with the disk. `what` says which file, database or key, and what was being done.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// What was read is not what was written. Never retried, never served: the server says how it is rebuilt from the others.
    #[error("{what}: corrupt: {detail}")]
    Corrupt { what: String, detail: String },
    #[error("{what}: no space left on the disk")]
    Full { what: String },
    #[error("{path} is in use by {}", Holder(*pid))]
    InUse { path: String, pid: Option<u32> },
    /// The handle was cut, by a crash in a simulation, or the database was closed.
    #[error("{what}: closed")]
    Closed { what: String },
}

impl DiskError {
    /// An I/O error with its context, a full disk told apart.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { what },
            _ => Self::Io { what, source },
        }
    }

    pub fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt {
            what: what.into(),
            detail: detail.into(),
        }
    }

    /// What was read is not what was written.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether an I/O error was made of one that is.
    pub fn makes_corrupt(error: &io::Error) -> bool {
        let Some(inner) = error.get_ref() else {
            return false;
        };
        inner.downcast_ref().is_some_and(Self::is_corrupt)
            || inner.downcast_ref().is_some_and(Self::makes_corrupt)
    }
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "another process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_first_key_behind_it() {
        let check = |prefix: &[u8], to: Option<&[u8]>| {
            assert_eq!(
                Range::prefix(prefix),
                Range {
                    from: prefix.to_vec(),
                    to: to.map(<[u8]>::to_vec)
                }
            );
        };
        check(b"a", Some(b"b"));
        check(b"a/", Some(b"a0"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
        check(b"", None);
    }
}
