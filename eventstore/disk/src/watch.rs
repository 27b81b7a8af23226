//! Watches: the changes of a resource from any revision on, and whole events for projections.
//!
//! A watch is a cursor. It reads the shared ring of recent events, and the disk where the ring no longer reaches; it holds at most one
//! block of history at a time, so a slow one costs memory to no one. Cancelling a read loses nothing: the cursor moves only when a batch
//! is handed out. Selectors, encodings and bookmarks are for the API; here is only what they need: where an event ends.

use crate::ring::{Block, Next};
use crate::store::{Inner, Published};
use crate::{ReadError, Store, StoreError};
use eventstore::{Event, Folded, Happened, Key, Object, Text};
use seams::blocking;
use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

/// Events and bytes of objects read from the disk at once by a watch that has fallen behind.
const CATCH_UP_EVENTS: usize = 128;
const CATCH_UP_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    pub resource: Text,
    pub namespace: Option<Text>,
    pub name: Option<Text>,
    /// Changes after this revision are delivered. Inside an event: the rest of it, then what follows.
    pub from: u64,
}

/// One change, shared by all who watch it.
#[derive(Debug)]
pub struct Change {
    pub key: Key,
    pub revision: u64,
    pub before: Option<Arc<Object>>,
    pub after: Option<Arc<Object>>,
    /// The event that it is part of.
    pub event: Arc<Event>,
    gone: OnceLock<Arc<Object>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub(crate) fn new(folded: &Folded, event: Arc<Event>) -> Self {
        Self {
            key: folded.key.clone(),
            revision: folded.revision,
            before: folded.before.clone(),
            after: folded.after.clone(),
            event,
            gone: OnceLock::new(),
        }
    }

    pub fn kind(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, Some(_)) => ChangeKind::Added,
            (_, None) => ChangeKind::Deleted,
            (Some(_), Some(_)) => ChangeKind::Modified,
        }
    }

    /// What a watch shows of it: the new version, or the last one at the revision of its going.
    pub fn object(&self) -> &Arc<Object> {
        match (&self.after, &self.before) {
            (Some(after), _) => after,
            (None, Some(before)) => self
                .gone
                .get_or_init(|| Arc::new(before.at_revision(self.revision))),
            (None, None) => unreachable!("a change has a version before or after"),
        }
    }
}

/// Changes in order. `revision`: all that the watch asked for up to it has been delivered. `whole`: it is an event's end, where a
/// bookmark may stand.
#[derive(Debug)]
pub struct WatchBatch {
    pub changes: Vec<Arc<Change>>,
    pub revision: u64,
    pub whole: bool,
}

