//! The frame of every file of a backup: what it is ‖ its head ‖ its items, compressed ‖ SHA-256 of all before.

use eventstore::{CodecError, decode, encode};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::io::{Read, Write};

const SUM_BYTES: usize = 32;
const LEN_BYTES: usize = 4;
/// Above what an item may have: an event of the largest entry, with its bodies.
const MOST_ITEM_BYTES: usize = eventstore::DECODE_LIMIT;

/// Why a file is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("it is no {0}")]
    Kind(&'static str),
    #[error("it is cut short")]
    Short,
    #[error("its checksum is wrong")]
    Sum,
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("it cannot be unpacked: {0}")]
    Packed(#[from] std::io::Error),
    #[error("its head says {0}")]
    Head(String),
}

/// Builds a file item by item; the head comes last, for it tells of them.
pub(super) struct Builder {
    items: GzEncoder<Vec<u8>>,
}

impl Builder {
    pub fn new() -> Self {
        Self {
            items: GzEncoder::new(Vec::new(), Compression::fast()),
        }
    }

    /// Says how many bytes it is before compression.
    pub fn add<T: Serialize>(&mut self, item: &T) -> Result<usize, FileError> {
        let bytes = encode(item);
        self.items.write_all(&(bytes.len() as u32).to_be_bytes())?;
        self.items.write_all(&bytes)?;
        Ok(bytes.len())
    }

    pub fn finish<H: Serialize>(self, kind: &str, head: &H) -> Result<Vec<u8>, FileError> {
        let items = self.items.finish()?;
        let head = encode(head);
        let mut file =
            Vec::with_capacity(kind.len() + LEN_BYTES + head.len() + items.len() + SUM_BYTES);
        file.extend_from_slice(kind.as_bytes());
        file.extend_from_slice(&(head.len() as u32).to_be_bytes());
        file.extend_from_slice(&head);
        file.extend_from_slice(&items);
        let sum = Sha256::digest(&file);
        file.extend_from_slice(&sum);
        Ok(file)
    }
}

/// The head, and the items one after the other. The checksum is looked at first.
pub(super) fn read<H: DeserializeOwned, T: DeserializeOwned>(
    kind: &'static str,
    file: &[u8],
) -> Result<(H, Vec<T>), FileError> {
    let (content, sum) = file
        .split_last_chunk::<SUM_BYTES>()
        .ok_or(FileError::Short)?;
    if !content.starts_with(kind.as_bytes()) {
        return Err(FileError::Kind(kind.trim_end()));
    }
    if Sha256::digest(content).as_slice() != sum {
        return Err(FileError::Sum);
    }
    let (head, packed) = head(kind, content)?;
    let mut unpacked = GzDecoder::new(packed);
    let mut items = Vec::new();
    loop {
        let mut len = [0; LEN_BYTES];
        match unpacked.read(&mut len[..1])? {
            0 => return Ok((head, items)),
            _ => unpacked.read_exact(&mut len[1..])?,
        }
        let len = u32::from_be_bytes(len) as usize;
        if len > MOST_ITEM_BYTES {
            return Err(FileError::Short);
        }
        let mut bytes = vec![0; len];
        unpacked.read_exact(&mut bytes)?;
        items.push(decode(&bytes)?);
    }
}

/// The head alone, from the beginning of a file; its checksum is not looked at.
pub(super) fn head<'a, H: DeserializeOwned>(
    kind: &'static str,
    file: &'a [u8],
) -> Result<(H, &'a [u8]), FileError> {
    let rest = file
        .strip_prefix(kind.as_bytes())
        .ok_or(FileError::Kind(kind.trim_end()))?;
    let (len, rest) = rest
        .split_first_chunk::<LEN_BYTES>()
        .ok_or(FileError::Short)?;
    let (head, rest) = rest
        .split_at_checked(u32::from_be_bytes(*len) as usize)
        .ok_or(FileError::Short)?;
    Ok((decode(head)?, rest))
}
