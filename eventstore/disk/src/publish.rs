//! What happens once a group is written: readers get the new view, proposers their outcomes, waiters their turn, watches the events.
//! In this order, so that whoever is told of a change can read it.

use crate::Store;
use crate::ring::Block;
use crate::store::Published;
use eventstore::{Applied, Event, State};
use std::sync::{Arc, PoisonError};

/// What was published before, and what has happened since.
pub(crate) struct Replaced {
    published: Arc<Published>,
    events: Vec<Arc<Event>>,
}

impl Replaced {
    /// Lets the state go on in the view of before. By the time that a group comes, those who read it have mostly gone; where one has
    /// not, the state goes on from what it shares with its readers.
    pub fn take_back(self, state: &mut State) {
        if let Ok(published) = Arc::try_unwrap(self.published) {
            state.go_on_in(published.view, &self.events);
        }
    }
}

impl Store {
    pub(crate) fn publish(&self, published: Published, applied: &[Applied]) -> Replaced {
        let (revision, index) = (published.view.revision, published.view.position.index);
        let before = self.swap(published);
        self.0.counters.count(applied);
        self.0.outcomes.settle(applied);
        self.reached(revision, index);
        let events: Vec<_> = applied
            .iter()
            .flat_map(|applied| applied.events.iter().map(|(event, _)| event.clone()))
            .collect();
        if !events.is_empty() {
            self.0.ring.push(Block::new(revision, events.clone()));
        }
        Replaced {
            published: before,
            events,
        }
    }

    /// Another database took this one's place.
    pub(crate) fn publish_switched(&self, published: Published) {
        let (revision, index) = (published.view.revision, published.view.position.index);
        let view = published.view.clone();
        self.swap(published);
        // One that can't be read is told to nobody: who waits for it asks again, or is told that it is unknown.
        let known = self.outcomes_of(&self.0.outcomes.requests(), 0);
        self.0.outcomes.settle_known(known.unwrap_or_default());
        self.reached(revision, index);
        self.0.ring.restart(&view);
    }

    /// What was published before.
    fn swap(&self, published: Published) -> Arc<Published> {
        let mut guard = self
            .0
            .published
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *guard, Arc::new(published))
    }

    fn reached(&self, revision: u64, index: u64) {
        self.0.revisions.reached(revision);
        self.0.indexes.reached(index);
        self.0.moved.notify_waiters();
    }
}
