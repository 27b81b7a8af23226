//! A log that RocksDB held, as Reckon's first servers wrote it, becomes segments when it is opened.
//!
//! The whole of it goes into one segment under another name, which is given its own once it is synced: a crash before that leaves the old
//! log, and after it the new one, and the old one's files are removed at the next start.

use std::fs;
use std::path::Path;

use super::record::Image;
use super::segment::{self, SEGMENT_BYTES, Segment};
use crate::directory::sync_folder;
use crate::disk::{Batch, DiskError, DiskOptions, Order, Range, Reader};
use crate::rocks::Rocks;

/// In a folder beside, which a crash may leave behind.
const BESIDE: &str = "migrating";
/// What one record takes of it.
const RECORD_BYTES: usize = 4 << 20;

pub(super) fn from_rocks(parent: &Path, name: &str) -> Result<(), DiskError> {
    let folder = parent.join(name);
    if !folder.join("CURRENT").exists() {
        return Ok(());
    }
    if !segment::any(&folder)? {
        tracing::info!(log = %folder.display(), "turning a log that RocksDB held into segments");
        copy(parent, name)?;
    }
    remove(&folder)
}

fn copy(parent: &Path, name: &str) -> Result<(), DiskError> {
    // Before anything else: one that is damaged is refused, and left as it is.
    let rocks = Rocks::open(parent, name, &DiskOptions::with_wal())?;
    let folder = parent.join(name);
    let beside = folder.join(BESIDE);
    let failed = |error| segment::failed("making", &beside, error);
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(failed)?;
    }
    fs::create_dir(&beside).map_err(failed)?;
    let segment = Segment::create(&beside, 1, SEGMENT_BYTES)?;
    let (mut image, mut at, mut sequence) = (Image::default(), 0, 1);
    let mut put = |batch: &Batch| -> Result<(), DiskError> {
        let (record, _) = image.record(&segment.stamps, sequence, sequence, batch);
        segment.write(record, at)?;
        at += record.len() as u64;
        sequence += 1;
        Ok(())
    };
    let mut batch = Batch::new();
    for pair in rocks.iterate(&Range::all(), Order::Ascending)? {
        let (key, value) = pair?;
        batch.put(key, value);
        if batch.bytes() > RECORD_BYTES {
            put(&std::mem::take(&mut batch))?;
        }
    }
    // There is one record at least: a segment without any would be a log without anything.
    put(&batch)?;
    segment.sync()?;
    drop(rocks);
    let place = folder.join(segment.path.file_name().unwrap_or_default());
    fs::rename(&segment.path, &place).map_err(|error| segment::failed("naming", &place, error))?;
    sync_folder(&folder)
}

/// All that is not the log's own.
fn remove(folder: &Path) -> Result<(), DiskError> {
    let gone = || -> std::io::Result<()> {
        let mut marks = Vec::new();
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let own = path
                .extension()
                .is_some_and(|kind| kind == "segment" || kind == "spare");
            if own {
                continue;
            }
            // The name by which RocksDB's files are known goes last.
            if path.ends_with("CURRENT") {
                marks.push(path);
            } else if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
        marks.into_iter().try_for_each(fs::remove_file)
    };
    gone().map_err(|error| segment::failed("emptying", folder, error))?;
    sync_folder(folder)
}
