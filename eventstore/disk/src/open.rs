//! A start: the state as the disk has it. It reads what lives and the outcomes kept, never history, so its time follows the living.

use crate::history::History;
use crate::record::{Meta, ResourceBooks, unseal_coded, unseal_number};
use crate::store::Published;
use crate::write::Writer;
use crate::{StoreConfig, StoreError, layout};
use eventstore::{Kept, LevelTooHigh, Object, Retention, Session, State, Text, View};
use seams::{Directory, Range};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

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
    let history = History {
        disk: directory.open(name, &config.disk)?,
        name: name.into(),
    };
    let meta = match history.disk.get(layout::META)? {
        Some(value) => unseal_coded(layout::META, &value)
            .map_err(|damage| history.corrupt("where it stands", damage))?,
        None if history
            .disk
            .scan(&Range::all(), seams::Order::Ascending, 1)?
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
    let mut outcomes = Vec::new();
    for pair in history.pairs(&*history.disk, &layout::outcomes_from(meta.outcomes_from))? {
        let (key, value) = pair?;
        let kept: Kept = unseal_coded(&key, &value).map_err(|damage| {
            history.corrupt(
                format_args!("outcome {}", layout::last_number(&key).unwrap_or_default()),
                damage,
            )
        })?;
        if outcomes
            .last()
            .is_some_and(|last: &Kept| last.sequence + 1 != kept.sequence)
        {
            return Err(history.corrupt(
                format_args!("outcome {}", kept.sequence - 1),
                "it is missing",
            ));
        }
        outcomes.push(kept);
    }
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
    let state = State::restore(
        view,
        living(&history)?,
        last_changes,
        sessions,
        outcomes,
        meta.forgotten_up_to,
    )
    .knowing(knows);
    Ok(Opened {
        state,
        writer: Writer {
            history,
            meta,
            books,
            few_births: config.few_births,
            broken: None,
        },
    })
}

/// Every object that lives.
fn living(history: &History) -> Result<Vec<Object>, StoreError> {
    let mut wanted = Vec::new();
    for pair in history.pairs(&*history.disk, &layout::all_current())? {
        let (disk_key, value) = pair?;
        let key = layout::current_key(&disk_key).ok_or_else(|| {
            history.corrupt(
                format_args!("current {}", disk_key.escape_ascii()),
                "it names no object",
            )
        })?;
        let revision = unseal_number(&disk_key, &value).map_err(|damage| {
            history.corrupt(format_args!("the current revision of {key}"), damage)
        })?;
        wanted.push((key, revision));
    }
    let objects = history.objects(&wanted)?;
    Ok(objects.into_iter().map(Arc::unwrap_or_clone).collect())
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
