//! The database's values, each under a checksum of its own.
//!
//! RocksDB checks its blocks and names the file; these name the key and revision, and catch what went wrong above the file, a value
//! under another's key included: the sum covers the key. A record is CRC-32(key ‖ rest), then the rest. What begins with a format number
//! is frozen: a new shape gets a new number.

use crate::layout::Birth;
use bytes::Bytes;
use eventstore::{
    CodecError, Deletion, Digest, Key, Object, Position, Salt, Stamps, Time, decode, encode,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;
use uuid::Uuid;

const SUM_BYTES: usize = 4;
const OBJECT_1: u8 = 1;
const GONE_1: u8 = 2;
const EVENT_1: u8 = 1;

/// Why a value is not what was written; the reader says of what.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("its checksum is wrong")]
    Sum,
    #[error("it is too short")]
    Short,
    #[error("it has the unknown format {0}")]
    Format(u8),
    #[error("it makes no sense: {0}")]
    Sense(&'static str),
    #[error("{0}")]
    Codec(#[from] CodecError),
}

/// Where a database stands. Written with every group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub position: Position,
    pub clock: Time,
    pub cluster: Uuid,
    pub level: u32,
    pub revision: u64,
    pub digest: Digest,
    /// `View::round`: the last `round` event, which apply needs after a start.
    pub round: u64,
    /// How many events there are.
    pub events: u64,
    /// History is whole from this revision on; 0: from the beginning.
    pub horizon: u64,
    pub forgotten_up_to: u64,
    /// The sequence number of the oldest outcome kept: where a start begins to read them.
    pub outcomes_from: u64,
    /// Raft's own, opaque.
    pub raft: Vec<u8>,
}

/// A resource's books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResourceBooks {
    pub last_change: u64,
    /// Creations and deletions since the last key set.
    pub births: u64,
}

/// One version of an object, or that it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Versioned {
    Object(Arc<Object>),
    Gone,
}

pub(crate) fn seal(key: &[u8], capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut value = Vec::with_capacity(SUM_BYTES + capacity);
    value.extend_from_slice(&[0; SUM_BYTES]);
    write(&mut value);
    let sum = sum(key, &value[SUM_BYTES..]);
    value[..SUM_BYTES].copy_from_slice(&sum.to_le_bytes());
    value.into()
}

pub(crate) fn unseal(key: &[u8], value: &Bytes) -> Result<Bytes, Damage> {
    let (stored, rest) = value
        .split_first_chunk::<SUM_BYTES>()
        .ok_or(Damage::Short)?;
    if u32::from_le_bytes(*stored) != sum(key, rest) {
        return Err(Damage::Sum);
    }
    Ok(value.slice(SUM_BYTES..))
}

