//! Outcomes on disk, one record an entry. A start reads none but the last: what may be asked for again was sent a moment ago, and what
//! that needs is read when it comes. So neither the time of a start nor its memory follows what was written before.

use crate::history::History;
use crate::record::{Damage, unseal_coded};
use crate::{StoreError, layout};
use bytes::Bytes;
use eventstore::{Forgotten, Kept, ProposalId};
use seams::{Order, Range, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops;
use uuid::Uuid;

/// What is read of the oldest at once ends with the record that holds so many, or so many outcomes.
const CHUNK_RECORDS: usize = 512;
const CHUNK_OUTCOMES: u64 = 2_048;

/// Outcomes of one entry, or of older databases a single one.
#[derive(Debug)]
pub(crate) struct Record {
    pub key: Bytes,
    /// In order, without a gap, at least one.
    pub kept: Vec<Kept>,
}

impl Record {
    fn read(history: &History, key: Bytes, value: &Bytes) -> Result<Self, StoreError> {
        let first = layout::last_number(&key).unwrap_or_default();
        let kept = if layout::is_lone_outcome(&key) {
            unseal_coded(&key, value).map(|kept| vec![kept])
        } else {
            unseal_coded::<Vec<Kept>>(&key, value)
        };
        let kept = kept.map_err(|damage| corrupt(history, first, damage))?;
        if kept.is_empty() {
            return Err(corrupt(history, first, "its record is empty"));
        }
        let gapless = (first..)
            .zip(&kept)
            .all(|(number, kept)| kept.sequence == number);
        if !gapless {
            let damage = Damage::Sense("its record holds others");
            return Err(corrupt(history, first, damage));
        }
        Ok(Self { key, kept })
    }

    fn first(&self) -> u64 {
        self.kept[0].sequence
    }

    pub fn last(&self) -> Forgotten {
        let last = &self.kept[self.kept.len() - 1];
        Forgotten {
            sequence: last.sequence,
            index: last.index,
        }
    }
}

fn corrupt(history: &History, sequence: u64, why: impl Display) -> StoreError {
    history.corrupt(format_args!("outcome {sequence}"), why)
}

fn missing(history: &History, sequence: u64) -> StoreError {
    corrupt(history, sequence, "it is missing")
}

fn records<'a>(
    history: &'a History,
    reader: &'a (impl Reader + ?Sized),
    range: Range,
    order: Order,
) -> Result<impl Iterator<Item = Result<Record, StoreError>> + 'a, StoreError> {
    let pairs = reader.iterate(&range, order)?;
    Ok(pairs.map(|pair| {
        let (key, value) = pair?;
        Record::read(history, key, &value)
    }))
}

/// Those of numbers below this one, newest first.
fn below<'a>(
    history: &'a History,
    reader: &'a (impl Reader + ?Sized),
    end: u64,
) -> Result<impl Iterator<Item = Result<Record, StoreError>> + 'a, StoreError> {
    let of_entries = records(history, reader, layout::outcomes_to(end), Order::Descending)?;
    let lone = records(
        history,
        reader,
        layout::lone_outcomes(0, Some(end)),
        Order::Descending,
    )?;
    Ok(of_entries.chain(lone))
}

/// The numbers of those kept, the oldest of which is known once one was forgotten.
pub(crate) fn numbers(
    history: &History,
    reader: &(impl Reader + ?Sized),
    oldest: u64,
) -> Result<ops::Range<u64>, StoreError> {
    let last = below(history, reader, u64::MAX)?.next().transpose()?;
    let next = last.map_or(1, |record| record.last().sequence + 1);
    // The first of all has the number 1.
    let oldest = oldest.max(1);
    if next < oldest {
        return Err(missing(history, oldest));
    }
    Ok(oldest..next)
}

