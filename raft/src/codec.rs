//! The bytes of entries, votes and memberships, on disk and between servers.
//!
//! The shapes here are frozen: each value begins with a version byte, and a change of shape is a new version beside the
//! old. They are our own and not openraft's, whose shapes may move with its releases while logs stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{
    Address, Entry, EntryPayload, LogId, Membership, Payload, Position, StoredMembership, Vote,
};

const VERSION: u8 = 1;
/// What the head of a message of entries fits into.
const USUAL_HEAD_BYTES: usize = 512;

/// Before the body of an entry: version, kind, term, index.
const ENTRY_HEAD_BYTES: usize = 1 + 1 + 8 + 8;
const KIND_BLANK: u8 = 0;
const KIND_PAYLOAD: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// An entry as it lies in the log and travels.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut bytes = BytesMut::with_capacity(entry_bytes(entry));
    put_entry(&mut bytes, entry);
    bytes.freeze()
}

/// The same, behind what is there.
pub(crate) fn put_entry(bytes: &mut BytesMut, entry: &Entry) {
    let body = match &entry.payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(payload) => payload.0.clone(),
        EntryPayload::Membership(membership) => encode(&FlatMembership::from(membership)),
    };
    let kind = match &entry.payload {
        EntryPayload::Blank => KIND_BLANK,
        EntryPayload::Normal(_) => KIND_PAYLOAD,
        EntryPayload::Membership(_) => KIND_MEMBERSHIP,
    };
    let position = Position::from(entry.log_id);
    bytes.put_u8(VERSION);
    bytes.put_u8(kind);
    bytes.put_u64(position.term);
    bytes.put_u64(position.index);
    bytes.put_slice(&body);
}

/// How many bytes [`encode_entry`] makes of a payload's entry.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEAD_BYTES
        + match &entry.payload {
            EntryPayload::Normal(payload) => payload.0.len(),
            EntryPayload::Blank => 0,
            // Rare and small; an estimate does for a bound.
            EntryPayload::Membership(membership) => 64 * membership.nodes().count(),
        }
}

pub(crate) fn decode_entry(bytes: &Bytes) -> io::Result<Entry> {
    let Some((head, _)) = bytes.split_first_chunk::<ENTRY_HEAD_BYTES>() else {
        return Err(malformed("an entry shorter than its head"));
    };
    if head[0] != VERSION {
        return Err(malformed(format!("an entry of version {}", head[0])));
    }
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|offset| head[at + offset]));
    let position = Position {
        term: number(2),
        index: number(10),
    };
    let body = bytes.slice(ENTRY_HEAD_BYTES..);
    let payload = match head[1] {
        KIND_BLANK => EntryPayload::Blank,
        KIND_PAYLOAD => EntryPayload::Normal(Payload(body)),
        KIND_MEMBERSHIP => EntryPayload::Membership(decode::<FlatMembership>(&body)?.try_into()?),
        kind => return Err(malformed(format!("an entry of kind {kind}"))),
    };
    Ok(Entry {
        log_id: LogId::from(position),
        payload,
    })
}

/// A vote, flat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlatVote {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for FlatVote {
    fn from(vote: &Vote) -> Self {
        let leader = vote.leader_id();
        Self {
            term: leader.term,
            node: leader.voted_for,
            committed: vote.is_committed(),
        }
    }
}

impl From<FlatVote> for Vote {
    fn from(flat: FlatVote) -> Self {
        if flat.committed {
            Vote::new_committed(flat.term, flat.node)
        } else {
            Vote::new(flat.term, flat.node)
        }
    }
}

/// A membership, flat: joint configurations of voters, and where everyone is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlatMembership {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Address>,
}

impl From<&Membership> for FlatMembership {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership
                .nodes()
                .map(|(id, node)| (*id, node.clone()))
                .collect(),
        }
    }
}

impl TryFrom<FlatMembership> for Membership {
    type Error = io::Error;