/// A cursor over the changes of one resource.
pub struct Watch {
    store: Store,
    request: WatchRequest,
    cursor: u64,
    /// The cursor is an event's end.
    whole: bool,
    /// History that was read and not yet delivered.
    loaded: Option<Arc<Block>>,
    open: Open,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("request", &self.request)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

enum Step {
    Deliver(WatchBatch),
    /// Some history was read that holds nothing for this watch.
    Again,
    Wait,
}

impl Watch {
    /// The next changes, one at least and at most `max`; waits until there are some. Cancelling it loses nothing.
    pub async fn next_batch(&mut self, max: usize) -> Result<WatchBatch, ReadError> {
        loop {
            let next = poll_fn(|context| match self.step(max, Some(context.waker())) {
                Ok(Step::Deliver(batch)) => Poll::Ready(Ok(Some(batch))),
                Ok(Step::Again) => Poll::Ready(Ok(None)),
                Ok(Step::Wait) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            });
            match next.await? {
                Some(batch) => return Ok(batch),
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// The next change.
    pub async fn next(&mut self) -> Result<Arc<Change>, ReadError> {
        loop {
            if let Some(change) = self.next_batch(1).await?.changes.pop() {
                return Ok(change);
            }
        }
    }

    /// What there is, without waiting: None when nothing is pending in memory. It may say None while it reads history: then ask again.
    pub fn ready(&mut self, max: usize) -> Result<Option<WatchBatch>, ReadError> {
        match self.step(max, None)? {
            Step::Deliver(batch) => Ok(Some(batch)),
            Step::Again | Step::Wait => Ok(None),
        }
    }

    /// Where a bookmark may stand now: all up to this revision was delivered, and it is an event's end. None while something is pending.
    pub fn bookmark(&mut self) -> Option<u64> {
        let behind = self
            .loaded
            .as_ref()
            .is_some_and(|block| block.last > self.cursor);
        match self.open.next(self.cursor, None) {
            Next::Nothing(up_to) if !behind => {
                self.pass(up_to);
                self.whole.then_some(self.cursor)
            }
            Next::Block(_) | Next::Nothing(_) | Next::Behind => None,
        }
    }

    /// All up to this revision was delivered.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    fn pass(&mut self, up_to: u64) {
        if up_to >= self.cursor {
            (self.cursor, self.whole) = (up_to, true);
        }
    }

    /// `waker`: of the task that waits, should there be nothing.
    fn step(&mut self, max: usize, waker: Option<&Waker>) -> Result<Step, ReadError> {
        let mut changes = Vec::new();
        let mut read_history = false;
        while changes.len() < max.max(1) {
            let block = match self.loaded.take().filter(|block| block.last > self.cursor) {
                Some(block) => block,
                // Who has something to deliver does not wait.
                None => match self
                    .open
                    .next(self.cursor, waker.filter(|_| changes.is_empty()))
                {
                    Next::Block(block) => block,
                    Next::Nothing(up_to) => {
                        self.pass(up_to);
                        break;
                    }
                    // One piece of history a step, so that no other task waits for long.
                    Next::Behind if read_history => break,
                    Next::Behind => {
                        read_history = true;
                        let resource = self.request.resource.clone();
                        let block =
                            blocking(|| read_block(&self.store, self.cursor, Some(&resource)))?;
                        self.loaded = Some(block.clone());
                        block
                    }
                },
            };
            self.take(&block, max, &mut changes);
            if block.last > self.cursor {
                self.loaded = Some(block);
            }
        }
        Ok(if !changes.is_empty() {
            Step::Deliver(WatchBatch {
                changes,
                revision: self.cursor,
                whole: self.whole,
            })
        } else if read_history {
            Step::Again
        } else {
            Step::Wait
        })
    }

    /// Takes what it asked for out of a block, and moves the cursor behind it.
    fn take(&mut self, block: &Block, max: usize, changes: &mut Vec<Arc<Change>>) {
        let mut mine = block
            .changes(&self.request.resource, self.cursor)
            .iter()
            .filter(|change| {
                self.request
                    .namespace
                    .as_ref()
                    .is_none_or(|namespace| change.key.namespace == *namespace)
                    && self
                        .request
                        .name
                        .as_ref()
                        .is_none_or(|name| change.key.name == *name)
            });
        while changes.len() < max.max(1) {
            let Some(change) = mine.next() else {
                (self.cursor, self.whole) = (block.last, true);
                return;
            };
            changes.push(change.clone());
            self.cursor = change.revision;
            self.whole = false;
        }
        let Some(last) = changes.last() else { return };
        // Full. The cursor stands at an event's end if the rest of this event is not for this watch.
        match mine.next() {
            None => (self.cursor, self.whole) = (block.last, true),
            Some(next) if next.event.revision() > last.event.revision() => {
                (self.cursor, self.whole) = (last.event.revision(), true);
            }
            Some(_) => {}
        }
    }
}

/// A cursor over whole events, for projections.
pub struct Events {
    store: Store,
    cursor: u64,
    loaded: Option<Arc<Block>>,
    open: Open,
}

impl Events {
    /// The next events, one at least and at most `max`; waits until there are some. Cancelling it loses nothing.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Arc<Event>>, ReadError> {
        poll_fn(|context| match self.step(max, Some(context.waker())) {
            Ok(events) if events.is_empty() => Poll::Pending,
            other => Poll::Ready(other),
        })
        .await
    }

    /// What there is, without waiting.
    pub fn ready(&mut self, max: usize) -> Result<Vec<Arc<Event>>, ReadError> {
        self.step(max, None)
    }

    fn step(&mut self, max: usize, waker: Option<&Waker>) -> Result<Vec<Arc<Event>>, ReadError> {
        let mut events = Vec::new();
        let mut read_history = false;
        while events.len() < max.max(1) {
            let block = match self.loaded.take().filter(|block| block.last > self.cursor) {
                Some(block) => block,
                None => match self
                    .open
                    .next(self.cursor, waker.filter(|_| events.is_empty()))
                {
                    Next::Block(block) => block,
                    Next::Behind if !read_history => {
                        read_history = true;
                        blocking(|| read_block(&self.store, self.cursor, None))?
                    }
                    Next::Nothing(_) | Next::Behind => break,
                },
            };
            let from = block
                .events
                .partition_point(|event| event.revision() <= self.cursor);
            let room = max.max(1) - events.len();
            events.extend(block.events[from..].iter().take(room).cloned());
            self.cursor = events
                .last()
                .map_or(block.last, |event: &Arc<Event>| event.revision());
            if block.last > self.cursor {
                self.loaded = Some(block);
            }
        }
        Ok(events)
    }

    /// All events up to this revision were delivered.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
}

/// Reads the events behind a revision. Of events that change nothing of the resource only the range is passed over; the block has those
/// that do, whole.
fn read_block(store: &Store, after: u64, resource: Option<&str>) -> Result<Arc<Block>, ReadError> {
    let published = store.published();
    store.0.counters.history_reads.fetch_add(1, Relaxed);
    published.reached_back(resource, after)?;
    let history = &published.history;
    let mut last = after;
    let mut bytes = 0;
    let mut events = Vec::new();
    let read = history.recorded(after + 1, published.view.revision, CATCH_UP_EVENTS);
    // As for any read of the past: what went meanwhile is told apart from what is missing.
    store.published().reached_back(resource, after)?;
    for recorded in read? {
        let wanted = resource.is_none_or(|resource| touches(&recorded.envelope.happened, resource));
        last = recorded.revision();
        if wanted {
            let event = published.whole(recorded);
            store.published().reached_back(resource, after)?;
            let event = event?;
            let bodies = event
                .objects
                .iter()
                .filter_map(|folded| folded.after.as_ref());
            bytes += bodies.map(|object| object.bytes.len()).sum::<usize>();
            events.push(event);
        }
        if bytes > CATCH_UP_BYTES {
            break;
        }
    }
    if last == after {
        let missing = history.corrupt(
            format_args!("the event after revision {after}"),
            "it is missing",
        );
        return Err(missing.into());
    }
    Ok(Arc::new(Block::new(last, events)))
}

fn touches(happened: &Happened, resource: &str) -> bool {
    happened
        .changes()
        .iter()
        .any(|record| &*record.key.resource == resource)
}

/// A cursor while it is open: counted, and known to the ring.
struct Open {
    store: Arc<Inner>,
    resource: Option<Text>,
    number: u64,
}

impl Open {
    fn new(store: &Store, resource: Option<Text>) -> Result<Self, StoreError> {
        let limit = store.0.config.most_waiting;
        let open = Self {
            store: store.0.clone(),
            number: store.0.ring.begin(resource.as_ref()),
            resource,
        };
        // Counted first and looked at after: its drop takes it off again.
        if store.0.counters.watches.fetch_add(1, Relaxed) >= limit as u64 {
            return Err(StoreError::TooMany {
                what: "watches",
                limit,
            });
        }
        Ok(open)
    }