/// Some of the oldest records, in order: from the one that holds the first of these numbers on.
pub(crate) fn oldest(
    history: &History,
    numbers: ops::Range<u64>,
) -> Result<Vec<Record>, StoreError> {
    let (disk, from) = (&*history.disk, numbers.start);
    let lone = records(
        history,
        disk,
        layout::lone_outcomes(from, None),
        Order::Ascending,
    )?;
    // It may stand in the middle of a record.
    let first = history.disk.scan(
        &layout::outcomes_to(from.saturating_add(1)),
        Order::Descending,
        1,
    )?;
    let first = first.first().and_then(|(key, _)| layout::last_number(key));
    let of_entries = layout::outcomes_from(first.unwrap_or(from));
    let of_entries = records(history, disk, of_entries, Order::Ascending)?;
    let (mut oldest, mut expected) = (Vec::new(), from);
    for record in lone.chain(of_entries) {
        let record = record?;
        let (first, last) = (record.first(), record.last().sequence);
        if last < from {
            continue;
        }
        if first.max(from) != expected {
            return Err(missing(history, expected));
        }
        expected = last + 1;
        oldest.push(record);
        if oldest.len() >= CHUNK_RECORDS || expected - from >= CHUNK_OUTCOMES {
            break;
        }
    }
    if expected < numbers.end && oldest.len() < CHUNK_RECORDS && expected - from < CHUNK_OUTCOMES {
        return Err(missing(history, expected));
    }
    Ok(oldest)
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Recalled {
    /// In order.
    pub kept: Vec<Kept>,
    /// None that was left has a log index above this one.
    pub left_up_to: u64,
}

/// Of these numbers all that have a higher log index than `first_sent`.
pub(crate) fn recall(
    history: &History,
    reader: &(impl Reader + ?Sized),
    numbers: ops::Range<u64>,
    first_sent: u64,
) -> Result<Recalled, StoreError> {
    let mut recalled = Recalled::default();
    let mut expected = numbers.end;
    for record in below(history, reader, numbers.end)? {
        if expected == numbers.start {
            break;
        }
        let record = record?;
        if record.last().sequence + 1 < expected {
            return Err(missing(history, expected - 1));
        }
        let wanted = |kept: &Kept| numbers.contains(&kept.sequence) && kept.sequence < expected;
        let kept: Vec<Kept> = record.kept.into_iter().filter(wanted).collect();
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
            break;
        };
        if last.index <= first_sent {
            recalled.left_up_to = last.index;
            recalled.kept.reverse();
            return Ok(recalled);
        }
        expected = first.sequence;
        recalled.kept.extend(kept.into_iter().rev());
    }
    if expected > numbers.start {
        return Err(missing(history, expected - 1));
    }
    recalled.kept.reverse();
    Ok(recalled)
}

