//! Which version of each key lives: the records `c`, and the events behind them.
//!
//! A record written with each change would be a third of all that is inserted, at a random place, and for a key that changes often
//! nearly all of it in vain. So a key's record is written once the key has cooled: when it has not changed for some thousand
//! changes. `u` says up to which revision that was done; a start reads the records and then the events after it, of which there are no
//! more than stay warm. What `u` says may be too low: what an event says of a key is so however often it is read.

use crate::history::History;
use crate::record::{seal_number, unseal_number};
use crate::{StoreError, layout};
use bytes::Bytes;
use eventstore::Key;
use seams::{Batch, Reader};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

/// `u` is written once it has moved by this part of what stays warm: with every group it would be one more insert.
const MOVES: u64 = 16;

/// Changes whose keys' records are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    /// How many stay so.
    most: usize,
    /// In the order of their revisions.
    changes: VecDeque<Change>,
    /// All up to here has cooled.
    up_to: u64,
    /// What `u` says; None: there is no such record.
    written: Option<u64>,
}

#[derive(Debug)]
struct Change {
    revision: u64,
    key: Key,
    then: Then,
}

/// What was so of a key after a change.
#[derive(Debug)]
enum Then {
    Lived,
    /// It may have come again since; that change is warm still.
    Gone,
    /// It lived, and a later change is warm still.
    Replaced,
}

impl Warm {
    /// `before`: the revision of the version that lived until then.
    pub fn changed(&mut self, key: &Key, revision: u64, lives: bool, before: Option<u64>) {
        if let Some(at) = before.and_then(|before| self.find(before)) {
            self.changes[at].then = Then::Replaced;
        }
        self.changes.push_back(Change {
            revision,
            key: key.clone(),
            then: if lives { Then::Lived } else { Then::Gone },
        });
    }

    /// Where a change is, if it is warm. Revisions follow one another nearly without gaps, so that its distance from either end says
    /// where to look: over all of them a search would wait for memory a dozen times.
    fn find(&self, revision: u64) -> Option<usize> {
        let (first, last) = (
            self.changes.front()?.revision,
            self.changes.back()?.revision,
        );
        let (from_first, from_last) = (revision.checked_sub(first)?, last.checked_sub(revision)?);
        let newest = self.changes.len() - 1;
        let mut low = newest.saturating_sub(usize::try_from(from_last).ok()?);
        let mut high = newest.min(usize::try_from(from_first).ok()?);
        while low <= high {
            let middle = low.midpoint(high);
            match self.changes[middle].revision.cmp(&revision) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle.checked_sub(1)?,
            }
        }
        None
    }

    /// Writes what has cooled, and what changed before the horizon, for its events are about to go.
    pub fn cool(&mut self, batch: &mut Batch, horizon: u64) {
        while let Some(change) = self.next(horizon) {
            self.put(batch, change);
        }
        let gone = horizon.saturating_sub(1);
        self.up_to = self.up_to.max(gone);
        let late = |written| written < gone || self.up_to - written > self.most as u64 / MOVES;
        if self.written.is_none_or(late) {
            self.write(batch);
        }
    }

    fn put(&mut self, batch: &mut Batch, change: Change) {
        let Change {
            revision,
            key,
            then,
        } = change;
        self.up_to = revision;
        match then {
            Then::Lived => {
                let record = layout::current(&key);
                let value = seal_number(&record, revision);
                batch.put(record, value);
            }
            Then::Gone => batch.delete(layout::current(&key)),
            Then::Replaced => {}
        }
    }

    /// Writes all of it, up to with the last event: the next start reads none.
    pub fn cool_all(&mut self, batch: &mut Batch, revision: u64) {
        while let Some(change) = self.changes.pop_front() {
            self.put(batch, change);
        }
        self.begin(batch, revision);
    }

    fn next(&mut self, horizon: u64) -> Option<Change> {
        let over = self.changes.len() > self.most;
        self.changes
            .pop_front_if(|change| over || change.revision < horizon)
    }

    /// The records of all that lived at this revision were written otherwise.
    pub fn begin(&mut self, batch: &mut Batch, up_to: u64) {
        self.up_to = up_to;
        self.write(batch);
    }

    fn write(&mut self, batch: &mut Batch) {
        let value = seal_number(layout::CURRENT_UP_TO, self.up_to);
        batch.put(layout::CURRENT_UP_TO, value);
        self.written = Some(self.up_to);
    }
}

