//! Outcomes for those who proposed: registered before a proposal is sent, told when it is applied here.

use crate::{ReadError, Store, StoreError};
use eventstore::{Applied, Event, Outcome, ProposalId};
use seams::blocking;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use uuid::Uuid;

/// What came of a proposal.
#[derive(Clone, Debug)]
pub struct Settled {
    pub outcome: Outcome,
    /// The event, when it was accepted; also of a repetition, which gets the first one's.
    pub event: Option<Arc<Event>>,
}

type Told = (Outcome, Option<Arc<Event>>);

#[derive(Default)]
pub(crate) struct Outcomes {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    by_id: BTreeMap<(ProposalId, u64), oneshot::Sender<Told>>,
}

impl Outcomes {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait for what a group brought.
    pub fn settle(&self, group: &[Applied]) {
        let mut told = Vec::new();
        let mut waiting = self.lock();
        if waiting.by_id.is_empty() {
            return;
        }
        for applied in group {
            for (id, outcome) in &applied.outcomes {
                let senders = waiting.take(*id);
                if !senders.is_empty() {
                    told.push((senders, outcome.clone(), event_of(applied, outcome)));
                }
            }
        }
        drop(waiting);
        for (senders, outcome, event) in told {
            for sender in senders {
                // Whoever gave up meanwhile will ask again under the same id.
                let _ = sender.send((outcome.clone(), event.clone()));
            }
        }
    }

    /// The requests that are waited for.
    pub fn requests(&self) -> BTreeSet<Uuid> {
        let waiting = self.lock();
        waiting.by_id.keys().map(|(id, _)| id.uuid).collect()
    }

    /// Tells those who wait for what is known, after another database took this one's place.
    pub fn settle_known(&self, known: BTreeMap<ProposalId, Outcome>) {
        for (id, outcome) in known {
            let senders = self.lock().take(id);
            for sender in senders {
                let _ = sender.send((outcome.clone(), None));
            }
        }
    }

    pub fn waiting(&self) -> usize {
        self.lock().by_id.len()
    }
}

impl Waiting {
    fn take(&mut self, id: ProposalId) -> Vec<oneshot::Sender<Told>> {
        let places: Vec<_> = self
            .by_id
            .range((id, 0)..=(id, u64::MAX))
            .map(|(place, _)| *place)
            .collect();
        places
            .iter()
            .filter_map(|place| self.by_id.remove(place))
            .collect()
    }
}

fn event_of(applied: &Applied, outcome: &Outcome) -> Option<Arc<Event>> {
    match outcome {
        Outcome::Rejected(_) => None,
        Outcome::Accepted { last, .. } => {
            let at = applied
                .events
                .binary_search_by_key(last, |(event, _)| event.revision())
                .ok()?;
            Some(applied.events[at].0.clone())
        }
    }
}

/// A proposal whose outcome is waited for. Dropping it gives up waiting, which changes nothing about the proposal.
pub struct Expecting {
    store: Store,
    place: (ProposalId, u64),
    receiver: oneshot::Receiver<Told>,
    known: Option<Outcome>,
}

impl Expecting {
    pub fn id(&self) -> ProposalId {
        self.place.0
    }

    /// Waits for the outcome; the caller bounds it. Cancelled, it may be awaited again.
    pub async fn settled(&mut self) -> Result<Settled, ReadError> {
        let (outcome, event) = match self.known.clone() {
            Some(outcome) => (outcome, None),
            None => match (&mut self.receiver).await {
                Ok((outcome, event)) => {
                    self.known = Some(outcome.clone());
                    (outcome, event)
                }
                // The sender goes with the store, which is held here, or by telling.
                Err(_) => unreachable!("an outcome is told once, and kept from then on"),
            },
        };
        let event = match (&outcome, event) {
            (Outcome::Accepted { last, .. }, None) => blocking(|| self.store.event_at(*last))?,
            (_, event) => event,
        };
        Ok(Settled { outcome, event })
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        self.store.0.outcomes.lock().by_id.remove(&self.place);
    }
}

impl Store {
    /// Registers for a proposal's outcome; to be called before the proposal is sent. One that is known already is told at once.
    /// `first_sent` is the proposal's own.
    pub fn expect_outcome(&self, id: ProposalId, first_sent: u64) -> Result<Expecting, StoreError> {
        let mut expecting = self.expect_new_outcome(id)?;
        // Looked up after registering: what is applied in between is told by the one or the other.
        expecting.known = self.known_outcome(id, first_sent)?;
        Ok(expecting)
    }

    /// The same of a proposal that was never sent: nothing can be known of it, and to look would be to wait for the entry that is being
    /// applied.
    pub fn expect_new_outcome(&self, id: ProposalId) -> Result<Expecting, StoreError> {
        let limit = self.0.config.most_waiting;
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.0.outcomes.lock();
        if waiting.by_id.len() >= limit {
            return Err(StoreError::TooMany {
                what: "proposals",
                limit,
            });
        }
        waiting.next += 1;
        let place = (id, waiting.next);
        waiting.by_id.insert(place, sender);
        Ok(Expecting {
            store: self.clone(),
            place,
            receiver,
            known: None,
        })
    }
}
