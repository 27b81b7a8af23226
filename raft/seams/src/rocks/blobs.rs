//! Which file of large values is damaged: RocksDB finds that one is by its checksums, and does not say which.
//!
//! Format: github.com/facebook/rocksdb/wiki/BlobDB and db/blob/blob_log_format.h. Only read once something is known to be wrong.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

const MAGIC: [u8; 4] = 2_395_959_u32.to_le_bytes();
const VERSION: [u8; 4] = 1_u32.to_le_bytes();
const HEADER: u64 = 30;
/// There are two column families, and of RocksDB's ways to compress the last is 7.
const FAMILIES_MAX: u8 = 2;
const COMPRESSIONS_MAX: u8 = 8;
const FOOTER: u64 = 32;
const RECORD_HEADER: usize = 32;
/// Before the two checksums.
const RECORD_FIELDS: usize = 24;
const PIECE: usize = 64 << 10;

/// The first damaged file, with where in it the damaged record begins; else the first with a bad beginning, and only then one with a bad
/// end, for one that is being written has none yet.
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
    let bad = |sound: fn(&Path) -> io::Result<bool>, what: &str| {
        let bad = paths.iter().find(|path| !sound(path).unwrap_or(false));
        bad.map(|path| format!("{}: its {what}", path.display()))
    };
    record
        .or_else(|| bad(has_header, "beginning"))
        .or_else(|| bad(has_footer, "end"))
}

/// Whether the header is what it should be, or not there yet. It has no checksum: but most of it is the same in all files, for no value
/// has a time to live, and the rest is small numbers, the column family and how values are compressed.
fn has_header(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut header = [0; HEADER as usize];
    Ok(file.metadata()?.len() < HEADER || {
        file.read_exact(&mut header)?;
        let [magic, version, [family, of_family @ ..]] = [0, 4, 8].map(|at| part(&header, at));
        let (with_times, compression, times) = (header[12], header[13], &header[14..]);
        (magic, version) == (MAGIC, VERSION)
            && family < FAMILIES_MAX
            && compression < COMPRESSIONS_MAX
            && [&of_family[..], &[with_times], times].concat() == [0; 20]
    })
}

fn part(header: &[u8], at: usize) -> [u8; 4] {
    std::array::from_fn(|byte| header[at + byte])
}

/// Whether the footer begins as it should, and has its checksum.
fn has_footer(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut footer = [0; FOOTER as usize];
    file.seek(SeekFrom::End(-(FOOTER as i64)))?;
    file.read_exact(&mut footer)?;
    let (fields, sum) = footer.split_at(footer.len() - 4);
    Ok(fields.starts_with(&MAGIC) && masked(fields).to_le_bytes() == *sum)
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
