//! Which file of large values is damaged: RocksDB finds that one is by its checksums, and does not say which.
//!
//! Format: github.com/facebook/rocksdb/wiki/BlobDB and db/blob/blob_log_format.h. Only read once something is known to be wrong.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

const MAGIC: [u8; 4] = 2_395_959_u32.to_le_bytes();
const HEADER: u64 = 30;
const FOOTER: u64 = 32;
const RECORD_HEADER: usize = 32;
/// Before the two checksums.
const RECORD_FIELDS: usize = 24;
const PIECE: usize = 64 << 10;

/// The first damaged file, with where in it the damaged record begins; else the first with a bad beginning or end, for one that is being
/// written has no end yet.
pub(super) fn damaged(database: &Path) -> Option<String> {
    let files = fs::read_dir(database).ok()?;
    let paths = files.flatten().map(|file| file.path());
    let paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "blob"))
        .collect();
    let record = paths.iter().find_map(|path| match damaged_at(path) {
        Ok(at) => at.map(|at| format!("{}: the record at byte {at}", path.display())),
        Err(error) => Some(format!("{}: {error}", path.display())),
    });
    let frame = || {
        let bad = paths.iter().find(|path| !has_frame(path).unwrap_or(false));
        bad.map(|path| format!("{}: its beginning or end", path.display()))
    };
    record.or_else(frame)
}

/// Whether the header and the footer are what they should be: both begin with the same word, and end with a checksum.
fn has_frame(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let (mut header, mut footer) = ([0; HEADER as usize], [0; FOOTER as usize]);
    file.read_exact(&mut header)?;
    file.seek(SeekFrom::End(-(FOOTER as i64)))?;
    file.read_exact(&mut footer)?;
    let sound = |bytes: &[u8]| {
        let (fields, sum) = bytes.split_at(bytes.len() - 4);
        fields.starts_with(&MAGIC) && masked(fields).to_le_bytes() == *sum
    };
    Ok(sound(&header) && sound(&footer))
}

fn damaged_at(path: &Path) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut file = BufReader::with_capacity(PIECE, file);
    io::copy(&mut file.by_ref().take(HEADER), &mut io::sink())?;
    let mut at = HEADER;
    while at + FOOTER < len {
        let mut header = [0; RECORD_HEADER];
        if at + (RECORD_HEADER as u64) > len {
            return Ok(Some(at));
        }
        file.read_exact(&mut header)?;
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        let sum = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        let body = long(0).saturating_add(long(8));
        let next = body.saturating_add(at + RECORD_HEADER as u64);
        if masked(&header[..RECORD_FIELDS]) != sum(RECORD_FIELDS) || next > len {
            return Ok(Some(at));
        }
        let mut found = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut left = body;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let part = &mut piece[..left.min(PIECE as u64) as usize];
            file.read_exact(part)?;
            found.update(part);
            left -= part.len() as u64;
        }
        if mask(found.finalize() as u32) != sum(RECORD_FIELDS + 4) {
            return Ok(Some(at));
        }
        at = next;
    }
    Ok(None)
}

fn masked(bytes: &[u8]) -> u32 {
    let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
    sum.update(bytes);
    mask(sum.finalize() as u32)
}

/// As RocksDB stores a checksum, for files that hold checksums of their own.
pub(super) fn mask(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}