    /// What the ring has after a revision; if it is nothing, `waker` is woken once there may be something.
    fn next(&self, after: u64, waker: Option<&Waker>) -> Next {
        let (ring, resource) = (&self.store.ring, self.resource.as_ref());
        match waker {
            Some(waker) => ring.next_or_wait(resource, after, self.number, waker),
            None => ring.next(resource, after),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.store.counters.watches.fetch_sub(1, Relaxed);
        self.store.ring.end(self.resource.as_ref(), self.number);
    }
}

impl Store {
    /// Watches a resource from a revision on.
    pub fn watch(&self, request: WatchRequest) -> Result<Watch, ReadError> {
        self.reaches(Some(&request.resource), request.from)?;
        // Who stands there may have seen what nobody will undo for it.
        self.not_lost(request.from)?;
        let open = Open::new(self, Some(request.resource.clone()))?;
        let cursor = request.from;
        let whole = cursor == self.published().view.revision;
        Ok(Watch {
            store: self.clone(),
            request,
            cursor,
            whole,
            loaded: None,
            open,
        })
    }

    /// Whole events after a revision, and as they come. A revision inside an event gets that event whole.
    pub fn all_events(&self, from: u64) -> Result<Events, ReadError> {
        self.reaches(None, from)?;
        Ok(Events {
            store: self.clone(),
            cursor: from,
            loaded: None,
            open: Open::new(self, None)?,
        })
    }

    /// Whether history can be read from a revision on: a resource's, or everything.
    fn reaches(&self, resource: Option<&str>, from: u64) -> Result<(), ReadError> {
        let published = self.published();
        published.readable(None, from)?;
        published.reached_back(resource, from)
    }
}

impl Published {
    /// Whether what changed after a revision is kept whole.
    fn reached_back(&self, resource: Option<&str>, after: u64) -> Result<(), ReadError> {
        let retention = &self.view.retention;
        let horizon = resource.map_or(retention.whole_from(), |resource| {
            retention.horizon_of(resource)
        });
        if after < horizon {
            return Err(ReadError::Compacted {
                asked: after,
                horizon,
            });
        }
        Ok(())
    }
}
