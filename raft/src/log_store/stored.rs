//! How the log lies on its disk: the keys, and entries with their checksums.
//!
//! The checksum is over key and bytes, so that a sound entry in another's place is found too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use seams::{Disk, DiskError, Order, Range};

use crate::codec::{decode, decode_entry, encode, entry_bytes, put_entry};
use crate::types::{Entry, NodeId};

const ENTRY_PREFIX: u8 = b'e';
pub(crate) const AFTER_ENTRIES: &[u8] = b"f";
pub(crate) const VOTE_KEY: &[u8] = b"m/vote";
pub(crate) const PURGED_KEY: &[u8] = b"m/purged";
pub(crate) const COMMITTED_KEY: &[u8] = b"m/committed";
pub(crate) const KNOWN_PREFIX: &[u8] = b"m/known/";
const GONE_PREFIX: &[u8] = b"m/gone/";
const CHECKSUM_BYTES: usize = 4;

/// Says that a member has left.
pub(crate) fn gone_key(id: NodeId) -> Vec<u8> {
    [GONE_PREFIX, &encode(&id)].concat()
}

/// The members that have left.
pub(crate) fn read_gone(disk: &dyn Disk) -> io::Result<BTreeSet<NodeId>> {
    let range = Range::prefix(GONE_PREFIX);
    let pairs = disk.iterate(&range, Order::Ascending).map_err(io_error)?;
    pairs
        .map(|pair| decode(&pair.map_err(io_error)?.0[GONE_PREFIX.len()..]))
        .collect()
}

/// Which disk each server was first seen with.
pub(crate) fn read_known(disk: &dyn Disk) -> io::Result<BTreeMap<NodeId, u64>> {
    let range = Range::prefix(KNOWN_PREFIX);
    let mut known = BTreeMap::new();
    for pair in disk.iterate(&range, Order::Ascending).map_err(io_error)? {
        let (key, value) = pair.map_err(io_error)?;
        let id = decode(&key[KNOWN_PREFIX.len()..])?;
        known.insert(id, decode(&value)?);
    }
    Ok(known)
}

/// Entries of a range, bounded by bytes but one at least if there is any.
pub(crate) fn read_disk(
    disk: &dyn Disk,
    from: u64,
    to: u64,
    bytes_max: usize,
) -> io::Result<Vec<Entry>> {
    let range = Range::new(entry_key(from), entry_key(to));
    let mut entries = Vec::new();
    let mut bytes = 0_usize;
    for pair in disk.iterate(&range, Order::Ascending).map_err(io_error)? {
        let (key, value) = pair.map_err(io_error)?;
        bytes = bytes.saturating_add(value.len() - CHECKSUM_BYTES.min(value.len()));
        if !entries.is_empty() && bytes > bytes_max {
            break;
        }
        entries.push(checked_entry(&key, &value)?);
    }
    Ok(entries)
}

pub(crate) fn entry_key(index: u64) -> Vec<u8> {
    let mut key = vec![ENTRY_PREFIX];
    key.extend(index.to_be_bytes());
    key
}

pub(crate) fn entry_value(entry: &Entry) -> Bytes {
    let mut value = BytesMut::with_capacity(CHECKSUM_BYTES + entry_bytes(entry));
    value.put_u32(0);
    put_entry(&mut value, entry);
    let (sum, bytes) = value.split_at_mut(CHECKSUM_BYTES);
    sum.copy_from_slice(&checksum(&entry_key(entry.log_id.index), bytes).to_be_bytes());
    value.freeze()
}

/// An entry, if it is what was written.
pub(crate) fn checked_entry(key: &[u8], value: &Bytes) -> io::Result<Entry> {
    let Some((sum, _)) = value.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(corrupt(key, "shorter than its checksum"));
    };
    let bytes = value.slice(CHECKSUM_BYTES..);
    if u32::from_be_bytes(*sum) != checksum(key, &bytes) {
        return Err(corrupt(key, "its checksum does not match"));
    }
    decode_entry(&bytes).map_err(|error| corrupt(key, &error.to_string()))
}

fn checksum(key: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(bytes);
    hasher.finalize()
}

/// Names the entry, or the key.
pub(crate) fn corrupt(key: &[u8], detail: &str) -> io::Error {
    let index = key
        .get(1..)
        .and_then(|index| index.try_into().ok())
        .map(u64::from_be_bytes);
    let what = match index {
        Some(index) => format!("entry {index} of the Raft log"),
        None => format!("key {} of the Raft log", key.escape_ascii()),
    };
    io_error(DiskError::corrupt(what, detail))
}

pub(crate) fn io_error(error: DiskError) -> io::Error {
    match error {
        DiskError::Corrupt { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
        error => io::Error::other(error),
    }
}
