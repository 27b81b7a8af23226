//! Which keys of a resource lived at a revision, at a cost that follows what lived then.
//!
//! A key set is the list of all keys that live at a revision, at an event's end. Births and deaths since then are records of their own,
//! so what lived at R is the newest set not above R with the births and deaths up to R on top. A set is written again when these
//! outnumber the living: reading R never costs more than a few times what lived then, and writing costs each birth a constant.

use crate::StoreError;
use crate::history::History;
use crate::layout::{self, Name};
use crate::record::{ResourceBooks, seal_coded, unseal_coded};
use eventstore::View;
use seams::{Batch, Order, Range};
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

/// Names in one piece of a set.
const PIECE_NAMES: usize = 1_000;

pub(crate) fn due(books: &ResourceBooks, living: usize, few_births: u64) -> bool {
    books.births > few_births.max(living as u64)
}

/// Writes the set of what lives in this view.
pub(crate) fn write(batch: &mut Batch, view: &View, resource: &str) {
    let names: Vec<Name> = view
        .list(resource, None)
        .map(|object| (object.key.namespace.clone(), object.key.name.clone()))
        .collect();
    let mut put = |first: Option<&Name>, piece: &[Name]| {
        let key = layout::key_set(resource, view.revision, first);
        let value = seal_coded(&key, &piece);
        batch.put(key, value);
    };
    if names.is_empty() {
        put(None, &[]);
    }
    for (number, piece) in names.chunks(PIECE_NAMES).enumerate() {
        put(piece.first().filter(|_| number > 0), piece);
    }
}

/// The first `limit` names that lived at a revision, in order.
pub(crate) fn living(
    history: &History,
    resource: &str,
    revision: u64,
    range: &impl RangeBounds<Name>,
    limit: usize,
) -> Result<Vec<Name>, StoreError> {
    let set = history.disk.scan(
        &layout::key_sets_to(resource, revision),
        Order::Descending,
        1,
    )?;
    let set = set
        .first()
        .and_then(|(key, _)| layout::key_set_revision(resource, key));
    let mut births = BTreeMap::new();
    for (name, lives) in history.births(resource, set.unwrap_or(0), revision)? {
        if range.contains(&name) {
            births.insert(name, lives);
        }
    }
    let mut living = Vec::new();
    let mut births = births.into_iter().peekable();
    if let Some(set) = set {
        // One moment for all the pieces, for the iterator reads on while others write.
        for pair in history.pairs(&*history.disk, &pieces_from(history, resource, set, range)?)? {
            let (key, value) = pair?;
            let names: Vec<Name> = unseal_coded(&key, &value).map_err(|damage| {
                history.corrupt(
                    format_args!("the keys of {resource} at revision {set}"),
                    damage,
                )
            })?;
            for name in names {
                while let Some((born, lives)) = births.next_if(|(born, _)| *born < name) {
                    living.extend(lives.then_some(born));
                }
                let lives = births
                    .next_if(|(born, _)| *born == name)
                    .is_none_or(|(_, lives)| lives);
                if living.len() >= limit || is_behind(range, &name) {
                    living.truncate(limit);
                    return Ok(living);
                }
                if lives && range.contains(&name) {
                    living.push(name);
                }
            }
        }
    }
    living.extend(births.filter(|(_, lives)| *lives).map(|(born, _)| born));
    living.truncate(limit);
    Ok(living)
}

/// The pieces of a set from the one on where the range begins.
fn pieces_from(
    history: &History,
    resource: &str,
    set: u64,
    range: &impl RangeBounds<Name>,
) -> Result<Range, StoreError> {
    let mut pieces = layout::key_set_pieces(resource, set);
    if let Bound::Included(first) | Bound::Excluded(first) = range.start_bound() {
        let mut up_to = layout::key_set(resource, set, Some(first));
        // A range ends before its end: the piece that begins with the very name must be in it.
        up_to.push(0);
        let before = Range {
            from: pieces.from.clone(),
            to: Some(up_to),
        };
        if let Some((key, _)) = history.disk.scan(&before, Order::Descending, 1)?.pop() {
            pieces.from = key.to_vec();
        }
    }
    Ok(pieces)
}

/// Whether a name lies behind a range's end.
pub(crate) fn is_behind(range: &impl RangeBounds<Name>, name: &Name) -> bool {
    match range.end_bound() {
        Bound::Included(end) => name > end,
        Bound::Excluded(end) => name >= end,
        Bound::Unbounded => false,
    }
}
