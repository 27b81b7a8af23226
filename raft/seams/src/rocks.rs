//! The real disk: RocksDB.
//!
//! All memtables are flushed together, and a crash goes back to the last flush: this is the state, which is replayed from the log. Paranoid
//! checks are on; `framing` finds damage of RocksDB's own logs that it takes for an end. With a write-ahead log it is only opened to be turned
//! into a [`crate::journal`]; one that is damaged anywhere but in its last, torn record is refused, for what stands behind the damage may
//! have been acknowledged.

use std::ffi::CStr;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, DB, DBCompactionStyle, DBCompressionType,
    DBRecoveryMode, Env, ErrorKind, FlushOptions, IteratorMode, Options, ReadOptions, Snapshot,
    WriteBatch, WriteOptions,
};
use self_cell::self_cell;

mod blobs;
mod families;
mod forget;
mod framing;
mod prefetch;
mod reclaim;
#[cfg(test)]
mod tests;
pub(crate) mod verify;

use crate::directory::sync_folder;
use crate::disk::{
    Batch, Disk, DiskError, DiskOptions, Operation, Order, Pair, Pairs, Range, Reader, Statistics,
    Synced,
};
use families::{Families, Handles};
use forget::Forgotten;
use reclaim::Reclaim;

/// RocksDB's own diary, of which the newest few are enough.
const DIARY_FILES_MAX: usize = 4;
const DIARY_FILE_BYTES: usize = 1 << 20;
/// Threads for flushes and compactions of one database.
const BACKGROUND_JOBS: i32 = 2;
const SYNC_EVERY_BYTES: u64 = 1 << 20;
const WRITTEN_AT_ONCE: u64 = 64 << 10;
/// What may be written in the background is counted anew so often: a hundredth of a second's part at once is no burst.
const BACKGROUND_REFILL_US: i64 = 10_000;
/// A flush lets a compaction go first once in so many times, so that neither starves the other.
const BACKGROUND_FAIRNESS: i32 = 10;
/// What RocksDB puts before each key and value of a batch, at most, and before the batch.
const OPERATION_BYTES: usize = 16;
/// Buffers full or being filled; past it writers wait for a flush.
const WRITE_BUFFERS_MAX: i32 = 4;
/// Flushed files that are compacted together; three times as many slow writers down.
const FLUSHED_FILES: i32 = 12;
/// Who reads many keys at once: a disk that is asked for several pieces at a time gives many times as many.
const READERS: usize = 8;
/// Keys for which one more reader pays.
const KEYS_OF_A_READER: usize = 64;
/// A value from which on it lies apart from its key.
const BLOB_BYTES_MIN: u64 = 512;
/// Bits of bloom filter a key; 10 give about 1 % false positives.
const BLOOM_BITS: f64 = 10.0;

/// An open RocksDB.
pub(crate) struct Rocks {
    db: Arc<DB>,
    families: Families,
    /// Kept, for the statistics live here.
    options: Options,
    name: String,
    parent: PathBuf,
    wal: bool,
    write_buffer_bytes: u64,
    reclaim: Reclaim,
    forgotten: Forgotten,
}

impl Rocks {
    pub(crate) fn open(
        parent: &Path,
        name: &str,
        options: &DiskOptions,
    ) -> Result<Self, DiskError> {
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let mut rocks_options = rocks_options(options, &cache);
        rocks_options.set_use_direct_io_for_flush_and_compaction(takes_direct_io(parent)?);
        let apart = in_order_options(&rocks_options, &cache);
        let path = parent.join(name);
        let opening = format!("opening {}", path.display());
        match framing::damage(&path) {
            Ok(None) => {}
            Ok(Some(damage)) => return Err(DiskError::corrupt(opening, damage)),
            Err(error) => return Err(DiskError::io(opening, error)),
        }
        let (db, families) = families::open(&path, &options.in_order, &rocks_options, &apart)?;
        // RocksDB syncs its own files; that the folder is there at all is for us to make durable.
        sync_folder(parent)?;
        Ok(Self {
            db: Arc::new(db),
            families,
            options: rocks_options,
            name: name.to_owned(),
            parent: parent.to_owned(),
            wal: options.wal,
            write_buffer_bytes: options.write_buffer_bytes as u64,
            reclaim: Reclaim::default(),
            forgotten: Forgotten::default(),
        })
    }

    fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    fn now(&self) -> Reading<'_> {
        Reading {
            db: &self.db,
            moment: None,
            families: self.families.of(&self.db),
            name: &self.name,
            path: self.path(),
        }
    }

    fn failed(&self, doing: &str, error: rocksdb::Error) -> DiskError {
        let path = self.path();
        translate(&path, &format!("{doing} {}", path.display()), error)
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        self.reclaim.end(&self.db);
    }
}

/// The threads that flush and compact, which all databases share. They come after those that somebody waits for: buffers take what is
/// written meanwhile, and once these are full nobody else has anything to do.
fn background() -> Option<&'static Env> {
    static ENV: OnceLock<Option<Env>> = OnceLock::new();
    let made = || {
        let mut env = Env::new().ok()?;
        env.lower_thread_pool_cpu_priority();
        env.lower_high_priority_thread_pool_cpu_priority();
        Some(env)
    };
    ENV.get_or_init(made).as_ref()
}

/// For keys that are written in their order and never again. With one compression all the way down, a file is moved as it is; no other
/// file has a key in its range, so nothing is to be had of a filter.
fn in_order_options(others: &Options, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    let mut options = others.clone();
    options.set_block_based_table_factory(&blocks);
    options.set_compaction_style(DBCompactionStyle::Level);
    options.set_compression_per_level(&[DBCompressionType::Lz4]);
    options.set_enable_blob_files(false);
    options
}

fn rocks_options(options: &DiskOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(BLOOM_BITS, false);

    let mut rocks = Options::default();
    if let Some(env) = background() {
        rocks.set_env(env);
    }
    rocks.create_if_missing(true);
    rocks.create_missing_column_families(true);
    rocks.set_paranoid_checks(true);
    rocks.enable_statistics();
    // Counters are what is read; timing each operation besides would cost more than they do.
    rocks.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    rocks.set_block_based_table_factory(&blocks);
    // What is flushed is soon written again, by a compaction: that is when compressing it pays.
    rocks.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
    // Large values lie in files of their own, written once, at the flush; a compaction moves their places. A file goes when all in it is
    // deleted. What is left in files of holes is written anew by `reclaim`.
    rocks.set_enable_blob_files(true);
    rocks.set_min_blob_size(BLOB_BYTES_MIN);
    // Each family has one of its own; what comes in order is the smaller part of what is written.
    let of_each = match options.in_order.as_slice() {
        [] => options.write_buffer_bytes,
        _ => options.write_buffer_bytes / 4 * 3,
    };
    rocks.set_write_buffer_size(of_each);
    rocks.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    // Files of about the same size are written together into the next larger one, so a record is written again as often as the whole grows
    // several times. By levels, each dozen of flushes would be written into all that there is, up to hundreds of MiB of records of few bytes.
    rocks.set_compaction_style(DBCompactionStyle::Universal);
    rocks.set_level_zero_file_num_compaction_trigger(FLUSHED_FILES);
    rocks.set_level_zero_slowdown_writes_trigger(3 * FLUSHED_FILES);
    rocks.set_level_zero_stop_writes_trigger(5 * FLUSHED_FILES);
    rocks.set_max_background_jobs(BACKGROUND_JOBS);
    rocks.set_ratelimiter(
        i64::try_from(options.background_bytes_per_s).unwrap_or(i64::MAX),
        BACKGROUND_REFILL_US,
        BACKGROUND_FAIRNESS,
    );
    // What is flushed or compacted goes to the disk as it is written, in pieces that the log's next sync does not wait long behind.
    rocks.set_bytes_per_sync(SYNC_EVERY_BYTES);
    rocks.set_writable_file_max_buffer_size(WRITTEN_AT_ONCE);
    rocks.set_keep_log_file_num(DIARY_FILES_MAX);
    rocks.set_max_log_file_size(DIARY_FILE_BYTES);
    if options.wal {
        // Not point-in-time, RocksDB's default: that one forgets in silence whatever stands behind a damaged record.
        rocks.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        // An old segment that is written over could pass for a tail.
        rocks.set_recycle_log_file_num(0);
    } else {
        rocks.set_atomic_flush(true);
        rocks.set_blob_compression_type(DBCompressionType::Lz4);
    }
    rocks
}