/// What came of these requests, of all their tries, as far as it has one of these numbers and a higher log index than `first_sent`. What
/// was forgotten meanwhile is passed over.
pub(crate) fn of_requests(
    history: &History,
    numbers: ops::Range<u64>,
    first_sent: u64,
    uuids: &BTreeSet<Uuid>,
) -> Result<BTreeMap<ProposalId, Kept>, StoreError> {
    let mut found = BTreeMap::new();
    for record in below(history, &*history.disk, numbers.end)? {
        let record = record?;
        let last = record.last();
        if last.sequence < numbers.start || last.index <= first_sent {
            break;
        }
        let wanted = |kept: &Kept| uuids.contains(&kept.id.uuid);
        found.extend(
            record
                .kept
                .into_iter()
                .filter(wanted)
                .map(|kept| (kept.id, kept)),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreConfig;
    use crate::record::seal_coded;
    use eventstore::Outcome;
    use seams::{Batch, Directory, FileDirectory, Synced};
    use std::sync::Arc;

    type Numbers = &'static [u64];

    fn kept(sequence: u64) -> Kept {
        Kept {
            sequence,
            index: 10 * sequence,
            id: ProposalId {
                uuid: Uuid::from_u128(sequence.into()),
                attempt: 0,
            },
            outcome: Outcome::Accepted {
                first: sequence,
                last: sequence,
            },
        }
    }

    /// A database with outcomes alone and outcomes of entries.
    fn history(folder: &tempfile::TempDir, alone: Numbers, entries: &[Numbers]) -> History {
        let directory = FileDirectory::open(folder.path()).unwrap();
        let disk = directory
            .open("state", &StoreConfig::default().disk)
            .unwrap();
        let mut batch = Batch::new();
        for number in alone {
            let key = layout::lone_outcomes(*number, None).from;
            let value = seal_coded(&key, &kept(*number));
            batch.put(key, value);
        }
        for entry in entries {
            let key = layout::outcomes(entry[0]);
            let entry: Vec<Kept> = entry.iter().map(|number| kept(*number)).collect();
            let value = seal_coded(&key, &entry);
            batch.put(key, value);
        }
        disk.write(batch, Synced::No).unwrap();
        History {
            disk,
            name: "state".into(),
            damages: Arc::default(),
        }
    }

    type Case = (
        Numbers,
        &'static [Numbers],
        ops::Range<u64>,
        u64,
        Result<(Numbers, u64), &'static str>,
        Result<usize, &'static str>,
    );

    #[test]
    fn they_come_from_the_records_of_entries_and_from_those_of_before() {
        let two = "outcome 2: corrupt: it is missing";
        // alone; of entries; which are asked for; and first sent at; those recalled, and what was left; how many records the oldest are in
        let cases: [Case; 11] = [
            (&[], &[], 1..1, 0, Ok((&[], 0)), Ok(0)),
            (&[1, 2, 3], &[], 2..4, 0, Ok((&[2, 3], 0)), Ok(2)),
            (
                &[1, 2, 3],
                &[&[4, 5], &[6]],
                2..7,
                0,
                Ok((&[2, 3, 4, 5, 6], 0)),
                Ok(4),
            ),
            (
                &[1, 2, 3],
                &[&[4, 5], &[6]],
                2..7,
                29,
                Ok((&[3, 4, 5, 6], 20)),
                Ok(4),
            ),
            (&[1, 2, 3], &[&[4, 5], &[6]], 2..3, 0, Ok((&[2], 0)), Ok(4)),
            (
                &[],
                &[&[1, 2], &[3, 4, 5], &[6]],
                4..7,
                0,
                Ok((&[4, 5, 6], 0)),
                Ok(2),
            ),
            (
                &[],
                &[&[1, 2], &[3, 4, 5], &[6]],
                2..5,
                20,
                Ok((&[3, 4], 20)),
                Ok(3),
            ),
            (&[], &[&[1, 2], &[3]], 3..4, 30, Ok((&[], 30)), Ok(1)),
            (&[1, 3], &[], 1..4, 0, Err(two), Err(two)),
            (&[], &[&[1], &[3]], 1..4, 0, Err(two), Err(two)),
            (&[], &[&[3]], 2..4, 0, Err(two), Err(two)),
        ];
        for (case, (alone, entries, numbers, first_sent, recalled, oldest)) in
            cases.into_iter().enumerate()
        {
            let folder = tempfile::tempdir().unwrap();
            let history = history(&folder, alone, entries);
            let all = alone.iter().chain(entries.iter().copied().flatten());
            let last = all.max().copied();
            let next = last.map_or(1, |last| last + 1);
            assert_eq!(
                super::numbers(&history, &*history.disk, 0).unwrap(),
                1..next,
                "case {case}"
            );
            let read = recall(&history, &*history.disk, numbers.clone(), first_sent)
                .map(|read| {
                    let sequences = read.kept.iter().map(|kept| kept.sequence);
                    (sequences.collect::<Vec<_>>(), read.left_up_to)
                })
                .map_err(|error| error.to_string());
            let recalled = recalled
                .map(|(sequences, left)| (sequences.to_vec(), left))
                .map_err(|why| format!("database state: {why}"));
            assert_eq!(read, recalled, "case {case}");
            let read = super::oldest(&history, numbers)
                .map(|records| records.len())
                .map_err(|error| error.to_string());
            let oldest = oldest.map_err(|why| format!("database state: {why}"));
            assert_eq!(read, oldest, "case {case}");
        }
    }

    #[test]
    fn what_came_of_requests_is_found_as_far_back_as_it_can_lie() {
        let folder = tempfile::tempdir().unwrap();
        let history = history(&folder, &[1, 2], &[&[3, 4, 5], &[6]]);
        let uuids: BTreeSet<_> = [1, 4, 6, 9].map(Uuid::from_u128).into();
        for (numbers, first_sent, found) in [
            (1..7, 0, &[1, 4, 6][..]),
            (1..6, 0, &[1, 4]),
            (1..7, 30, &[4, 6]),
            (1..7, 50, &[6]),
            (1..7, 60, &[]),
            (2..7, 0, &[4, 6]),
        ] {
            let told = of_requests(&history, numbers.clone(), first_sent, &uuids).unwrap();
            let told: Vec<u64> = told.values().map(|kept| kept.sequence).collect();
            assert_eq!(told, found, "{numbers:?} first sent at {first_sent}");
        }
    }

    #[test]
    fn the_newest_tells_how_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let history = history(&folder, &[], &[&[3, 4], &[5, 6]]);
        assert_eq!(numbers(&history, &*history.disk, 4).unwrap(), 4..7);
        assert_eq!(numbers(&history, &*history.disk, 7).unwrap(), 7..7);
        let error = numbers(&history, &*history.disk, 8)
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("outcome 8: corrupt: it is missing"),
            "{error}"
        );
    }

    #[test]
    fn a_chunk_ends() {
        let folder = tempfile::tempdir().unwrap();
        let history = history(&folder, &[], &[]);
        let mut batch = Batch::new();
        let many = CHUNK_OUTCOMES / 2;
        for first in [1, 1 + many, 1 + 2 * many] {
            let key = layout::outcomes(first);
            let entry: Vec<Kept> = (first..first + many).map(kept).collect();
            let value = seal_coded(&key, &entry);
            batch.put(key, value);
        }
        for number in 1 + 3 * many..=5 * many {
            let key = layout::outcomes(number);
            let value = seal_coded(&key, &vec![kept(number)]);
            batch.put(key, value);
        }
        history.disk.write(batch, Synced::No).unwrap();
        for (from, records) in [(1, 2), (2, 3), (1 + 2 * many, CHUNK_RECORDS), (5 * many, 1)] {
            let read = oldest(&history, from..5 * many + 1).unwrap();
            assert_eq!(read.len(), records, "from {from}");
        }
    }
}
