//! How a batch lies in a segment: as a record of whole sectors.
//!
//! A sector is what a disk writes whole or not at all. Each begins with a stamp of the segment, another for a record's first sector than
//! for the rest, so that what a crash tore (a sector still has the stamp of before) is told from what a disk has damaged (a sector has
//! been written, and is not what was written). Content can't pass for a stamp, for it never lies in the place of one.
//!
//! ```text
//! record  = sectors; the last is filled up with zeros
//! sector  = stamp, 504 bytes
//! stamp   = segment's number u32, sum of that and of which of the two it is u32
//! first   = stamp, sequence u64, durable u64, content's length u32, sum of all that follows u32, sum of this header u32, content…
//! content = operations, each: kind u8, key's length u32, value's length u32, key, value
//! ```
//!
//! Numbers are little-endian, sums are CRC32C. `durable` is the sequence up to which, without it, everything was synced when the record was
//! written: the witness that what is missing before it was there.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use crate::disk::{Batch, Operation};

pub(super) const SECTOR: usize = 512;
const STAMP: usize = 8;
/// Of a sector, without its stamp.
const ROOM: usize = SECTOR - STAMP;
const HEADER: usize = 28;
/// The header without its own sum.
const HEADER_FIELDS: usize = HEADER - 4;
const OPERATION: usize = 9;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// What a sector's stamp says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    First,
    Rest,
    /// Not since the file became this segment.
    No,
    Damaged,
}

/// The stamps of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamps {
    first: [u8; STAMP],
    rest: [u8; STAMP],
}

impl Stamps {
    pub(super) fn of(number: u64) -> Self {
        // Of two that are both on the disk, none is four thousand million behind the other.
        let number = number as u32;
        Self {
            first: stamp(number, Written::First),
            rest: stamp(number, Written::Rest),
        }
    }

    pub(super) fn read(&self, sector: &[u8]) -> Written {
        let Some(found) = sector.first_chunk::<STAMP>() else {
            return Written::No;
        };
        if *found == self.first {
            return Written::First;
        }
        if *found == self.rest {
            return Written::Rest;
        }
        let number = u32::from_le_bytes(std::array::from_fn(|byte| found[byte]));
        let of_another = [Written::First, Written::Rest]
            .iter()
            .any(|kind| *found == stamp(number, *kind));
        if of_another || *found == [0; STAMP] {
            Written::No
        } else {
            Written::Damaged
        }
    }
}

fn stamp(number: u32, kind: Written) -> [u8; STAMP] {
    let number = number.to_le_bytes();
    let sum = checksum(&[&number, &[kind as u8]]).to_le_bytes();
    let mut stamp = [0; STAMP];
    stamp[..4].copy_from_slice(&number);
    stamp[4..].copy_from_slice(&sum);
    stamp
}

/// Where in its record a value lies: counted without stamps, from the first sector's on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Within {
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Within {
    /// Which bytes of the record hold it.
    pub(super) fn range(self) -> std::ops::Range<usize> {
        let end = self.at + self.len;
        let last = end.saturating_sub(1).max(self.at);
        physical(self.at)..if self.len == 0 {
            physical(self.at)
        } else {
            physical(last) + 1
        }
    }

    /// The value, from those bytes.
    pub(super) fn strip(self, bytes: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.len);
        let mut left = bytes;
        let mut room = ROOM - self.at % ROOM;
        while !left.is_empty() {
            let (part, rest) = left.split_at(room.min(left.len()));
            value.extend_from_slice(part);
            left = rest.get(STAMP..).unwrap_or_default();
            room = ROOM;
        }
        value
    }
}

fn physical(at: usize) -> usize {
    at / ROOM * SECTOR + STAMP + at % ROOM
}

/// The bytes of a record with so much content.
fn sectors(content: usize) -> usize {
    (HEADER + content).div_ceil(ROOM) * SECTOR
}

/// The bytes that a batch's record takes.
pub(super) fn len(batch: &Batch) -> usize {
    sectors(batch.bytes() + OPERATION * batch.operations().len())
}

/// What a write past the system's cache has to be aligned to in memory, on any disk.
const ALIGNMENT: usize = 4 << 10;

/// A record being put together; its memory is used again.
#[derive(Default)]
pub(super) struct Image {
    /// The record, from `begin` on.
    bytes: Vec<u8>,
    begin: usize,
}

