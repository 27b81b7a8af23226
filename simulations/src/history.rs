//! Reads the history as the cluster writes it, and shows each event to the checks as soon as it is there: a run that breaks one ends at
//! that step.
//!
//! Whichever server is furthest is read. What was read once must stay: the chain's digest at the place reached stands for all before.

use crate::invariants::linearizable::Past;
use crate::invariants::{OfHistory, Violation, of_history};
use crate::workload::Told;
use eventstore::{Digest, Key, View};
use eventstore_disk::Store;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Display;

/// Events read at once.
const PAGE: usize = 500;

pub struct Historian {
    properties: Vec<Box<dyn OfHistory>>,
    /// The last event that was read.
    reached: Option<(u64, Digest)>,
    /// Of each object, whatever of it may be gone by now.
    pasts: BTreeMap<Key, Past>,
}

impl Default for Historian {
    fn default() -> Self {
        Self {
            properties: of_history(),
            reached: None,
            pasts: BTreeMap::new(),
        }
    }
}

impl Historian {
    /// Reads what is new up to the view, and checks what clients were told of it.
    pub fn read(&mut self, store: &Store, view: &View, told: &Told) -> Result<(), Violation> {
        if self.events(store, view.revision)? {
            let mut told = told.lock();
            told.acknowledged
                .check(view.revision, at(store, view), counter(view))?;
        }
        Ok(())
    }

    /// An object's changes from the beginning on, as far as was read; what a store has of them must be the same.
    pub fn past(&self, store: &Store, key: &Key) -> Result<Past, Violation> {
        let past = self.pasts.get(key).cloned().unwrap_or_default();
        let kept = store.history(key, None, usize::MAX);
        let kept = kept.map_err(|error| unreadable(&error))?.into_iter().rev();
        let kept: Past = kept
            .map(|version| (version.revision, version.after.is_some()))
            .collect();
        let horizon = store.view().retention.horizon_of(&key.resource);
        let later = past.iter().filter(|(revision, _)| *revision >= horizon);
        if !later.eq(&kept) {
            let what = format!("{key} had {past:?}, and the store has {kept:?} from {horizon} on");
            return Err(Violation::new("readable history", what));
        }
        Ok(past)
    }

    /// At the end: everything that clients were told, and that is kept still. What is not was looked at as the run went.
    pub fn check(&mut self, store: &Store, view: &View, told: &Told) -> Result<(), Violation> {
        self.events(store, view.revision)?;
        let mut told = told.lock();
        let horizon = store.horizon();
        told.acknowledged
            .writes
            .retain(|write| write.revision >= horizon);
        told.acknowledged.check_all(at(store, view), counter(view))
    }

    /// False: this server is not as far as another was that has been read.
    fn events(&mut self, store: &Store, upto: u64) -> Result<bool, Violation> {
        if let Some((reached, digest)) = self.reached {
            if upto < reached {
                return Ok(false);
            }
            let again = store.events(reached..=reached, 1);
            let again = again.map_err(|error| unreadable(&error))?.pop();
            let now = again.map(|event| event.digest);
            if now != Some(digest) {
                let what =
                    format!("at revision {reached} the digest was {digest}, now it is {now:?}");
                return Err(Violation::new("equal digests", what));
            }
        }
        loop {
            let after = self.reached.map_or(0, |(reached, _)| reached);
            if after >= upto {
                return Ok(true);
            }
            let events = store
                .events(after + 1..=upto, PAGE)
                .map_err(|error| unreadable(&error))?;
            if events.is_empty() {
                return Ok(true);
            }
            for event in &events {
                self.properties
                    .iter_mut()
                    .try_for_each(|property| property.event(event))?;
                for folded in &event.objects {
                    let past = self.pasts.entry(folded.key.clone()).or_default();
                    past.push((folded.revision, folded.after.is_some()));
                }
                self.reached = Some((event.revision(), event.digest));
            }
        }
    }
}

fn unreadable(error: &dyn Display) -> Violation {
    Violation::new("readable history", error.to_string())
}

/// An object's bytes as of a revision.
fn at(store: &Store, view: &View) -> impl Fn(&Key, u64) -> Result<Option<Vec<u8>>, String> {
    move |key, revision| {
        let object = store
            .object_at(key, revision.min(view.revision))
            .map_err(|error| error.to_string())?;
        Ok(object.map(|object| object.bytes.to_vec()))
    }
}

/// What a counter stands at.
fn counter(view: &View) -> impl Fn(&Key) -> Option<u64> {
    move |key| {
        let value = view.get(key)?.to_value();
        value["data"]
            .get("value")
            .and_then(Value::as_str)?
            .parse()
            .ok()
    }
}
