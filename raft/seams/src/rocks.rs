//! The real disk: RocksDB.
//!
//! Two ways of use. With a WAL, a batch with [`Synced::Yes`] is on disk when `write` returns: this is the Raft log. Without
//! one, all memtables are flushed together and a crash goes back to the last flush: this is the state, which is replayed
//! from the log. Paranoid checks are on, and a WAL that is damaged anywhere but in its last, torn record is refused, for
//! what stands behind the damage may have been acknowledged; `framing` finds the damage that RocksDB would not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, ErrorKind, IteratorMode,
    Options, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};
use self_cell::self_cell;

mod framing;

use crate::directory::sync_folder;
use crate::disk::{
    Batch, Disk, DiskError, DiskOptions, Operation, Order, Pairs, Range, Reader, Statistics, Synced,
};

/// RocksDB's own diary, of which the newest few are enough.
const DIARY_FILES_MAX: usize = 4;
const DIARY_FILE_BYTES: usize = 1 << 20;
/// Threads for flushes and compactions of one database.
const BACKGROUND_JOBS: i32 = 2;
const SYNC_EVERY_BYTES: u64 = 1 << 20;
/// What RocksDB puts before each key and value of a batch, at most, and before the batch.
const OPERATION_BYTES: usize = 16;
/// Bits of bloom filter a key; 10 give about 1 % false positives.
const BLOOM_BITS: f64 = 10.0;

/// An open RocksDB.
pub(crate) struct Rocks {
    db: Arc<DB>,
    /// Kept, for the statistics live here.
    options: Options,
    name: String,
    parent: PathBuf,
    wal: bool,
}

impl Rocks {
    pub(crate) fn open(
        parent: &Path,
        name: &str,
        options: &DiskOptions,
    ) -> Result<Self, DiskError> {
        let rocks_options = rocks_options(options);
        let path = parent.join(name);
        let opening = format!("opening {}", path.display());
        match framing::damage(&path) {
            Ok(None) => {}
            Ok(Some(damage)) => return Err(DiskError::corrupt(opening, damage)),
            Err(error) => return Err(DiskError::io(opening, error)),
        }
        let db = DB::open(&rocks_options, &path).map_err(|error| translate(&opening, error))?;
        // RocksDB syncs its own files; that the folder is there at all is for us to make durable.
        sync_folder(parent)?;
        Ok(Self {
            db: Arc::new(db),
            options: rocks_options,
            name: name.to_owned(),
            parent: parent.to_owned(),
            wal: options.wal,
        })
    }

    fn failed(&self, doing: &str, error: rocksdb::Error) -> DiskError {
        translate(
            &format!("{doing} {}", self.parent.join(&self.name).display()),
            error,
        )
    }
}

fn rocks_options(options: &DiskOptions) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(options.cache_bytes));
    blocks.set_bloom_filter(BLOOM_BITS, false);

    let mut rocks = Options::default();
    rocks.create_if_missing(true);
    rocks.set_paranoid_checks(true);
    rocks.enable_statistics();
    // Counters are what is read; timing each operation besides would cost more than they do.
    rocks.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    rocks.set_block_based_table_factory(&blocks);
    // What is flushed is soon written again, by a compaction: that is when compressing it pays.
    rocks.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
    rocks.set_write_buffer_size(options.write_buffer_bytes);
    rocks.set_max_background_jobs(BACKGROUND_JOBS);
    // What is flushed or compacted goes to the disk as it is written: all at once it would hold up the log's next sync.
    rocks.set_bytes_per_sync(SYNC_EVERY_BYTES);
    rocks.set_keep_log_file_num(DIARY_FILES_MAX);
    rocks.set_max_log_file_size(DIARY_FILE_BYTES);
    if options.wal {
        // Not point-in-time, RocksDB's default: that one forgets in silence whatever stands behind a damaged record.
        rocks.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        // An old segment that is written over could pass for a tail.
        rocks.set_recycle_log_file_num(0);
    } else {
        rocks.set_atomic_flush(true);
    }
    rocks
}

impl Reader for Rocks {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.db
            .get(key)
            .map(|value| value.map(Bytes::from))
            .map_err(|error| {
                translate(
                    &format!("reading key {} of {}", key.escape_ascii(), self.name),
                    error,
                )
            })
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        collect(keys, self.db.multi_get(keys), &self.name)
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        let pairs = self.db.iterator_opt(mode(order), bounded(range));
        Ok(Box::new(pairs.map(|pair| pair_of(pair, &self.name))))
    }
}