impl Image {
    /// The record of a batch, aligned, and where the value of each of its operations lies.
    pub(super) fn record(
        &mut self,
        stamps: &Stamps,
        sequence: u64,
        durable: u64,
        batch: &Batch,
    ) -> (&[u8], Vec<Within>) {
        let content = batch.bytes() + OPERATION * batch.operations().len();
        self.bytes.clear();
        // So much that it stays where it is.
        self.bytes.reserve(ALIGNMENT + sectors(content));
        self.begin = self.bytes.as_ptr().align_offset(ALIGNMENT) % ALIGNMENT;
        self.bytes.resize(self.begin, 0);
        self.bytes.extend_from_slice(&stamps.first);
        self.bytes.extend_from_slice(&[0; HEADER]);
        let mut at = HEADER;
        let mut places = Vec::with_capacity(batch.operations().len());
        for operation in batch.operations() {
            let (kind, key, value): (_, &[u8], &[u8]) = match operation {
                Operation::Put { key, value } => (PUT, key, value),
                Operation::Delete { key } => (DELETE, key, &[]),
                Operation::DeleteRange { from, to } | Operation::Forget { from, to } => {
                    (DELETE_RANGE, from, to)
                }
            };
            let mut fields = [kind; OPERATION];
            fields[1..5].copy_from_slice(&(key.len() as u32).to_le_bytes());
            fields[5..].copy_from_slice(&(value.len() as u32).to_le_bytes());
            for part in [&fields[..], key, value] {
                self.push(stamps, part);
            }
            at += OPERATION + key.len() + value.len();
            let len = value.len();
            places.push(Within { at: at - len, len });
        }
        let len = (self.bytes.len() - self.begin).next_multiple_of(SECTOR);
        self.bytes.resize(self.begin + len, 0);
        let record = &mut self.bytes[self.begin..];
        let body = checksum(&[&record[STAMP + HEADER..]]);
        let header = &mut record[STAMP..STAMP + HEADER];
        header[..8].copy_from_slice(&sequence.to_le_bytes());
        header[8..16].copy_from_slice(&durable.to_le_bytes());
        header[16..20].copy_from_slice(&(content as u32).to_le_bytes());
        header[20..24].copy_from_slice(&body.to_le_bytes());
        let sum = checksum(&[&stamps.first, &header[..HEADER_FIELDS]]);
        header[HEADER_FIELDS..].copy_from_slice(&sum.to_le_bytes());
        (record, places)
    }

    fn push(&mut self, stamps: &Stamps, mut part: &[u8]) {
        while !part.is_empty() {
            let used = (self.bytes.len() - self.begin) % SECTOR;
            if used == 0 {
                self.bytes.extend_from_slice(&stamps.rest);
                continue;
            }
            let (now, later) = part.split_at(part.len().min(SECTOR - used));
            self.bytes.extend_from_slice(now);
            part = later;
        }
    }
}

/// A record's first bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) durable: u64,
    content: usize,
    body: u32,
}

impl Header {
    /// Of a first sector, if it is sound.
    pub(super) fn of(sector: &[u8]) -> Option<Self> {
        let (stamp, rest) = sector.split_first_chunk::<STAMP>()?;
        let header = rest.first_chunk::<HEADER>()?;
        let sum = checksum(&[stamp, &header[..HEADER_FIELDS]]);
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        let int = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
        (sum == int(HEADER_FIELDS)).then(|| Self {
            sequence: long(0),
            durable: long(8),
            content: int(16) as usize,
            body: int(20),
        })
    }

    /// How many bytes the record takes.
    pub(super) fn len(&self) -> usize {
        sectors(self.content)
    }

    /// Its operations, each with where its value lies; None: it is not what was written.
    pub(super) fn operations(&self, record: &[u8]) -> Option<Vec<(Operation, Within)>> {
        let body = record.get(STAMP + HEADER..)?;
        if record.len() != self.len() || checksum(&[body]) != self.body {
            return None;
        }
        let (at, len) = (HEADER, self.content);
        let content = Within { at, len };
        let content = Bytes::from(content.strip(record.get(content.range())?));
        let mut operations = Vec::new();
        let mut at = 0;
        while at < content.len() {
            let fields = content.get(at..at + OPERATION)?;
            let int = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| fields[at + byte]));
            let (key, len) = (int(1) as usize, int(5) as usize);
            let from = at + OPERATION;
            at = from.checked_add(key)?.checked_add(len)?;
            if at > content.len() {
                return None;
            }
            let value = content.slice(from + key..at);
            let key = content.slice(from..from + key);
            let operation = match fields[0] {
                PUT => Operation::Put { key, value },
                DELETE => Operation::Delete { key },
                DELETE_RANGE => Operation::DeleteRange {
                    from: key,
                    to: value,
                },
                _ => return None,
            };
            let within = Within {
                at: HEADER + at - len,
                len,
            };
            operations.push((operation, within));
        }
        Some(operations)
    }
}

pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        sum.update(part);
    }
    sum.finalize() as u32
}
