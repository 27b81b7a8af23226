//! One group of entries as one batch: events, versions, what lives, births, outcomes, sessions, and where the database stands then.

use crate::current::Warm;
use crate::history::History;
use crate::publish::Replaced;
use crate::record::{
    Meta, ResourceBooks, seal_birth, seal_coded, seal_event, seal_gone, seal_object,
};
use crate::store::Published;
use crate::{StoreError, key_sets, layout};
use bytes::Bytes;
use eventstore::{Applied, Event, Happened, Text, View};
use seams::{Batch, Range, Synced};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The writing side's own books.
pub(crate) struct Writer {
    pub history: History,
    pub meta: Meta,
    pub books: BTreeMap<Text, ResourceBooks>,
    pub warm: Warm,
    /// The oldest records of outcomes, as far as they were read: the key of each, and the last sequence number in it.
    pub outcomes: VecDeque<(Bytes, u64)>,
    /// The view that readers had before the last group.
    pub replaced: Option<Replaced>,
    /// As configured.
    pub few_births: u64,
    /// Why nothing more may be written.
    pub broken: Option<String>,
}

impl Writer {
    pub fn usable(&self) -> Result<(), StoreError> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(StoreError::Broken(why.clone())),
        }
    }

    /// From here to the end of `write` the fold is ahead of the disk: what cuts it short leaves the store unusable for writing.
    pub fn begin(&mut self) {
        self.broken = Some("it was cut short".to_owned());
    }

    pub fn write(
        &mut self,
        applied: &[Applied],
        view: &View,
        metadata: &[u8],
    ) -> Result<(), StoreError> {
        let batch = self.batch(applied, view, metadata);
        if let Err(error) = self.history.disk.write(batch, Synced::No) {
            self.broken = Some(error.to_string());
            return Err(error.into());
        }
        self.broken = None;
        Ok(())
    }

    /// Writes which version of each key lives, so that the next start finds it without reading what changed last.
    pub fn cool_all(&mut self) -> Result<(), StoreError> {
        self.usable()?;
        let mut batch = Batch::new();
        self.warm.cool_all(&mut batch, self.meta.revision);
        if let Err(error) = self.history.disk.write(batch, Synced::No) {
            self.broken = Some(error.to_string());
            return Err(error.into());
        }
        Ok(())
    }

    pub fn published(&self, view: View) -> Published {
        Published {
            view,
            history: self.history.clone(),
            events: self.meta.events,
            raft: Bytes::copy_from_slice(&self.meta.raft),
        }
    }

    fn batch(&mut self, applied: &[Applied], view: &View, metadata: &[u8]) -> Batch {
        let mut batch = Batch::new();
        let mut resources = BTreeSet::new();
        let mut sessions = BTreeSet::new();
        let mut retention = false;
        for applied in applied {
            for (event, encoded) in &applied.events {
                retention |= moves_retention(&event.envelope.happened);
                if matches!(event.envelope.happened, Happened::Restored { .. }) {
                    sessions.clear();
                    let Range { from, to } = layout::all_sessions();
                    batch.delete_range(from, to.unwrap_or_default());
                }
                let key = layout::event(event.revision());
                let value = seal_event(&key, event.digest, encoded);
                batch.put(key, value);
                self.put_changes(&mut batch, event, &mut resources);
                sessions.extend(session_of(&event.envelope.happened));
            }
            self.put_outcomes(&mut batch, applied);
            self.meta.events += applied.events.len() as u64;
        }
        self.warm.cool(&mut batch, view.retention.horizon());
        for resource in resources {
            self.put_books(&mut batch, view, resource);
        }
        for (node, session) in sessions
            .into_iter()
            .filter_map(|node| Some((node, view.session(node)?)))
        {
            let key = layout::session(node);
            let value = seal_coded(&key, session);
            batch.put(key, value);
        }
        if retention {
            let value = seal_coded(layout::RETENTION, &*view.retention);
            batch.put(layout::RETENTION, value);
        }
        self.put_meta(&mut batch, view, metadata);
        batch
    }

    fn put_changes<'a>(
        &mut self,
        batch: &mut Batch,
        event: &'a Event,
        resources: &mut BTreeSet<&'a Text>,
    ) {
        for folded in &event.objects {
            let resource = &folded.key.resource;
            resources.insert(resource);
            let version = layout::version(&folded.key, folded.revision);
            match &folded.after {
                Some(object) => {
                    let value = seal_object(&version, object);
                    batch.put(version, value);
                }
                None => {
                    let value = seal_gone(&version);
                    batch.put(version, value);
                }
            }
            let lives = folded.after.is_some();
            let before = folded.before.as_ref().map(|object| object.revision());
            self.warm
                .changed(&folded.key, folded.revision, lives, before);
            if folded.before.is_none() || folded.after.is_none() {
                let key = layout::birth(resource, folded.revision);
                let value = seal_birth(
                    &key,
                    &folded.key.namespace,
                    &folded.key.name,
                    folded.after.is_some(),
                );
                batch.put(key, value);
                self.books.entry(resource.clone()).or_default().births += 1;
            }
        }
    }

    /// One record an entry: one a proposal would cost a put each, and in the end a deletion, as dear as its event's.
    fn put_outcomes(&mut self, batch: &mut Batch, applied: &Applied) {
        if let Some(first) = applied.kept.first() {
            let key = layout::outcomes(first.sequence);
            let value = seal_coded(&key, &applied.kept);
            batch.put(key, value);
        }
        let Some(forgotten) = applied.forgotten.last() else {
            return;
        };
        self.meta.forgotten_up_to = forgotten.index;
        self.meta.outcomes_from = forgotten.sequence + 1;
        let gone = |(_, last): &mut (Bytes, u64)| *last <= forgotten.sequence;
        while let Some((key, _)) = self.outcomes.pop_front_if(gone) {
            batch.delete(key);
        }
    }

    fn put_books(&mut self, batch: &mut Batch, view: &View, resource: &Text) {
        let books = self.books.entry(resource.clone()).or_default();
        books.last_change = view.last_change(resource);
        if key_sets::due(books, view.count(resource), self.few_births) {
            key_sets::write(batch, view, resource);
            books.births = 0;
        }
        let key = layout::resource(resource);
        let value = seal_coded(&key, books);
        batch.put(key, value);
    }

    pub fn put_meta(&mut self, batch: &mut Batch, view: &View, metadata: &[u8]) {
        let meta = &mut self.meta;
        (meta.position, meta.clock, meta.cluster) = (view.position, view.clock, view.cluster);
        (meta.level, meta.revision, meta.digest, meta.round) =
            (view.level, view.revision, view.digest, view.round);
        meta.horizon = view.retention.horizon();
        meta.raft.clear();
        meta.raft.extend_from_slice(metadata);
        batch.put(layout::META, seal_coded(layout::META, &*meta));
    }
}

/// The node whose session an event opens or ends.
fn session_of(happened: &Happened) -> Option<&Text> {
    match happened {
        Happened::SessionOpened { node, .. } | Happened::SessionLost { node, .. } => Some(node),
        Happened::Founded { .. }
        | Happened::Objects(_)
        | Happened::Round(_)
        | Happened::LevelRaised { .. }
        | Happened::Pruned(_)
        | Happened::Held { .. }
        | Happened::Released { .. }
        | Happened::Restored { .. } => None,
    }
}

fn moves_retention(happened: &Happened) -> bool {
    matches!(
        happened,
        Happened::Pruned(_) | Happened::Held { .. } | Happened::Released { .. }
    )
}
