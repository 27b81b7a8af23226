//! How envelopes, proposals and entries become bytes: a magic byte, a format version, then bincode of a flat frozen struct.
//!
//! bincode has no field names: an appended field breaks old bytes. So a struct that is written is never changed; a new version gets a new
//! number and a struct of its own, and tests hold the bytes of each version (`tests/golden`).

use serde::{Serialize, de::DeserializeOwned};

/// First byte of all that this crate writes.
const MAGIC: u8 = 0xD7;
/// The format that is written, and the only one there is so far.
pub const FORMAT: u8 = 1;
/// What most of what is encoded fits into: an envelope, a proposal of a small object.
const USUAL_BYTES: usize = 512;
/// Above the largest entry (9 MiB) with its framing: what a decoder may allocate.
pub const DECODE_LIMIT: usize = 10 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("not written by this program: first byte {0:#04x}")]
    Magic(u8),
    #[error("format {0} is newer than this program knows ({FORMAT}): upgrade this server")]
    Format(u8),
    #[error("empty")]
    Empty,
    #[error("cannot be decoded: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    #[error("{0} bytes follow the end")]
    Trailing(usize),
}

/// Encodes; cannot fail for this crate's types, which hold no maps of unknown length and no unsupported shapes.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_large(value, 0)
}

/// The same, of what has about so many bytes above the usual.
pub fn encode_large<T: Serialize>(value: &T, more_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES + more_bytes);
    bytes.extend_from_slice(&[MAGIC, FORMAT]);
    write(&mut bytes, value);
    bytes
}

/// What `encode` makes of a struct of `head` and a list, from what it made of each of the list's items: bincode puts one value behind
/// another, a list's length first.
pub(crate) fn encode_list<H: Serialize, I: AsRef<[u8]>>(head: &H, items: &[I]) -> Vec<u8> {
    let len: usize = items.iter().map(|item| item.as_ref().len()).sum();
    let mut bytes = Vec::with_capacity(USUAL_BYTES + len);
    bytes.extend_from_slice(&[MAGIC, FORMAT]);
    write(&mut bytes, head);
    write(&mut bytes, &(items.len() as u64));
    for item in items {
        let item = item.as_ref();
        assert!(
            item.starts_with(&[MAGIC, FORMAT]),
            "each item was encoded by itself"
        );
        bytes.extend_from_slice(&item[2..]);
    }
    bytes
}

fn write<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    bincode::serde::encode_into_std_write(value, bytes, config())
        .expect("writing our own flat types into memory does not fail");
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes {
        [] | [_] => return Err(CodecError::Empty),
        [MAGIC, FORMAT, ..] => {}
        [MAGIC, format, ..] => return Err(CodecError::Format(*format)),
        [other, ..] => return Err(CodecError::Magic(*other)),
    }
    let (value, read) = bincode::serde::decode_from_slice(&bytes[2..], config())?;
    match bytes.len() - 2 - read {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}

fn config() -> bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<DECODE_LIMIT>,
> {
    bincode::config::standard().with_limit::<DECODE_LIMIT>()
}
