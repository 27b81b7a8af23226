//! What lies before the horizons goes: a little at a time, in the background, from the oldest on.
//!
//! It follows the events: each says which version it put in another's place, and a version that was replaced before the horizon is one
//! that no read can ask for any more. So its cost follows what goes, and not what stays. Bodies of a resource with a horizon of its own
//! go by that one, and the envelopes stay until all history's horizon has passed them. The last event before the horizon stays too,
//! for its digest is what the chain goes on from.
//!
//! How far it has come is written with what it removes, so that a crash costs nothing but doing some of it again. Envelopes are forgotten
//! and not deleted: they lie in their order, and whole files of them go.

use crate::history::Recorded;
use crate::record::{seal_coded, unseal_coded};
use crate::store::Published;
use crate::{Store, StoreError, layout};
use eventstore::Text;
use seams::{Batch, Order, Synced};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changes that one step goes through, and bytes of events that it reads, before it ends at an event's end: one event may have a thousand
/// changes.
const CHANGES_MAX: usize = 2_000;
const BYTES_MAX: usize = 1 << 20;

/// How far what may go is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// The last event whose replaced versions are gone; the events before it are forgotten themselves.
    all: u64,
    /// The same for the resources with horizons of their own.
    resources: BTreeMap<Text, u64>,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events looked at.
    pub events: u64,
    pub records: u64,
    /// There may be more to do.
    pub more: bool,
}

impl Store {
    /// Removes what `most` events at the most replaced before the horizons; fewer, where they have many changes.
    pub fn prune(&self, most: usize) -> Result<Pruned, StoreError> {
        let published = self.published();
        let mut step = Step::new(&published)?;
        step.resources(most)?;
        step.all(most)?;
        let Step {
            batch,
            pruned,
            progress,
            ..
        } = step;
        if progress != Progress::default() {
            published.history.disk.reclaim()?;
        }
        if !batch.is_empty() {
            self.write_beside(&published, batch)?;
        }
        Ok(pruned)
    }
}

struct Step<'a> {
    published: &'a Published,
    progress: Progress,
    batch: Batch,
    pruned: Pruned,
}

impl<'a> Step<'a> {
    fn new(published: &'a Published) -> Result<Self, StoreError> {
        let history = &published.history;
        let progress = match history.disk.get(layout::PRUNED)? {
            Some(value) => unseal_coded(layout::PRUNED, &value)
                .map_err(|damage| history.corrupt("how far history was pruned", damage))?,
            None => Progress::default(),
        };
        Ok(Self {
            published,
            progress,
            batch: Batch::new(),
            pruned: Pruned::default(),
        })
    }

    /// Bodies of resources that are kept for a shorter time than all history.
    fn resources(&mut self, most: usize) -> Result<(), StoreError> {
        let retention = self.published.view.retention.clone();
        self.progress
            .resources
            .retain(|resource, _| retention.horizon_of(resource) > retention.horizon());
        for (resource, horizon) in retention.resources() {
            let done = self.progress.resources.get(resource).copied();
            let from = done.unwrap_or_default().max(self.progress.all);
            let (events, more) = self.replaced_before(horizon, from, most)?;
            for event in &events {
                self.remove_replaced(event, Some(resource));
            }
            let Some(last) = events.last() else { continue };
            self.progress
                .resources
                .insert(resource.clone(), last.revision());
            self.remove_births(resource, horizon)?;
            self.step_ends(&events, more);
        }
        Ok(())
    }

    /// Everything before all history's horizon.
    fn all(&mut self, most: usize) -> Result<(), StoreError> {
        let horizon = self.published.view.retention.horizon();
        let (events, more) = self.replaced_before(horizon, self.progress.all, most)?;
        let Some(last) = events.last() else {
            return Ok(());
        };
        self.progress.all = last.revision();
        // The last of these stays.
        let before = layout::events(0, last.revision().saturating_sub(1));
        if let Some(to) = before.to {
            self.batch.forget(before.from, to);
            self.pruned.records += events.len() as u64;
        }
        for event in &events {
            self.remove_replaced(event, None);
        }
        let resources: Vec<Text> = self.published.view.resources().cloned().collect();
        for resource in resources {
            self.remove_births(&resource, horizon)?;
        }
        self.step_ends(&events, more);
        Ok(())
    }

    /// Events after one revision that lie wholly before a horizon, as many as are for one step; and whether there may be more.
    fn replaced_before(
        &self,
        horizon: u64,
        after: u64,
        most: usize,
    ) -> Result<(Vec<Recorded>, bool), StoreError> {
        let mut events = Vec::new();
        if after + 1 >= horizon {
            return Ok((events, false));
        }
        let history = &self.published.history;
        let range = layout::events(after + 1, horizon - 1);
        let (mut changes, mut bytes) = (0, 0);
        for pair in history.pairs(&*history.disk, &range)? {
            let (key, value) = pair?;
            let event = history.read_event(&key, &value)?;
            changes += event.envelope.happened.changes().len();
            bytes += value.len();
            events.push(event);
            if events.len() >= most || changes >= CHANGES_MAX || bytes >= BYTES_MAX {
                return Ok((events, true));
            }
        }
        Ok((events, false))
    }

    fn remove_replaced(&mut self, event: &Recorded, resource: Option<&Text>) {
        for record in event.envelope.happened.changes() {
            if resource.is_some_and(|resource| record.key.resource != *resource) {
                continue;
            }
            if record.before > 0 {
                self.remove(layout::version(&record.key, record.before));
            }
            if record.hash.is_none() {
                self.remove(layout::version(&record.key, record.revision));
            }
        }
    }

    /// Who lived at the horizon follows from the newest set of keys before it, and the births since.
    fn remove_births(&mut self, resource: &Text, horizon: u64) -> Result<(), StoreError> {
        let history = &self.published.history;
        let sets = layout::key_sets_to(resource, horizon);
        let newest = history.disk.scan(&sets, Order::Descending, 1)?;
        let newest = newest
            .first()
            .and_then(|(key, _)| layout::key_set_revision(resource, key));
        let Some(newest) = newest else {
            return Ok(());
        };
        let older = layout::key_sets_to(resource, newest.saturating_sub(1));
        let births = layout::births(resource, 0, newest);
        for range in [older, births] {
            let found = history.disk.scan(&range, Order::Ascending, 1)?;
            if let (false, Some(to)) = (found.is_empty(), range.to) {
                self.batch.delete_range(range.from, to);
                self.pruned.records += 1;
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.batch.delete(key);
        self.pruned.records += 1;
    }

    fn step_ends(&mut self, events: &[Recorded], more: bool) {
        self.pruned.events += events.len() as u64;
        self.pruned.more |= more;
        let value = seal_coded(layout::PRUNED, &self.progress);
        self.batch.put(layout::PRUNED, value);
    }
}

impl Store {
    /// Writes what apply has no part in, unless another database has taken this one's place meanwhile.
    fn write_beside(&self, published: &Published, batch: Batch) -> Result<(), StoreError> {
        let mut writer = self.writer();
        writer.usable()?;
        if !Arc::ptr_eq(&writer.history.disk, &published.history.disk) {
            return Ok(());
        }
        let written = writer.history.disk.write(batch, Synced::No);
        if let Err(error) = &written {
            writer.broken = Some(error.to_string());
        }
        Ok(written?)
    }
}
