//! RocksDB's logs (the write-ahead log and the MANIFEST), looked through before it opens them.
//!
//! Its own reader takes some damage for an end: a record whose length leads behind the file's end counts as torn by a crash, and one
//! whose kind became that of a recycled file's as left over from before, so that what was synced behind it would be forgotten in silence
//! (or, in a MANIFEST, its reader never returns). Format: github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format.

use std::fs;
use std::io;
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Whole, first, middle and last: what RocksDB writes as it is opened here.
const KINDS: std::ops::RangeInclusive<u8> = 1..=4;

/// What is wrong with a database's logs, by the name of the file; None where nothing is, or where RocksDB says it itself.
pub(super) fn damage(database: &Path) -> io::Result<Option<String>> {
    let files = match fs::read_dir(database) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Some(damage) = current(database)? {
        return Ok(Some(damage));
    }
    for file in files {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if (name.starts_with("MANIFEST-") || name.ends_with(".log"))
            && let Some(at) = damaged_at(&fs::read(&path)?)
        {
            return Ok(Some(format!(
                "{}: the record at byte {at} is damaged",
                path.display()
            )));
        }
    }
    Ok(None)
}

/// The file that names the MANIFEST has no checksum. Without it RocksDB takes the folder for a new database, and its files for rubbish.
fn current(database: &Path) -> io::Result<Option<String>> {
    let path = database.join("CURRENT");
    let says = match fs::read(&path) {
        Ok(content) => String::from_utf8(content).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let has_tables = fs::read_dir(database)?.flatten().any(|file| {
                let path = file.path();
                path.extension().is_some_and(|kind| kind == "sst")
            });
            return Ok(has_tables.then(|| format!("{} is gone", path.display())));
        }
        Err(error) => return Err(error),
    };
    let named = says.strip_suffix('\n');
    let named = named.filter(|name| name.starts_with("MANIFEST-"));
    let is_there = named.is_some_and(|name| database.join(name).is_file());
    Ok((!is_there).then(|| format!("{}: it names no MANIFEST that is there", path.display())))
}

/// Where a record begins that is neither whole nor torn.
fn damaged_at(content: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(header) = header_at(content, at) {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let end = at + HEADER + header.len;
        if header == Header::default() {
            // Room that was set aside and not written.
            return None;
        }
        if !KINDS.contains(&header.kind) {
            return Some(at);
        }
        if end > content.len() {
            let torn = !goes_on(content, at);
            return (!torn).then_some(at);
        }
        if HEADER + header.len > left {
            return Some(at);
        }
        at = end;
    }
    None
}

/// Whether what reaches behind the file's end is not torn off there: it is whole with another length, or sound records follow.
fn goes_on(content: &[u8], at: usize) -> bool {
    let Some(header) = header_at(content, at) else {
        return false;
    };
    let mut sum = header.begun();
    let whole = content[at + HEADER..].iter().any(|byte| {
        sum.update(&[*byte]);
        header.is(&sum)
    });
    // By bytes, for nothing says where the next begins.
    whole
        || (at + 1..content.len()).any(|next| {
            header_at(content, next).is_some_and(|header| {
                let body = next + HEADER..next + HEADER + header.len;
                let body = content.get(body);
                header.len > 0 && body.is_some_and(|body| header.covers(body))
            })
        })
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Header {
    checksum: u32,
    len: usize,
    kind: u8,
}

impl Header {
    /// The checksum is over the kind and the body.
    fn begun(&self) -> Digest {
        let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
        sum.update(&[self.kind]);
        sum
    }

    fn is(&self, sum: &Digest) -> bool {
        super::blobs::mask(sum.finalize() as u32) == self.checksum
    }

    fn covers(&self, body: &[u8]) -> bool {
        let mut sum = self.begun();
        sum.update(body);
        KINDS.contains(&self.kind) && self.is(&sum)
    }
}

fn header_at(content: &[u8], at: usize) -> Option<Header> {
    let bytes = content.get(at..at + HEADER)?;
    Some(Header {
        checksum: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        len: usize::from(u16::from_le_bytes([bytes[4], bytes[5]])),
        kind: bytes[6],
    })
}
