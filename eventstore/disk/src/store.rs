//! The store of one server: one writer, any number of readers.
//!
//! Locks, and why no reader waits for a disk: `writer` is held by apply through its disk write, and by nothing that readers call; `state`
//! only while one entry is folded or one outcome is looked up; `published` only while a pointer is copied. What is published was written.

use crate::history::History;
use crate::ring::Ring;
use crate::settle::Outcomes;
use crate::status::Counters;
use crate::wait::Waits;
use crate::write::Writer;
use crate::{StoreConfig, StoreError, living, open, outcomes};
use bytes::Bytes;
use eventstore::{Applied, Entry, Outcome, Position, ProposalId, State, View, decode};
use seams::{Directory, Disk, blocking};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use tokio::sync::Notify;
use uuid::Uuid;

/// Of the oldest outcomes it is known of which entries they are for so many proposals to come at least.
const OLDEST_AHEAD: usize = 512;

/// Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub directory: Arc<dyn Directory>,
    pub config: StoreConfig,
    pub writer: Mutex<Writer>,
    pub state: Mutex<State>,
    pub published: RwLock<Arc<Published>>,
    pub flushed: Mutex<Position>,
    pub ring: Ring,
    pub outcomes: Outcomes,
    pub revisions: Waits,
    pub indexes: Waits,
    pub moved: Arc<Notify>,
    pub counters: Counters,
}

/// What readers see: a view, and the database that has its history.
pub(crate) struct Published {
    pub view: View,
    pub history: History,
    pub events: u64,
    pub raft: Bytes,
}

/// A database that another took the place of. It can be removed once no reader holds it.
pub struct Retired {
    pub name: String,
    disk: Weak<dyn Disk>,
}

impl Retired {
    pub fn is_free(&self) -> bool {
        self.disk.strong_count() == 0
    }
}

impl Store {
    /// Opens a database, an empty one where there is none. Reads what lives and not what was.
    pub fn open(
        directory: Arc<dyn Directory>,
        name: &str,
        config: StoreConfig,
    ) -> Result<Self, StoreError> {
        let opened = open::open(&*directory, name, &config)?;
        living::remove(&*directory)?;
        let published = opened.published();
        let ring = Ring::new(config.ring_events, config.ring_bytes, &published.view);
        Ok(Self(Arc::new(Inner {
            directory,
            config,
            flushed: Mutex::new(published.view.position),
            published: RwLock::new(Arc::new(published)),
            writer: Mutex::new(opened.writer),
            state: Mutex::new(opened.state),
            ring,
            outcomes: Outcomes::default(),
            revisions: Waits::default(),
            indexes: Waits::default(),
            moved: Arc::default(),
            counters: Counters::default(),
        })))
    }

    /// The state as a database has it, and Raft's own metadata, for a server that does not run: to be folded further without a write.
    pub fn read_state(
        directory: &dyn Directory,
        name: &str,
        config: &StoreConfig,
    ) -> Result<(State, Bytes), StoreError> {
        let mut opened = open::open(directory, name, config)?;
        let metadata = opened.published().raft;
        let outcomes = opened.state.outcomes_mut();
        if let Some(away) = outcomes.away_for(0) {
            let history = &opened.writer.history;
            let recalled = outcomes::recall(history, &*history.disk, away, 0)?;
            outcomes.recall(recalled.kept.into_iter(), recalled.left_up_to);
        }
        Ok((opened.state, metadata))
    }

    /// Reads a committed entry. One that cannot be read is fatal: the leader bounds and decodes what it appends.
    pub fn read_entry(position: Position, bytes: &[u8]) -> Result<Entry, StoreError> {
        decode(bytes).map_err(|error| StoreError::Entry { position, error })
    }

