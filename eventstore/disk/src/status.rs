//! Numbers about a store, for `reckon status` and metrics.

use crate::{Store, StoreError};
use eventstore::{Applied, Digest, Outcome, Position, Text, Time};
use seams::{Damages, Statistics};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use uuid::Uuid;

/// Where a store stands, what it holds, and what it has done since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub cluster: Uuid,
    pub level: u32,
    pub applied: Position,
    pub flushed: Position,
    pub revision: u64,
    pub digest: Digest,
    /// The log's clock at the last entry.
    pub clock: Time,
    pub horizon: u64,
    /// Of resources that are kept for a shorter time than the rest.
    pub horizons: Vec<(Text, u64)>,
    /// Objects that live, hidden ones too.
    pub objects: usize,
    /// Events since the beginning.
    pub events: u64,
    pub ring_events: usize,
    pub ring_bytes: usize,
    /// Watches open now, and callers that wait for an outcome.
    pub watches: u64,
    pub expected: usize,
    pub entries: u64,
    pub accepted: u64,
    pub rejected: u64,
    /// Times that a watch read history, for it had fallen behind the ring.
    pub history_reads: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub entries: AtomicU64,
    pub accepted: AtomicU64,
    pub rejected: AtomicU64,
    pub watches: AtomicU64,
    pub history_reads: AtomicU64,
}

impl Counters {
    pub fn count(&self, applied: &[Applied]) {
        let outcomes = applied.iter().flat_map(|applied| &applied.outcomes);
        let (mut accepted, mut rejected) = (0, 0);
        for (_, outcome) in outcomes {
            match outcome {
                Outcome::Accepted { .. } => accepted += 1,
                Outcome::Rejected(_) => rejected += 1,
            }
        }
        self.entries.fetch_add(applied.len() as u64, Relaxed);
        self.accepted.fetch_add(accepted, Relaxed);
        self.rejected.fetch_add(rejected, Relaxed);
    }
}

impl Store {
    pub fn status(&self) -> Status {
        let published = self.published();
        let view = &published.view;
        let (ring_events, ring_bytes) = self.0.ring.held();
        let counters = &self.0.counters;
        let horizons = view.retention.resources();
        Status {
            cluster: view.cluster,
            level: view.level,
            applied: view.position,
            flushed: self.flushed(),
            revision: view.revision,
            digest: view.digest,
            clock: view.clock,
            horizon: view.retention.horizon(),
            horizons: horizons
                .map(|(resource, at)| (resource.clone(), at))
                .collect(),
            objects: view.resources().map(|resource| view.count(resource)).sum(),
            events: published.events,
            ring_events,
            ring_bytes,
            watches: counters.watches.load(Relaxed),
            expected: self.0.outcomes.waiting(),
            entries: counters.entries.load(Relaxed),
            accepted: counters.accepted.load(Relaxed),
            rejected: counters.rejected.load(Relaxed),
            history_reads: counters.history_reads.load(Relaxed),
        }
    }

    /// What was found damaged of the database since it was opened.
    pub fn damages(&self) -> Arc<Damages> {
        self.published().history.damages.clone()
    }

    /// What the database has counted since it was opened.
    pub fn disk_statistics(&self) -> Statistics {
        self.published().history.disk.statistics()
    }

    /// Roughly how many bytes the database takes on disk.
    pub fn disk_usage(&self) -> Result<u64, StoreError> {
        Ok(self.published().history.disk.size()?)
    }
}