    fn try_from(flat: FlatMembership) -> io::Result<Self> {
        Membership::new(flat.configs, flat.nodes).map_err(|error| malformed(error.to_string()))
    }
}

/// A membership with the entry that set it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FlatStoredMembership {
    position: Option<Position>,
    membership: Option<FlatMembership>,
}

pub(crate) fn encode_membership(stored: &StoredMembership) -> Bytes {
    encode(&FlatStoredMembership::from(stored))
}

/// The membership that [`encode_membership`] made these bytes of; no bytes are no membership yet.
pub(crate) fn decode_membership(bytes: &Bytes) -> io::Result<StoredMembership> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    decode::<FlatStoredMembership>(bytes)?.try_into()
}

impl From<&StoredMembership> for FlatStoredMembership {
    fn from(stored: &StoredMembership) -> Self {
        // A cluster not yet formed has a membership without any configuration, which can't be built by hand.
        let formed = !stored.membership().get_joint_config().is_empty();
        Self {
            position: stored.log_id().map(Position::from),
            membership: formed.then(|| FlatMembership::from(stored.membership())),
        }
    }
}

impl TryFrom<FlatStoredMembership> for StoredMembership {
    type Error = io::Error;

    fn try_from(flat: FlatStoredMembership) -> io::Result<Self> {
        match flat.membership {
            Some(membership) => Ok(StoredMembership::new(
                flat.position.map(LogId::from),
                membership.try_into()?,
            )),
            None => Ok(StoredMembership::default()),
        }
    }
}

/// Any flat value, with the version in front.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard()).expect(
        "flat values have nothing that can't be encoded, and memory doesn't fail to be written",
    );
    Bytes::from(bytes)
}

/// What [`encode`] makes of a struct whose fields are those of `head` and then a list of encoded entries, each copied once.
pub(crate) fn encode_with_entries<T: Serialize>(head: &T, entries: &[Entry]) -> Bytes {
    let len: usize = entries.iter().map(|entry| 16 + entry_bytes(entry)).sum();
    let mut bytes = BytesMut::with_capacity(USUAL_HEAD_BYTES + len);
    bytes.put_u8(VERSION);
    put(&mut bytes, head);
    put(&mut bytes, &(entries.len() as u64));
    for entry in entries {
        if let EntryPayload::Membership(_) = entry.payload {
            put(&mut bytes, &encode_entry(entry));
        } else {
            put(&mut bytes, &(entry_bytes(entry) as u64));
            put_entry(&mut bytes, entry);
        }
    }
    bytes.freeze()
}

fn put<T: Serialize>(bytes: &mut BytesMut, value: &T) {
    bincode::serde::encode_into_std_write(value, &mut bytes.writer(), bincode::config::standard())
        .expect(
            "flat values have nothing that can't be encoded, and memory doesn't fail to be written",
        );
}

/// Such a struct's head and entries, which share the message's bytes.
pub(crate) fn decode_with_entries<T: DeserializeOwned>(
    bytes: &Bytes,
) -> io::Result<(T, Vec<Entry>)> {
    let mut rest = bytes.slice_ref(body(bytes)?);
    let head = take(&mut rest)?;
    let count: u64 = take(&mut rest)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let len: u64 = take(&mut rest)?;
        if len > rest.len() as u64 {
            return Err(malformed("an entry behind the end of a message"));
        }
        entries.push(decode_entry(&rest.split_to(len as usize))?);
    }
    if rest.is_empty() {
        Ok((head, entries))
    } else {
        Err(malformed("bytes behind the end of a message"))
    }
}

/// Reads a value off the front.
fn take<T: DeserializeOwned>(bytes: &mut Bytes) -> io::Result<T> {
    let config = bincode::config::standard().with_limit::<{ seams::MESSAGE_BYTES_MAX }>();
    let (value, read) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| malformed(error.to_string()))?;
    bytes.advance(read);
    Ok(value)
}