    /// Applies a group of log entries, writes it as one batch, and publishes it. None: an entry that carries nothing of ours.
    /// `metadata` is Raft's own as of the group's last entry. One result an entry. After an error nothing of the group is seen.
    ///
    /// An entry of a level above this program's is refused together with its whole group, before any of it is applied.
    pub fn apply(
        &self,
        group: Vec<(Position, Option<Entry>)>,
        metadata: &[u8],
    ) -> Result<Vec<Applied>, StoreError> {
        let mut writer = self.writer();
        writer.usable()?;
        self.admit(&group)?;
        self.fetch_outcomes(&mut writer, &group)?;
        writer.begin();
        if let Some(replaced) = writer.replaced.take() {
            replaced.take_back(&mut self.state());
        }
        let mut applied = Vec::with_capacity(group.len());
        for (position, entry) in group {
            let mut state = self.state();
            applied.push(match &entry {
                Some(entry) => state.apply(position, entry),
                None => {
                    state.advance(position);
                    Applied {
                        position,
                        ..Applied::default()
                    }
                }
            });
        }
        let view = self.state().view().clone();
        writer.write(&applied, &view, metadata)?;
        let published = writer.published(view);
        writer.replaced = Some(self.publish(published, &applied));
        Ok(applied)
    }

    /// Whether a small group would be applied in a moment: nobody else is writing, the disk takes it at once, and nothing is to be read
    /// before. But for a proposal that is long under way, which is rare, and needs what was written last and lies in memory mostly.
    pub fn takes_at_once(&self) -> bool {
        let Ok(writer) = self.0.writer.try_lock() else {
            return false;
        };
        let told = self.state().outcomes().to_be_told(OLDEST_AHEAD).is_empty();
        told && writer.history.disk.takes_at_once()
    }

    /// Brings into memory what a group may need of the outcomes that are on disk alone. Nothing is in it that readers see.
    fn fetch_outcomes(
        &self,
        writer: &mut Writer,
        group: &[(Position, Option<Entry>)],
    ) -> Result<(), StoreError> {
        let entries = group.iter().filter_map(|(_, entry)| entry.as_ref());
        let proposals = entries.flat_map(|entry| &entry.proposals);
        let (mut coming, mut first_sent) = (0, u64::MAX);
        for proposal in proposals {
            coming += 1;
            first_sent = first_sent.min(proposal.first_sent);
        }
        let away = {
            let mut state = self.state();
            // All that was kept up to now is written.
            state
                .outcomes_mut()
                .cool(self.0.config.most_outcomes, coming);
            state.outcomes().away_for(first_sent)
        };
        if let Some(away) = away {
            let recalled =
                outcomes::recall(&writer.history, &*writer.history.disk, away, first_sent)?;
            self.state()
                .outcomes_mut()
                .recall(recalled.kept.into_iter(), recalled.left_up_to);
        }
        loop {
            let untold = self.state().outcomes().to_be_told(coming.max(OLDEST_AHEAD));
            if untold.is_empty() {
                return Ok(());
            }
            let records = outcomes::oldest(&writer.history, untold)?;
            let entries = records.iter().map(outcomes::Record::last);
            self.state().outcomes_mut().oldest_are(entries);
            for record in records {
                let last = record.last().sequence;
                writer.outcomes.push_back((record.key, last));
            }
        }
    }

    /// Entries without proposals were applied up to here.
    pub fn advance(&self, position: Position, metadata: &[u8]) -> Result<(), StoreError> {
        self.apply(vec![(position, None)], metadata).map(drop)
    }

    /// What `apply` refuses before anything is touched: a group that does not go on from what is applied, or of too high a level.
    pub fn admit(&self, group: &[(Position, Option<Entry>)]) -> Result<(), StoreError> {
        let state = self.state();
        let mut applied = state.view().position;
        for (position, entry) in group {
            if position.index <= applied.index || position.term < applied.term {
                return Err(StoreError::OutOfOrder {
                    applied,
                    given: *position,
                });
            }
            applied = *position;
            if let Some(entry) = entry {
                state.can_apply(entry)?;
            }
        }
        Ok(())
    }