/// Nothing is warm where all that changed up to the last event is written.
pub(crate) fn all_cool(
    history: &History,
    revision: u64,
    most_warm: usize,
) -> Result<Option<Warm>, StoreError> {
    let written = written(history, &*history.disk)?;
    Ok((written == Some(revision)).then(|| Warm {
        most: most_warm,
        up_to: revision,
        written,
        ..Warm::default()
    }))
}

fn written(history: &History, reader: &(impl Reader + ?Sized)) -> Result<Option<u64>, StoreError> {
    let written = reader.get(layout::CURRENT_UP_TO)?;
    written
        .map(|value| unseal_number(layout::CURRENT_UP_TO, &value))
        .transpose()
        .map_err(|damage| history.corrupt("up to where what is current was written", damage))
}

/// What lives, as a database says.
pub(crate) struct Current {
    /// Each key's living version.
    pub living: BTreeMap<Key, u64>,
    pub warm: Warm,
}

/// As of a reader's moment, at which the last event was `revision`.
pub(crate) fn read(
    history: &History,
    reader: &(impl Reader + ?Sized),
    revision: u64,
    most_warm: usize,
) -> Result<Current, StoreError> {
    let mut living = BTreeMap::new();
    for pair in history.pairs(reader, &layout::all_current())? {
        let (record, value) = pair?;
        let (key, revision) = read_record(history, &record, &value)?;
        living.insert(key, revision);
    }
    let written = written(history, reader)?;
    // A database of before has each change's record.
    let up_to = written.unwrap_or(revision);
    let mut warm = Warm {
        most: most_warm,
        up_to,
        written,
        ..Warm::default()
    };
    for pair in history.pairs(reader, &layout::events(up_to + 1, revision))? {
        let (disk_key, value) = pair?;
        let event = history.read_event(&disk_key, &value)?;
        for record in event.envelope.happened.changes() {
            let lives = record.hash.is_some();
            let before = living.get(&record.key).copied();
            warm.changed(&record.key, record.revision, lives, before);
            if lives {
                living.insert(record.key.clone(), record.revision);
            } else {
                living.remove(&record.key);
            }
        }
    }
    Ok(Current { living, warm })
}

fn read_record(history: &History, record: &Bytes, value: &Bytes) -> Result<(Key, u64), StoreError> {
    let key = layout::current_key(record).ok_or_else(|| {
        history.corrupt(
            format_args!("current {}", record.escape_ascii()),
            "it names no object",
        )
    })?;
    let revision = unseal_number(record, value)
        .map_err(|damage| history.corrupt(format_args!("the current revision of {key}"), damage))?;
    Ok((key, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without gaps, with some, and with hardly anything but gaps.
    #[test]
    fn a_change_is_found_by_its_revision() {
        let rows: [&[u64]; 5] = [
            &[],
            &[7],
            &[3, 4, 5, 6, 7, 8],
            &[1, 2, 5, 6, 7, 11, 12, 13, 14, 20],
            &[10, 90, 91, 400, 1_000, 1_001],
        ];
        for revisions in rows {
            let mut warm = Warm::default();
            for revision in revisions {
                let key = Key::new("configmaps", "shop", format!("a-{revision}"));
                warm.changed(&key, *revision, true, None);
            }
            for revision in 0..=revisions.last().unwrap_or(&0) + 2 {
                let at = revisions.iter().position(|one| *one == revision);
                assert_eq!(warm.find(revision), at, "{revision} of {revisions:?}");
            }
        }
    }
}