fn sum(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

pub(crate) fn seal_coded<T: Serialize>(key: &[u8], value: &T) -> Bytes {
    let coded = encode(value);
    seal(key, coded.len(), |out| out.extend_from_slice(&coded))
}

pub(crate) fn unseal_coded<T: DeserializeOwned>(key: &[u8], value: &Bytes) -> Result<T, Damage> {
    Ok(decode(&unseal(key, value)?)?)
}

pub(crate) fn seal_number(key: &[u8], number: u64) -> Bytes {
    seal(key, 8, |out| out.extend_from_slice(&number.to_be_bytes()))
}

pub(crate) fn unseal_number(key: &[u8], value: &Bytes) -> Result<u64, Damage> {
    let rest = unseal(key, value)?;
    Ok(u64::from_be_bytes(
        rest.as_ref().try_into().map_err(|_| Damage::Short)?,
    ))
}

/// Which name began (true) or ceased (false) to live.
pub(crate) fn seal_birth(key: &[u8], namespace: &str, name: &str, lives: bool) -> Bytes {
    seal(key, 2 + namespace.len() + name.len(), |out| {
        out.push(u8::from(lives));
        out.extend_from_slice(namespace.as_bytes());
        out.push(0);
        out.extend_from_slice(name.as_bytes());
    })
}

pub(crate) fn unseal_birth(key: &[u8], value: &Bytes) -> Result<Birth, Damage> {
    let rest = unseal(key, value)?;
    let (lives, names) = rest.split_first().ok_or(Damage::Short)?;
    let names = std::str::from_utf8(names).map_err(|_| Damage::Sense("names are not UTF-8"))?;
    let (namespace, name) = names
        .split_once('\0')
        .ok_or(Damage::Sense("a name is missing"))?;
    Ok(((namespace.into(), name.into()), *lives == 1))
}

pub(crate) fn seal_event(key: &[u8], digest: Digest, envelope: &[u8]) -> Bytes {
    seal(key, 33 + envelope.len(), |out| {
        out.push(EVENT_1);
        out.extend_from_slice(&digest.0);
        out.extend_from_slice(envelope);
    })
}

/// The digest, and the envelope as the chain covers it.
pub(crate) fn unseal_event(key: &[u8], value: &Bytes) -> Result<(Digest, Bytes), Damage> {
    let rest = unseal(key, value)?;
    let mut fields = Fields(&rest);
    match fields.byte()? {
        EVENT_1 => Ok((Digest(fields.take()?), rest.slice(33..))),
        other => Err(Damage::Format(other)),
    }
}

pub(crate) fn seal_gone(key: &[u8]) -> Bytes {
    seal(key, 1, |out| out.push(GONE_1))
}

/// The object as it was served, headed by what is known of it without reading JSON.
pub(crate) fn seal_object(key: &[u8], object: &Object) -> Bytes {
    seal(key, OBJECT_HEAD_BYTES + object.bytes.len(), |out| {
        let stamps = &object.stamps;
        let deletion = stamps.deletion.unwrap_or(Deletion {
            at: Time::default(),
            grace_s: 0,
        });
        out.push(OBJECT_1);
        out.extend_from_slice(stamps.uid.as_bytes());
        out.extend_from_slice(&stamps.revision.to_be_bytes());
        out.extend_from_slice(&stamps.created.ms().to_be_bytes());
        out.push(u8::from(stamps.deletion.is_some()));
        out.extend_from_slice(&deletion.at.ms().to_be_bytes());
        out.extend_from_slice(&deletion.grace_s.to_be_bytes());
        out.extend_from_slice(&object.cut.0.to_be_bytes());
        out.extend_from_slice(&object.cut.1.to_be_bytes());
        out.extend_from_slice(&object.salt.0);
        out.extend_from_slice(&object.hash.0);
        out.extend_from_slice(&object.bytes);
    })
}

const OBJECT_HEAD_BYTES: usize = 1 + 16 + 8 + 8 + 1 + 8 + 8 + 4 + 4 + 16 + 32;

/// The bytes are shared with the value that was read.
pub(crate) fn unseal_version(
    disk_key: &[u8],
    key: &Key,
    value: &Bytes,
) -> Result<Versioned, Damage> {
    let rest = unseal(disk_key, value)?;
    let mut fields = Fields(&rest);
    match fields.byte()? {
        GONE_1 => return Ok(Versioned::Gone),
        OBJECT_1 => {}
        other => return Err(Damage::Format(other)),
    }
    let uid = Uuid::from_bytes(fields.take()?);
    let revision = u64::from_be_bytes(fields.take()?);
    let created = Time::from_ms(i64::from_be_bytes(fields.take()?));
    let deleting = fields.byte()? == 1;
    let deletion = Deletion {
        at: Time::from_ms(i64::from_be_bytes(fields.take()?)),
        grace_s: i64::from_be_bytes(fields.take()?),
    };
    let cut = (
        u32::from_be_bytes(fields.take()?),
        u32::from_be_bytes(fields.take()?),
    );
    let salt = Salt(fields.take()?);
    let hash = Digest(fields.take()?);
    let bytes = rest.slice(OBJECT_HEAD_BYTES..);
    if cut.0 > cut.1 || cut.1 as usize > bytes.len() {
        return Err(Damage::Sense("the stamps lie outside the object"));
    }
    let stamps = Stamps {
        uid,
        revision,
        created,
        deletion: deleting.then_some(deletion),
    };
    Ok(Versioned::Object(Arc::new(Object {
        key: key.clone(),
        stamps,
        bytes,
        cut,
        salt,
        hash,
    })))
}

/// Reads fields of fixed size off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        self.take::<1>().map(|[byte]| byte)
    }
}
