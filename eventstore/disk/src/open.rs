//! A start: the state as the disk has it. It reads what lives, the outcomes kept, and of history the last events only (`current`), so its
//! time follows the living. What lives it reads from the copy that a clean stop leaves (`living`), and from history what is not there.

use crate::history::History;
use crate::living::Living;
use crate::record::{Damage, Meta, ResourceBooks, unseal_coded};
use crate::store::Published;
use crate::write::Writer;
use crate::{StoreConfig, StoreError, current, layout};
use bytes::Bytes;
use eventstore::{Kept, Key, LevelTooHigh, Retention, Session, State, Text, View};
use seams::{Directory, Order, Range};
use serde::de::DeserializeOwned;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::Arc;

/// Objects that are read as fast one by one.
const FEW: usize = 500;
/// Of so many versions one has to live for all to be worth reading.
const WORTH_READING: u64 = 4;
/// Objects whose size tells that of the others.
const SAMPLES: usize = 32;

pub(crate) struct Opened {
    pub state: State,
    pub writer: Writer,
}

impl Opened {
    pub fn published(&self) -> Published {
        self.writer.published(self.state.view().clone())
    }
}

pub(crate) fn open(
    directory: &dyn Directory,
    name: &str,
    config: &StoreConfig,
) -> Result<Opened, StoreError> {
    let history = History::open(directory, name, &config.disk)?;
    let meta = match history.disk.get(layout::META)? {
        Some(value) => unseal_coded(layout::META, &value)
            .map_err(|damage| history.corrupt("where it stands", damage))?,
        None if history
            .disk
            .scan(&Range::all(), Order::Ascending, 1)?
            .is_empty() =>
        {
            Meta::default()
        }
        None => return Err(history.corrupt("where it stands", "it is missing")),
    };
    let (level, knows) = (meta.level, config.most_level);
    if level > knows {
        return Err(LevelTooHigh { level, knows }.into());
    }
    let books: BTreeMap<Text, ResourceBooks> =
        named(&history, &layout::all_resources(), "the books of resource")?;
    let sessions: BTreeMap<Text, Session> =
        named(&history, &layout::all_sessions(), "the session of")?;
    let outcomes = read_outcomes(&history, meta.outcomes_from)?;
    let retention = match history.disk.get(layout::RETENTION)? {
        Some(value) => unseal_coded::<Retention>(layout::RETENTION, &value)
            .map_err(|damage| history.corrupt("how far history reaches back", damage))?,
        None => Retention::default(),
    };
    let mut view = View::default();
    view.retention = Arc::new(retention);
    (view.position, view.clock, view.cluster) = (meta.position, meta.clock, meta.cluster);
    (view.level, view.revision, view.digest, view.round) =
        (meta.level, meta.revision, meta.digest, meta.round);
    let last_changes = books
        .iter()
        .map(|(resource, books)| (resource.clone(), books.last_change));
    let current = current::read(&history, &*history.disk, meta.revision, config.most_warm)?;
    let mut copies = Living::read(directory);
    let (mut living, mut wanted) = (Vec::new(), Vec::new());
    for (key, revision) in current.living {
        match copies.take(&history, &key, revision) {
            Some(object) => living.push(object),
            None => wanted.push((key, revision)),
        }
    }
    drop(copies);
    if wanted.len() > FEW {
        history.disk.prefetch(newest_bytes(&history, &wanted)?);
    }
    living.extend(history.objects(&wanted)?);
    let state = State::restore(
        view,
        living.into_iter().map(Arc::unwrap_or_clone),
        last_changes,
        sessions,
        outcomes.kept,
        meta.forgotten_up_to,
    )
    .knowing(knows);
    Ok(Opened {
        state,
        writer: Writer {
            history,
            meta,
            books,
            outcomes: outcomes.records,
            warm: current.warm,
            replaced: None,
            few_births: config.few_births,
            broken: None,
        },
    })
}

