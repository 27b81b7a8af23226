//! A start: the state as the disk has it. It reads what lives, and of history the last events only (`current`), so its time follows the
//! living. What lives it reads from the copy that a clean stop leaves (`living`), and from history what is not there.

use crate::current::Warm;
use crate::history::History;
use crate::living::Living;
use crate::record::{Meta, ResourceBooks, unseal_coded};
use crate::store::Published;
use crate::write::Writer;
use crate::{StoreConfig, StoreError, current, layout, outcomes};
use eventstore::{Key, LevelTooHigh, Object, Outcomes, Retention, Session, State, Text, View};
use seams::{Directory, Order, Range};
use serde::de::DeserializeOwned;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
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
    let kept = Outcomes::away(
        outcomes::numbers(&history, &*history.disk, meta.outcomes_from)?,
        meta.position.index,
        meta.forgotten_up_to,
    );
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
    let copies = Living::read(directory);
    let all_cool = current::all_cool(&history, meta.revision, config.most_warm)?;
    let left = all_cool.and_then(|warm| Some((copies.all(meta.revision, meta.digest)?, warm)));
    let (living, warm) = match left {
        Some(left) => left,
        None => read_living(&history, copies, meta.revision, config.most_warm)?,
    };
    let state = State::restore(
        view,
        living.into_iter().map(Arc::unwrap_or_clone),
        last_changes,
        sessions,
        kept,
    )
    .knowing(knows);
    Ok(Opened {
        state,
        writer: Writer {
            history,
            meta,
            books,
            outcomes: VecDeque::new(),
            warm,
            replaced: None,
            few_births: config.few_births,
            broken: None,
        },
    })
}

/// What lives, as the database says; versions that are among the copies are not read.
fn read_living(
    history: &History,
    mut copies: Living,
    revision: u64,
    most_warm: usize,
) -> Result<(Vec<Arc<Object>>, Warm), StoreError> {
    let current = current::read(history, &*history.disk, revision, most_warm)?;
    let (mut living, mut wanted) = (Vec::new(), Vec::new());
    for (key, revision) in current.living {
        match copies.take(history, &key, revision) {
            Some(object) => living.push(object),
            None => wanted.push((key, revision)),
        }
    }
    drop(copies);
    if wanted.len() > FEW {
        history.disk.prefetch(newest_bytes(history, &wanted)?);
    }
    living.extend(history.objects(&wanted)?);
    Ok((living, current.warm))
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
}