/// Whether files here can be written past the page cache. What is flushed or compacted is read again rarely, and copying it into the
/// cache costs more than making it; file systems in memory, for one, may not take it.
fn takes_direct_io(folder: &Path) -> Result<bool, DiskError> {
    use std::os::unix::fs::OpenOptionsExt;
    let probe = folder.join(".direct-io");
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(&probe);
    match std::fs::remove_file(&probe) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(DiskError::io(
                format!("removing {}", probe.display()),
                error,
            ));
        }
    }
    Ok(opened.is_ok())
}

impl Reader for Rocks {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.now().get(key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        let each = keys.len().div_ceil(READERS).max(KEYS_OF_A_READER);
        if keys.len() <= each {
            return self.now().multi_get(keys);
        }
        let read = std::thread::scope(|threads| {
            let readers = keys.chunks(each).map(|part| {
                let read = move || self.now().multi_get(part);
                let reader = std::thread::Builder::new().name("read".to_owned());
                // Who gets no thread reads here.
                reader.spawn_scoped(threads, read).map_err(|_| read())
            });
            let readers: Vec<_> = readers.collect();
            let parts = readers.into_iter().map(|reader| match reader {
                Ok(reader) => reader.join().unwrap_or_else(|panic| resume_unwind(panic)),
                Err(read) => read,
            });
            parts.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(read.into_iter().flatten().collect())
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        Ok(self.now().iterate(range, order))
    }
}

/// Reads of a database as it is now, or at one moment.
struct Reading<'a> {
    db: &'a DB,
    moment: Option<&'a Snapshot<'a>>,
    families: Handles<'a>,
    name: &'a str,
    path: PathBuf,
}

impl<'a> Reading<'a> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        for family in self.families.find(key) {
            let value = self.db.get_cf_opt(family, key, &as_of(self.moment));
            if let Some(value) = value.map_err(|error| self.unread(key, error))? {
                return Ok(Some(value.into()));
            }
        }
        Ok(None)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        let first = keys.iter().map(|key| (self.families.put(key), *key));
        let values = self.db.multi_get_cf_opt(first, &as_of(self.moment));
        keys.iter()
            .zip(values)
            .map(
                |(key, value)| match value.map_err(|error| self.unread(key, error))? {
                    Some(value) => Ok(Some(value.into())),
                    None if self.families.find(key).count() > 1 => self.get(key),
                    None => Ok(None),
                },
            )
            .collect()
    }

    fn iterate(&self, range: &Range, order: Order) -> Pairs<'a> {
        let families = self.families.span(range);
        // What is read of several is read as of one moment.
        let now = (self.moment.is_none() && families.len() > 1).then(|| self.db.snapshot());
        let moment = self.moment.or(now.as_ref());
        let lists = families
            .into_iter()
            .map(|family| self.pairs(family, range, order, moment));
        families::merged(lists.collect(), order, now)
    }

    /// Of one family.
    fn pairs(
        &self,
        family: &ColumnFamily,
        range: &Range,
        order: Order,
        moment: Option<&Snapshot<'_>>,
    ) -> Pairs<'a> {
        let options = bounded(range, moment);
        let pairs = self.db.iterator_cf_opt(family, options, mode(order));
        let path = self.path.clone();
        Box::new(pairs.map(move |pair| pair_of(pair, &path)))
    }

    fn first(&self, family: &ColumnFamily, range: &Range) -> Result<Option<Pair>, DiskError> {
        let mut pairs = self.pairs(family, range, Order::Ascending, self.moment);
        pairs.next().transpose()
    }

    fn unread(&self, key: &[u8], error: rocksdb::Error) -> DiskError {
        let what = format!("reading key {} of {}", key.escape_ascii(), self.name);
        translate(&self.path, &what, error)
    }
}

