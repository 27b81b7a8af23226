//! How envelopes, proposals and entries become bytes: a magic byte, a format version, then bincode of a flat frozen struct.
//!
//! bincode has no field names: an appended field breaks old bytes. So a struct that is written is never changed; a new version gets a new
//! number and a struct of its own, and tests hold the bytes of each version (`tests/golden`).

use serde::{Serialize, de::DeserializeOwned};

/// First byte of all that this crate writes.
const MAGIC: u8 = 0xD7;
/// The format that is written, and the only one there is so far.
pub const FORMAT: u8 = 1;
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
    let mut bytes = vec![MAGIC, FORMAT];
    bincode::serde::encode_into_std_write(value, &mut bytes, config())
        .expect("writing our own flat types into memory does not fail");
    bytes
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
