//! All of a database that is not open, read once, so that what is damaged shows before it is used.
//!
//! RocksDB checks a block when it is read, and a snapshot's receiver reads no more than what lives: of the past, damage would
//! travel and be found years later. Every key is gone through with its value, past the cache, so that each block and each large
//! value is held against its checksum. What no key leads to is not read, here or ever.

use std::path::Path;

use rocksdb::{DB, Options, ReadOptions};

use super::{framing, translate};
use crate::disk::DiskError;

/// Read at once: it is gone through in order.
const READ_AHEAD_BYTES: usize = 2 << 20;

/// An error names the file.
pub(crate) fn verify(path: &Path) -> Result<(), DiskError> {
    let doing = format!("verifying {}", path.display());
    match framing::damage(path) {
        Ok(None) => {}
        Ok(Some(damage)) => return Err(DiskError::corrupt(doing, damage)),
        Err(error) => return Err(DiskError::io(doing, error)),
    }
    let failed = |error: rocksdb::Error| {
        // A file that should be there.
        if error.as_ref().contains("No such file") {
            return DiskError::corrupt(&doing, error.as_ref());
        }
        translate(path, &doing, error)
    };
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    let names = DB::list_cf(&options, path).map_err(failed)?;
    let db = DB::open_cf_for_read_only(&options, path, &names, false).map_err(failed)?;
    for name in &names {
        let Some(family) = db.cf_handle(name) else {
            continue;
        };
        let mut reading = ReadOptions::default();
        reading.set_verify_checksums(true);
        reading.fill_cache(false);
        reading.set_readahead_size(READ_AHEAD_BYTES);
        let mut pairs = db.raw_iterator_cf_opt(family, reading);
        pairs.seek_to_first();
        while pairs.valid() {
            pairs.next();
        }
        pairs.status().map_err(failed)?;
    }
    Ok(())
}