impl Disk for Rocks {
    fn view(&self) -> Result<Box<dyn Reader>, DiskError> {
        let moment = Moment::new(self.db.clone(), |db| db.snapshot());
        Ok(Box::new(View {
            moment,
            families: self.families.clone(),
            name: self.name.clone(),
            path: self.path(),
        }))
    }

    fn write(&self, batch: Batch, synced: Synced) -> Result<(), DiskError> {
        let bytes = batch.bytes() + OPERATION_BYTES * (1 + batch.operations().len());
        let families = self.families.of(&self.db);
        let mut writes = WriteBatch::with_capacity_bytes(bytes);
        let mut forgotten = Vec::new();
        for operation in in_order(&batch) {
            match operation {
                Operation::Put { key, value } => writes.put_cf(families.put(key), key, value),
                Operation::Delete { key } => {
                    for family in families.find(key) {
                        writes.delete_cf(family, key);
                    }
                }
                Operation::DeleteRange { from, to } => {
                    let range = Range::new(from.clone(), to.clone());
                    for family in families.span(&range) {
                        writes.delete_range_cf(family, from, to);
                    }
                }
                Operation::Forget { from, to } => {
                    let range = Range::new(from.clone(), to.clone());
                    let (apart, among) = families.forget(&range);
                    forgotten.extend(apart.map(|letter| (letter, from, to)));
                    // From where there is one: what was deleted before is not to be deleted again each time.
                    if let Some(family) = among
                        && let Some((first, _)) = self.now().first(family, &range)?
                    {
                        writes.delete_range_cf(family, &*first, &**to);
                    }
                }
            }
        }
        let mut how = WriteOptions::default();
        how.disable_wal(!self.wal);
        how.set_sync(self.wal && synced == Synced::Yes);
        self.db
            .write_opt(writes, &how)
            .map_err(|error| self.failed("writing to", error))?;
        for (letter, from, to) in forgotten {
            self.forgotten.put(letter, from.clone(), to.clone());
        }
        if !self.wal && synced == Synced::Yes {
            self.flush()?;
        }
        Ok(())
    }

    /// With one buffer full, the next to fill up may be followed by a pause.
    fn takes_at_once(&self) -> bool {
        let zero = |family: &ColumnFamily, property: &CStr| {
            let value = self.db.property_int_value_cf(family, property);
            matches!(value, Ok(Some(0)))
        };
        !self.wal
            && self.families.of(&self.db).all().iter().all(|family| {
                [
                    c"rocksdb.num-immutable-mem-table",
                    c"rocksdb.actual-delayed-write-rate",
                    c"rocksdb.is-write-stopped",
                ]
                .iter()
                .all(|property| zero(family, property))
            })
    }

