//! What happens once a group is written: readers get the new view, proposers their outcomes, waiters their turn, watches the events.
//! In this order, so that whoever is told of a change can read it.

use crate::Store;
use crate::ring::Block;
use crate::store::Published;
use eventstore::Applied;
use std::sync::{Arc, PoisonError};

impl Store {
    pub(crate) fn publish(&self, published: Published, applied: &[Applied]) {
        let (revision, index) = (published.view.revision, published.view.position.index);
        self.swap(published);
        self.0.counters.count(applied);
        self.0.outcomes.settle(applied);
        self.reached(revision, index);
        let events: Vec<_> = applied
            .iter()
            .flat_map(|applied| applied.events.iter().map(|(event, _)| event.clone()))
            .collect();
        if !events.is_empty() {
            self.0.ring.push(Block::new(revision, events));
        }
    }

    /// Another database took this one's place.
    pub(crate) fn publish_switched(&self, published: Published) {
        let (revision, index) = (published.view.revision, published.view.position.index);
        let view = published.view.clone();
        self.swap(published);
        self.0.outcomes.settle_known(|id| self.known_outcome(id));
        self.reached(revision, index);
        self.0.ring.restart(&view);
    }

    fn swap(&self, published: Published) {
        let mut guard = self
            .0
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *guard, Arc::new(published));
        drop(guard);
        // What only the view before held is freed here, where no reader waits for it.
        drop(before);
    }

    fn reached(&self, revision: u64, index: u64) {
        self.0.revisions.reached(revision);
        self.0.indexes.reached(index);
        self.0.moved.notify_waiters();
    }
}
