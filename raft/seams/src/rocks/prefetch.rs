//! What is asked of the system before it is read: files that somebody is about to read piece by piece would hold him up at each piece.
//!
//! It is only asked. What goes wrong shows when the files are read.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rocksdb::{DB, DEFAULT_COLUMN_FAMILY_NAME};

/// Of the newest tables so much is fetched: they say where values lie.
const TABLE_BYTES_MAX: u64 = 32 << 20;
/// Of the newest values no more than this.
const VALUE_BYTES_MAX: u64 = 128 << 20;
/// Linux fetches no more than its readahead for one call.
const AT_ONCE: usize = 128 << 10;

/// The newest tables. What lies in order is read in order, and needs nobody who asks for it.
pub(super) fn tables(db: &DB, database: &Path) {
    let files = db.live_files().unwrap_or_default();
    let tables = files
        .iter()
        .filter(|file| file.column_family_name == DEFAULT_COLUMN_FAMILY_NAME)
        .map(|file| database.join(file.name.trim_start_matches('/')));
    newest(tables.collect(), TABLE_BYTES_MAX);
}

/// The newest files of large values, so many bytes of them.
pub(super) fn values(database: &Path, bytes: u64) {
    let files = fs::read_dir(database).into_iter().flatten().flatten();
    let values = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "blob"));
    newest(values.collect(), bytes.min(VALUE_BYTES_MAX));
}

fn newest(mut files: Vec<PathBuf>, bytes: u64) {
    files.sort_unstable_by_key(|path| Reverse(number(path)));
    let mut left = bytes;
    for path in files {
        if left == 0 {
            return;
        }
        left = left.saturating_sub(fetch(&path));
    }
}

/// Files are numbered as they are made.
fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// All of a file, for in it what is about to be read lies by its keys. Says how long it is.
fn fetch(path: &Path) -> u64 {
    let Ok(file) = File::open(path) else { return 0 };
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    let ahead = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
    for at in (0..len).step_by(AT_ONCE) {
        let _ = posix_fadvise(&file, at as i64, AT_ONCE as i64, ahead);
    }
    len
}