    fn flush(&self) -> Result<(), DiskError> {
        let result = if self.wal {
            self.db.flush_wal(true)
        } else {
            let families = self.families.of(&self.db).all();
            self.db.flush_cfs_opt(&families, &FlushOptions::default())
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

    fn reclaim(&self) -> Result<(), DiskError> {
        self.drop_forgotten()?;
        self.reclaim
            .begin(&self.db)
            .map_err(|error| self.failed("reclaiming the room of", error))
    }

    fn prefetch(&self, newest_bytes: u64) {
        prefetch::tables(&self.db, &self.path());
        prefetch::values(&self.path(), newest_bytes);
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
        let families = self.families.of(&self.db).all();
        let mut bytes = 0;
        for property in [
            c"rocksdb.total-sst-files-size",
            c"rocksdb.total-blob-file-size",
            c"rocksdb.cur-size-all-mem-tables",
        ] {
            for family in &families {
                let value = self
                    .db
                    .property_int_value_cf(*family, property)
                    .map_err(|error| self.failed("measuring", error))?;
                bytes += value.unwrap_or(0);
            }
        }
        Ok(bytes)
    }
}

/// By key, for RocksDB finds the place of what comes right behind what it inserted last without a search. Those of one key stay in
/// their order; so does all of a batch with a range in it, which covers what came before it and not what comes after.
fn in_order(batch: &Batch) -> Vec<&Operation> {
    fn key(operation: &Operation) -> Option<&Bytes> {
        match operation {
            Operation::Put { key, .. } | Operation::Delete { key } => Some(key),
            Operation::DeleteRange { .. } | Operation::Forget { .. } => None,
        }
    }
    let mut operations: Vec<_> = batch.operations().iter().collect();
    if operations.iter().all(|operation| key(operation).is_some()) {
        operations.sort_by(|one, other| key(one).cmp(&key(other)));
    }
    operations
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
    families: Families,
    name: String,
    path: PathBuf,
}

impl View {
    fn then(&self) -> Reading<'_> {
        Reading {
            db: self.moment.borrow_owner(),
            moment: Some(self.moment.borrow_dependent()),
            families: self.families.of(self.moment.borrow_owner()),
            name: &self.name,
            path: self.path.clone(),
        }
    }
}

impl Reader for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        self.then().get(key)
    }

    fn multi_get(&self, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, DiskError> {
        self.then().multi_get(keys)
    }

    fn iterate(&self, range: &Range, order: Order) -> Result<Pairs<'_>, DiskError> {
        Ok(self.then().iterate(range, order))
    }
}

fn mode(order: Order) -> IteratorMode<'static> {
    match order {
        Order::Ascending => IteratorMode::Start,
        Order::Descending => IteratorMode::End,
    }
}

fn as_of(moment: Option<&Snapshot<'_>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    if let Some(moment) = moment {
        options.set_snapshot(moment);
    }
    options
}

fn bounded(range: &Range, moment: Option<&Snapshot<'_>>) -> ReadOptions {
    let mut options = as_of(moment);
    options.set_verify_checksums(true);
    options.set_iterate_lower_bound(range.from.clone());
    if let Some(to) = &range.to {
        options.set_iterate_upper_bound(to.clone());
    }
    options
}

type Raw = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

fn pair_of(pair: Raw, path: &Path) -> Result<(Bytes, Bytes), DiskError> {
    match pair {
        Ok((key, value)) => Ok((Bytes::from(key), Bytes::from(value))),
        Err(error) => {
            let what = format!("reading a range of {}", name(path));
            Err(translate(path, &what, error))
        }
    }
}

/// A database's name is its folder's.
fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// RocksDB's errors are text with a class in front; for corruption the text names the file, or `blobs` does.
fn translate(path: &Path, what: &str, error: rocksdb::Error) -> DiskError {
    let text = error.as_ref();
    if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
        return DiskError::Full {
            what: what.to_owned(),
        };
    }
    match error.kind() {
        ErrorKind::Corruption if text.contains(".sst") => DiskError::corrupt(what, text),
        ErrorKind::Corruption => match blobs::damaged(path) {
            Some(file) => DiskError::corrupt(what, format!("{text} in {file}")),
            None => DiskError::corrupt(what, text),
        },
        ErrorKind::ShutdownInProgress => DiskError::Closed {
            what: what.to_owned(),
        },
        _ => DiskError::Io {
            what: what.to_owned(),
            source: std::io::Error::other(text.to_owned()),
        },
    }
}