/// Of what was written last, how much is to be read whole.
fn newest_bytes(history: &History, living: &[(Key, u64)]) -> Result<u64, StoreError> {
    let versions = newest_versions(living.iter().map(|(_, revision)| *revision));
    let every = living.len().div_ceil(SAMPLES).max(1);
    let sample: Vec<_> = living.iter().step_by(every).cloned().collect();
    let objects = history.objects(&sample)?;
    let bytes: usize = objects.iter().map(|object| object.bytes.len()).sum();
    Ok(versions * (bytes / objects.len().max(1)) as u64)
}

/// As many versions as are worth reading whole: as far back as one in four lives still. Behind that, what lives is read piece by piece,
/// which reads no more: a piece takes as much of the disk as some four versions.
fn newest_versions(living: impl Iterator<Item = u64>) -> u64 {
    let mut revisions: Vec<u64> = living.collect();
    revisions.sort_unstable_by_key(|revision| Reverse(*revision));
    let newest = revisions.first().copied().unwrap_or_default();
    (1..)
        .zip(revisions)
        .map(|(live, revision)| (live, newest - revision + 1))
        .filter(|(live, versions)| *versions <= WORTH_READING * live)
        .map(|(_, versions)| versions)
        .last()
        .unwrap_or_default()
}

#[derive(Default)]
struct Outcomes {
    /// In order, without a gap.
    kept: Vec<Kept>,
    records: VecDeque<(Bytes, u64)>,
}

/// The outcomes from a sequence number on.
fn read_outcomes(history: &History, from: u64) -> Result<Outcomes, StoreError> {
    let disk = &*history.disk;
    let mut outcomes = Outcomes::default();
    for pair in history.pairs(disk, &layout::lone_outcomes(from))? {
        let (key, value) = pair?;
        let kept = unseal_coded(&key, &value);
        outcomes.add(history, from, key, kept.map(|kept| vec![kept]))?;
    }
    // The oldest may stand in the middle of a record.
    let before = layout::all_outcomes(0, Some(from.saturating_add(1)));
    let first = disk.scan(&before, Order::Descending, 1)?;
    let first = first.first().and_then(|(key, _)| layout::last_number(key));
    let records = layout::all_outcomes(first.unwrap_or(from), None);
    for pair in history.pairs(disk, &records)? {
        let (key, value) = pair?;
        let kept = unseal_coded(&key, &value);
        outcomes.add(history, from, key, kept)?;
    }
    Ok(outcomes)
}

impl Outcomes {
    fn add(
        &mut self,
        history: &History,
        from: u64,
        key: Bytes,
        kept: Result<Vec<Kept>, Damage>,
    ) -> Result<(), StoreError> {
        let corrupt =
            |sequence, why: &dyn Display| history.corrupt(format_args!("outcome {sequence}"), why);
        let first = layout::last_number(&key).unwrap_or_default();
        let kept = kept.map_err(|damage| corrupt(first, &damage))?;
        let Some(last) = kept.last().map(|kept| kept.sequence) else {
            return Err(corrupt(first, &"its record is empty"));
        };
        if last < from {
            return Ok(());
        }
        for kept in kept.into_iter().filter(|kept| kept.sequence >= from) {
            let expected = self.kept.last().map(|last| last.sequence + 1);
            if expected.is_some_and(|expected| expected != kept.sequence) {
                return Err(corrupt(kept.sequence - 1, &"it is missing"));
            }
            self.kept.push(kept);
        }
        self.records.push_back((key, last));
        Ok(())
    }
}