    /// The last entry applied, and Raft's metadata as of it.
    pub fn applied(&self) -> (Position, Bytes) {
        let published = self.published();
        (published.view.position, published.raft.clone())
    }

    /// Makes all that is applied durable. Blocks for as long as the disk takes; applying goes on meanwhile.
    pub fn flush(&self) -> Result<Position, StoreError> {
        let published = self.published();
        published.history.disk.flush()?;
        let mut flushed = self
            .0
            .flushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *flushed = (*flushed).max(published.view.position);
        Ok(*flushed)
    }

    /// Leaves what lives for the next start, in one piece: nothing is applied any more.
    pub fn leave_living(&self) -> Result<(), StoreError> {
        self.writer().cool_all()?;
        self.flush()?;
        living::leave(&*self.0.directory, &self.view())
    }

    /// What a crash cannot take back: the log is needed only from here on.
    pub fn flushed(&self) -> Position {
        *self
            .0
            .flushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a durable copy beside, under a name not yet used, and tells where it stands. Applying waits.
    pub fn checkpoint(&self, name: &str) -> Result<(Position, Bytes), StoreError> {
        let writer = self.writer();
        writer.usable()?;
        writer.history.disk.checkpoint(name)?;
        Ok(self.applied())
    }

    /// Puts another database in this one's place, under running readers: a snapshot that was received. Those who read the old one
    /// finish there; watches go on from the new one's history; who waits for an outcome is told if it is known there.
    pub fn switch(&self, name: &str) -> Result<Retired, StoreError> {
        let opened = open::open(&*self.0.directory, name, &self.0.config)?;
        let published = opened.published();
        let mut writer = self.writer();
        let applied = self.published().view.position;
        if published.view.position < applied {
            return Err(StoreError::OutOfOrder {
                applied,
                given: published.view.position,
            });
        }
        let retired = Retired {
            name: writer.history.name.to_string(),
            disk: Arc::downgrade(&writer.history.disk),
        };
        *writer = opened.writer;
        let before = std::mem::replace(&mut *self.state(), opened.state);
        *self
            .0
            .flushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = published.view.position;
        self.publish_switched(published);
        drop(before);
        Ok(retired)
    }

    /// The current state: consistent, at one revision, and without a lock.
    pub fn view(&self) -> View {
        self.published().view.clone()
    }

    /// The last entry applied.
    pub fn position(&self) -> Position {
        self.published().view.position
    }

    /// What came of a proposal that was first sent when `first_sent` was applied, as far as it is kept, and published.
    pub fn known_outcome(
        &self,
        id: ProposalId,
        first_sent: u64,
    ) -> Result<Option<Outcome>, StoreError> {
        let mut known = self.outcomes_of(&[id.uuid].into(), first_sent)?;
        Ok(known.remove(&id))
    }

    /// What came of all tries of these requests, as far as it is kept, and published. What is not in memory is searched as far back as
    /// the log index with which they were first sent: all that is kept, where that is not known and 0.
    pub fn outcomes_of(
        &self,
        uuids: &BTreeSet<Uuid>,
        first_sent: u64,
    ) -> Result<BTreeMap<ProposalId, Outcome>, StoreError> {
        let mut known = BTreeMap::new();
        if uuids.is_empty() {
            return Ok(known);
        }
        let published = self.published();
        let away = {
            let state = self.state();
            let outcomes = state.outcomes();
            for kept in uuids.iter().flat_map(|uuid| outcomes.of_request(*uuid)) {
                if kept.index <= published.view.position.index {
                    known.insert(kept.id, kept.outcome.clone());
                }
            }
            outcomes.away_for(first_sent)
        };
        if let Some(away) = away {
            let history = &published.history;
            let found = blocking(|| outcomes::of_requests(history, away, first_sent, uuids))?;
            known.extend(found.into_values().map(|kept| (kept.id, kept.outcome)));
        }
        Ok(known)
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        self.0
            .published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    // A panic in apply leaves the writer marked as broken, so a poisoned lock tells nothing more.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