fn body(bytes: &[u8]) -> io::Result<&[u8]> {
    let (version, body) = bytes
        .split_first()
        .ok_or_else(|| malformed("an empty message"))?;
    if *version != VERSION {
        return Err(malformed(format!("a message of version {version}")));
    }
    Ok(body)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let body = body(bytes)?;
    let config = bincode::config::standard().with_limit::<{ seams::MESSAGE_BYTES_MAX }>();
    let (value, read) = bincode::serde::decode_from_slice(body, config)
        .map_err(|error| malformed(error.to_string()))?;
    if read == body.len() {
        Ok(value)
    } else {
        Err(malformed("bytes behind the end of a message"))
    }
}

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let address = |n: u64| Address {
            name: format!("server-{n}"),
            address: format!("127.0.0.1:{n}"),
        };
        let nodes: BTreeMap<u64, Address> = (1..=3).map(|n| (n, address(n))).collect();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes).unwrap()
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let check = |payload: EntryPayload| {
            let entry = Entry {
                log_id: LogId::from(Position { term: 3, index: 7 }),
                payload,
            };
            assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
        };
        check(EntryPayload::Blank);
        check(EntryPayload::Normal(Payload(Bytes::from_static(
            b"as they are",
        ))));
        check(EntryPayload::Membership(membership()));
    }

    #[test]
    fn an_entry_has_these_very_bytes() {
        let payload = EntryPayload::Normal(Payload(Bytes::from_static(b"x")));
        let entry = Entry {
            log_id: LogId::from(Position { term: 1, index: 2 }),
            payload,
        };
        assert_eq!(
            encode_entry(&entry)[..],
            [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, b'x']
        );
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for bytes in [
            &b""[..],
            b"\x01\x01",
            &[2; 18],
            &[1; 17],
            b"\x01\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(
                decode_entry(&Bytes::copy_from_slice(bytes)).is_err(),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn entries_behind_a_head_are_what_a_list_of_them_is() {
        let entry = |index, payload| Entry {
            log_id: LogId::from(Position { term: 3, index }),
            payload,
        };
        let normal =
            |bytes: &'static [u8]| EntryPayload::Normal(Payload(Bytes::from_static(bytes)));
        let long = EntryPayload::Normal(Payload(vec![7; 70_000].into()));
        let entries = [
            entry(1, EntryPayload::Blank),
            entry(2, normal(b"one")),
            entry(3, EntryPayload::Membership(membership())),
            entry(4, normal(b"")),
            entry(5, long),
        ];
        for entries in [&entries[..], &[]] {
            let head = (7_u64, Some(300_u32));
            let bytes = encode_with_entries(&head, entries);
            let list: Vec<Bytes> = entries.iter().map(encode_entry).collect();
            assert_eq!(bytes, encode(&(head, list)));
            let (read, back) = decode_with_entries::<(u64, Option<u32>)>(&bytes).unwrap();
            assert_eq!((read, &back[..]), (head, entries));
            for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                assert!(decode_with_entries::<(u64, Option<u32>)>(&bytes.slice(..cut)).is_err());
            }
            let more = Bytes::from([&bytes[..], b"x"].concat());
            assert!(decode_with_entries::<(u64, Option<u32>)>(&more).is_err());
        }
    }

    #[test]
    fn memberships_and_votes_come_back_as_they_were() {
        let stored = StoredMembership::new(
            Some(LogId::from(Position { term: 1, index: 9 })),
            membership(),
        );
        assert_eq!(
            decode_membership(&encode_membership(&stored)).unwrap(),
            stored
        );
        let none = StoredMembership::default();
        assert_eq!(decode_membership(&encode_membership(&none)).unwrap(), none);
        assert_eq!(decode_membership(&Bytes::new()).unwrap(), none);
        for vote in [Vote::new(4, 2), Vote::new_committed(4, 2)] {
            let bytes = encode(&FlatVote::from(&vote));
            assert_eq!(Vote::from(decode::<FlatVote>(&bytes).unwrap()), vote);
            assert!(decode::<FlatVote>(&[&bytes[..], b"x"].concat()).is_err());
        }
    }
}
