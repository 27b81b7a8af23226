//! Waiting for a revision or an index to be applied. Whoever waits bounds it; giving up costs nothing.

use crate::{Store, StoreError};
use eventstore::View;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Those who wait for a number to be reached, each woken once, when it is; in order.
#[derive(Default)]
pub(crate) struct Waits {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<(u64, u64), oneshot::Sender<()>>,
}

struct Waiting<'a> {
    waits: &'a Waits,
    place: (u64, u64),
    reached: oneshot::Receiver<()>,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, at: u64, limit: usize) -> Result<Waiting<'_>, StoreError> {
        let (sender, reached) = oneshot::channel();
        let mut queue = self.lock();
        if queue.waiting.len() >= limit {
            return Err(StoreError::TooMany {
                what: "readers",
                limit,
            });
        }
        queue.next += 1;
        let place = (at, queue.next);
        queue.waiting.insert(place, sender);
        drop(queue);
        Ok(Waiting {
            waits: self,
            place,
            reached,
        })
    }

    pub fn reached(&self, at: u64) {
        let mut queue = self.lock();
        let later = queue.waiting.split_off(&(at.saturating_add(1), 0));
        let due = std::mem::replace(&mut queue.waiting, later);
        drop(queue);
        for sender in due.into_values() {
            // One that gave up meanwhile needs nothing.
            let _ = sender.send(());
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.lock().waiting.remove(&self.place);
    }
}

/// Tells of each group that was applied, the newest only: who looks late sees the latest.
pub struct Progress {
    store: Store,
    moved: Arc<Notify>,
    seen: (u64, u64),
}

impl Progress {
    /// The index and revision applied last.
    pub fn now(&self) -> (u64, u64) {
        let published = self.store.published();
        (published.view.position.index, published.view.revision)
    }

    /// Waits until index or revision differ from what was told last, and tells them. Cancelling it loses nothing.
    pub async fn changed(&mut self) -> (u64, u64) {
        let moved = self.moved.clone();
        loop {
            let notified = moved.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let now = self.now();
            if now != self.seen {
                self.seen = now;
                return now;
            }
            notified.await;
        }
    }
}

impl Store {
    /// Waits until a revision is applied here, and gives a view that has it.
    pub async fn wait_revision(&self, revision: u64) -> Result<View, StoreError> {
        loop {
            let view = self.view();
            if view.revision >= revision {
                return Ok(view);
            }
            wait(&self.0.revisions, revision, self, |view| view.revision).await?;
        }
    }

    /// Waits until a log index is applied here, and gives a view that has it.
    pub async fn wait_index(&self, index: u64) -> Result<View, StoreError> {
        loop {
            let view = self.view();
            if view.position.index >= index {
                return Ok(view);
            }
            wait(&self.0.indexes, index, self, |view| view.position.index).await?;
        }
    }

    /// Tells of progress from now on.
    pub fn changed(&self) -> Progress {
        let published = self.published();
        let seen = (published.view.position.index, published.view.revision);
        Progress {
            store: self.clone(),
            moved: self.0.moved.clone(),
            seen,
        }
    }
}

async fn wait(
    waits: &Waits,
    at: u64,
    store: &Store,
    reached: impl Fn(&View) -> u64,
) -> Result<(), StoreError> {
    let mut waiting = waits.register(at, store.0.config.most_waiting)?;
    // It may have been reached between the look and the registration.
    if reached(&store.published().view) < at {
        // The sender goes only with the store, which is held here.
        let _ = (&mut waiting.reached).await;
    }
    Ok(())
}
