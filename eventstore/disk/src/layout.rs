//! The database's keys: one letter, then what orders the records of that letter. Numbers are big-endian, so that they sort.
//!
//! | key | value |
//! |---|---|
//! | `m` | position, clock, chain, and Raft's own metadata: where this database stands |
//! | `c` key | the revision of the living version, unless a later event says otherwise |
//! | `u` | up to which revision all records `c` are right |
//! | `v` key NUL revision | a version of an object, or that it went |
//! | `e` last revision | an event's digest and envelope |
//! | `b` resource NUL revision | which key began or ceased to live |
//! | `k` resource NUL revision first | a piece of the set of keys that lived then; `first` is where the piece begins |
//! | `q` sequence | the outcomes of one entry's proposals, by the first one's number |
//! | `o` sequence | the outcome of one proposal, as databases before had each; read, and written no more |
//! | `s` node | an agent's session |
//! | `r` resource | its last change, and its last key set |
//! | `h` | how far back history reaches, and what holds it |
//! | `p` | how far what may go is gone |
//!
//! A key is resource NUL namespace NUL name, and none of these holds a NUL.

use eventstore::{Key, Text};
use seams::Range;

/// (namespace, name), as objects of a resource are ordered.
pub(crate) type Name = (Text, Text);
/// Which name began (true) or ceased (false) to live.
pub(crate) type Birth = (Name, bool);

pub(crate) const META: &[u8] = b"m";
pub(crate) const RETENTION: &[u8] = b"h";
pub(crate) const CURRENT_UP_TO: &[u8] = b"u";
pub(crate) const PRUNED: &[u8] = b"p";
const CURRENT: u8 = b'c';
const VERSION: u8 = b'v';
const EVENT: u8 = b'e';
const BIRTH: u8 = b'b';
const KEY_SET: u8 = b'k';
const OUTCOME: u8 = b'o';
const OUTCOMES: u8 = b'q';
const SESSION: u8 = b's';
const RESOURCE: u8 = b'r';

/// Letters whose keys are written in their order.
pub(crate) const IN_ORDER: [u8; 1] = [EVENT];

pub(crate) fn current(key: &Key) -> Vec<u8> {
    let mut bytes = prefixed_key(CURRENT, key);
    bytes.shrink_to_fit();
    bytes
}

pub(crate) fn all_current() -> Range {
    Range::prefix([CURRENT])
}

pub(crate) fn current_key(bytes: &[u8]) -> Option<Key> {
    Key::from_bytes(bytes.strip_prefix(&[CURRENT])?)
}

pub(crate) fn version(key: &Key, revision: u64) -> Vec<u8> {
    let mut bytes = prefixed_key(VERSION, key);
    bytes.push(0);
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes
}

/// Whose version it is, and of which revision.
pub(crate) fn key_of_version(bytes: &[u8]) -> Option<(Key, u64)> {
    let (key, revision) = bytes.strip_prefix(&[VERSION])?.split_last_chunk::<8>()?;
    let key = Key::from_bytes(key.strip_suffix(&[0])?)?;
    Some((key, u64::from_be_bytes(*revision)))
}

/// A key's versions up to and with a revision.
pub(crate) fn versions_to(key: &Key, revision: u64) -> Range {
    Range::new(version(key, 0), version(key, revision.saturating_add(1)))
}

pub(crate) fn event(last: u64) -> Vec<u8> {
    numbered(EVENT, last)
}

/// Events whose last revision is `from` or later, up to and with `to`.
pub(crate) fn events(from: u64, to: u64) -> Range {
    Range::new(event(from), event(to.saturating_add(1)))
}

pub(crate) fn birth(resource: &str, revision: u64) -> Vec<u8> {
    of_resource(BIRTH, resource, revision)
}

/// A resource's births and deaths after one revision, up to and with another.
pub(crate) fn births(resource: &str, after: u64, to: u64) -> Range {
    Range::new(
        birth(resource, after.saturating_add(1)),
        birth(resource, to.saturating_add(1)),
    )
}

/// A piece of a key set. The first piece begins at nothing, so that an empty set has a piece too.
pub(crate) fn key_set(resource: &str, revision: u64, first: Option<&Name>) -> Vec<u8> {
    let mut bytes = of_resource(KEY_SET, resource, revision);
    if let Some((namespace, name)) = first {
        bytes.extend_from_slice(namespace.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes
}

/// The pieces of a resource's key sets up to and with a revision.
pub(crate) fn key_sets_to(resource: &str, revision: u64) -> Range {
    Range::new(
        key_set(resource, 0, None),
        key_set(resource, revision.saturating_add(1), None),
    )
}

/// The pieces of one key set.
pub(crate) fn key_set_pieces(resource: &str, revision: u64) -> Range {
    Range::new(
        key_set(resource, revision, None),
        key_set(resource, revision.saturating_add(1), None),
    )
}

pub(crate) fn outcomes(first: u64) -> Vec<u8> {
    numbered(OUTCOMES, first)
}

/// Records of outcomes that begin with this number or a later one.
pub(crate) fn outcomes_from(first: u64) -> Range {
    Range {
        from: outcomes(first),
        to: Range::prefix([OUTCOMES]).to,
    }
}

/// Records of outcomes that begin before this number.
pub(crate) fn outcomes_to(end: u64) -> Range {
    Range::new(outcomes(0), outcomes(end))
}

/// Outcomes that are alone in their records: from a sequence number on, and before another.
pub(crate) fn lone_outcomes(from: u64, end: Option<u64>) -> Range {
    Range {
        from: numbered(OUTCOME, from),
        to: match end {
            Some(end) => Some(numbered(OUTCOME, end)),
            None => Range::prefix([OUTCOME]).to,
        },
    }
}

pub(crate) fn is_lone_outcome(key: &[u8]) -> bool {
    key.first() == Some(&OUTCOME)
}

pub(crate) fn session(node: &str) -> Vec<u8> {
    named(SESSION, node)
}

pub(crate) fn all_sessions() -> Range {
    Range::prefix([SESSION])
}

pub(crate) fn resource(resource: &str) -> Vec<u8> {
    named(RESOURCE, resource)
}

pub(crate) fn all_resources() -> Range {
    Range::prefix([RESOURCE])
}

/// What follows the letter of a session's or resource's key.
pub(crate) fn name_of(bytes: &[u8]) -> Option<Text> {
    std::str::from_utf8(bytes.get(1..)?).ok().map(Text::from)
}

/// The number that ends the key of an event, a version or a birth.
pub(crate) fn last_number(bytes: &[u8]) -> Option<u64> {
    bytes
        .last_chunk::<8>()
        .map(|number| u64::from_be_bytes(*number))
}

/// The revision in a key set's piece.
pub(crate) fn key_set_revision(resource: &str, bytes: &[u8]) -> Option<u64> {
    let number = bytes.get(resource.len() + 2..)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*number))
}

fn numbered(letter: u8, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9);
    bytes.push(letter);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

fn named(letter: u8, name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + name.len());
    bytes.push(letter);
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

fn of_resource(letter: u8, resource: &str, revision: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(letter);
    bytes.extend_from_slice(resource.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes
}

fn prefixed_key(letter: u8, key: &Key) -> Vec<u8> {
    let mut bytes =
        Vec::with_capacity(key.resource.len() + key.namespace.len() + key.name.len() + 12);
    bytes.push(letter);
    bytes.extend_from_slice(key.resource.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.namespace.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.name.as_bytes());
    bytes
}