fn named<T: DeserializeOwned>(
    history: &History,
    range: &Range,
    what: &str,
) -> Result<BTreeMap<Text, T>, StoreError> {
    let mut all = BTreeMap::new();
    for pair in history.pairs(&*history.disk, range)? {
        let (key, value) = pair?;
        let name = layout::name_of(&key).ok_or_else(|| {
            history.corrupt(
                format_args!("{what} {}", key.escape_ascii()),
                "its name is not UTF-8",
            )
        })?;
        let value = unseal_coded(&key, &value)
            .map_err(|damage| history.corrupt(format_args!("{what} {name}"), damage))?;
        all.insert(name, value);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::seal_coded;
    use eventstore::{Outcome, ProposalId};
    use seams::{Batch, FileDirectory, Synced};

    type Sequences = &'static [u64];
    type Row = (
        Sequences,
        &'static [Sequences],
        u64,
        Result<Sequences, &'static str>,
        usize,
    );

    #[test]
    fn so_much_is_read_whole_as_lives_closely() {
        let mut scattered: Vec<u64> = (0..50).map(|number| 1 + 10 * number).collect();
        assert_eq!(newest_versions(scattered.iter().copied()), 1);
        scattered.extend(1_001..=1_100);
        assert_eq!(newest_versions(scattered.into_iter()), 100);
        for (every, count) in [(1, 100), (2, 199), (4, 397), (5, 16)] {
            let living = (0..100).map(|number| 1_000 - every * number);
            assert_eq!(newest_versions(living), count, "one in {every}");
        }
        assert_eq!(newest_versions(std::iter::empty()), 0);
    }

    fn kept(sequence: u64) -> Kept {
        Kept {
            sequence,
            index: sequence,
            id: ProposalId {
                uuid: uuid::Uuid::from_u128(sequence.into()),
                attempt: 0,
            },
            outcome: Outcome::Accepted {
                first: sequence,
                last: sequence,
            },
        }
    }

    #[test]
    fn outcomes_come_from_their_records_and_from_those_of_before() {
        // outcomes alone, outcomes of entries, the oldest kept; those read or what is wrong, and how many records
        let rows: [Row; 7] = [
            (&[], &[], 0, Ok(&[]), 0),
            (&[1, 2, 3], &[], 2, Ok(&[2, 3]), 2),
            (&[1, 2, 3], &[&[4, 5], &[6]], 2, Ok(&[2, 3, 4, 5, 6]), 4),
            (&[], &[&[1, 2], &[3, 4, 5], &[6]], 4, Ok(&[4, 5, 6]), 2),
            (&[], &[&[1, 2], &[3]], 3, Ok(&[3]), 1),
            (&[1, 3], &[], 1, Err("outcome 2: corrupt: it is missing"), 0),
            (
                &[],
                &[&[1], &[3]],
                1,
                Err("outcome 2: corrupt: it is missing"),
                0,
            ),
        ];
        for (alone, entries, from, expected, records) in rows {
            let folder = tempfile::tempdir().unwrap();
            let directory = FileDirectory::open(folder.path()).unwrap();
            let disk = directory
                .open("state", &StoreConfig::default().disk)
                .unwrap();
            let mut batch = Batch::new();
            for sequence in alone {
                let key = layout::lone_outcomes(*sequence).from;
                let value = seal_coded(&key, &kept(*sequence));
                batch.put(key, value);
            }
            for entry in entries {
                let key = layout::outcomes(entry[0]);
                let entry: Vec<Kept> = entry.iter().map(|sequence| kept(*sequence)).collect();
                let value = seal_coded(&key, &entry);
                batch.put(key, value);
            }
            disk.write(batch, Synced::No).unwrap();
            let history = History {
                disk,
                name: "state".into(),
                damages: Arc::default(),
            };
            let read = read_outcomes(&history, from);
            match (read, expected) {
                (Ok(read), Ok(expected)) => {
                    let sequences: Vec<u64> = read.kept.iter().map(|kept| kept.sequence).collect();
                    assert_eq!((&sequences[..], read.records.len()), (expected, records));
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (read, expected) => panic!("{:?} and not {expected:?}", read.map(|read| read.kept)),
            }
        }
    }
}