impl Disk for Rocks {
    fn view(&self) -> Result<Box<dyn Reader>, DiskError> {
        let moment = Moment::new(self.db.clone(), |db| db.snapshot());
        Ok(Box::new(View {
            moment,
            name: self.name.clone(),
        }))
    }

    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        let bytes = batch.bytes() + OPERATION_BYTES * (1 + batch.operations().len());
        let mut writes = WriteBatch::with_capacity_bytes(bytes);
        for operation in batch.into_operations() {
            match operation {
                Operation::Put { key, value } => writes.put(key, value),
                Operation::Delete { key } => writes.delete(key),
                Operation::DeleteRange { from, to } => writes.delete_range(from, to),
            }
        }
        let mut how = WriteOptions::default();
        how.disable_wal(!self.wal);
        how.set_sync(self.wal && synced == Synced::Yes);
        self.db
            .write_opt(writes, &how)
            .map_err(|error| self.failed("writing to", error))?;
        if !self.wal && synced == Synced::Yes {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        let result = if self.wal {
            self.db.flush_wal(true)
        } else {
            self.db.flush()
        };
        result.map_err(|error| self.failed("flushing", error))
    }

    fn checkpoint(&self, into: &str) -> Result<(), DiskError> {
        let checkpoint =
            Checkpoint::new(&self.db).map_err(|error| self.failed("copying", error))?;
        checkpoint
            .create_checkpoint(self.parent.join(into))
            .map_err(|error| self.failed("copying", error))?;
        sync_folder(&self.parent)
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            wal_syncs: self.options.get_ticker_count(Ticker::WalFileSynced),
            wal_bytes: self.options.get_ticker_count(Ticker::WalFileBytes),
            written_bytes: self.options.get_ticker_count(Ticker::BytesWritten),
            keys_written: self.options.get_ticker_count(Ticker::NumberKeysWritten),
            flush_bytes: self.options.get_ticker_count(Ticker::FlushWriteBytes),
            compaction_bytes: self.options.get_ticker_count(Ticker::CompactWriteBytes),
        }
    }

    fn size(&self) -> Result<u64, DiskError> {
        let mut bytes = 0;
        for property in [
            rocksdb::properties::TOTAL_SST_FILES_SIZE,
            rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES,
        ] {
            let value = self
                .db
                .property_int_value(property)
                .map_err(|error| self.failed("measuring", error))?;
            bytes += value.unwrap_or(0);
        }
        Ok(bytes)
    }
}

self_cell! {
    /// A snapshot together with the database that it borrows from.
    struct Moment {
        owner: Arc<DB>,
        #[covariant]
        dependent: Snapshot,
    }
}

/// The database as it was at one moment.
struct View {
    moment: Moment,
    name: String,
}

impl Reader for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.moment
            .borrow_dependent()
            .get(key)
            .map(|value| value.map(Bytes::from))
            .map_err(|error| {
                translate(
                    &format!("reading key {} of {}", key.escape_ascii(), self.name),
                    error,
                )
            })
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        collect(
            keys,
            self.moment.borrow_dependent().multi_get(keys.iter()),
            &self.name,
        )
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        let pairs = self
            .moment
            .borrow_dependent()
            .iterator_opt(mode(order), bounded(range));
        Ok(Box::new(pairs.map(|pair| pair_of(pair, &self.name))))
    }
}

fn mode(order: Order) -> IteratorMode<'static> {
    match order {
        Order::Ascending => IteratorMode::Start,
        Order::Descending => IteratorMode::End,
    }
}

fn bounded(range: &Range) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.set_iterate_lower_bound(range.from.clone());
    if let Some(to) = &range.to {
        options.set_iterate_upper_bound(to.clone());
    }
    options
}

type Raw = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

fn pair_of(pair: Raw, name: &str) -> Result<(Bytes, Bytes), DiskError> {
    match pair {
        Ok((key, value)) => Ok((Bytes::from(key), Bytes::from(value))),
        Err(error) => Err(translate(&format!("reading a range of {name}"), error)),
    }
}

fn collect(
    keys: &[&[u8]],
    values: Vec<Result<Option<Vec<u8>>, rocksdb::Error>>,
    name: &str,
) -> Result<Vec<Option<Bytes>>, DiskError> {
    let mut found = Vec::with_capacity(values.len());
    for (key, value) in keys.iter().zip(values) {
        match value {
            Ok(value) => found.push(value.map(Bytes::from)),
            Err(error) => {
                return Err(translate(
                    &format!("reading key {} of {name}", key.escape_ascii()),
                    error,
                ));
            }
        }
    }
    Ok(found)
}

/// RocksDB's errors are text with a class in front; for corruption the text names the file.
fn translate(what: &str, error: rocksdb::Error) -> DiskError {
    let text = error.as_ref();
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        return DiskError::Full {
            what: what.to_owned(),
        };
    }
    match error.kind() {
        ErrorKind::Corruption => DiskError::corrupt(what, text),
        ErrorKind::ShutdownInProgress => DiskError::Closed {
            what: what.to_owned(),
        },
        _ => DiskError::Io {
            what: what.to_owned(),
            source: std::io::Error::other(text.to_owned()),
        },
    }
}
