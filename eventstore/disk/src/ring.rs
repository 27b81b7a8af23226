//! Recent events in memory, shared by all watches.
//!
//! Apply adds one block a group; a watch takes a block by pointer and works on it outside the lock, so that a watch, slow or one of
//! thousands, costs apply nothing but its wake-up. Each resource has a lane of its own: a watch of a quiet resource is neither woken by
//! others' changes nor falls behind them. Bounded by events and bytes; what leaves is noted lane by lane, so that a watch knows whether it
//! missed anything.

use crate::pace::{Pace, Sleepers};
use crate::watch::Change;
use eventstore::{Event, Text, View};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

/// What one group brought, or what was read of history at one time.
pub(crate) struct Block {
    pub last: u64,
    pub events: Vec<Arc<Event>>,
    /// The last change of each resource in it, in the order of resources.
    resources: BTreeMap<Text, u64>,
    /// Changes by resource; each in the order of revisions. Made for the first watch that takes the block: most blocks nobody watches.
    lanes: OnceLock<BTreeMap<Text, Vec<Arc<Change>>>>,
    bytes: usize,
}

impl Block {
    pub fn new(last: u64, events: Vec<Arc<Event>>) -> Self {
        let mut resources = BTreeMap::new();
        let mut bytes = 0;
        for event in &events {
            bytes += EVENT_BYTES;
            for folded in &event.objects {
                bytes += CHANGE_BYTES;
                bytes += [&folded.before, &folded.after]
                    .into_iter()
                    .flatten()
                    .map(|object| object.bytes.len())
                    .sum::<usize>();
                match resources.get_mut(&folded.key.resource) {
                    Some(last) => *last = folded.revision,
                    None => {
                        resources.insert(folded.key.resource.clone(), folded.revision);
                    }
                }
            }
        }
        Self {
            last,
            events,
            resources,
            lanes: OnceLock::new(),
            bytes,
        }
    }

    /// A resource's changes after a revision.
    pub fn changes(&self, resource: &str, after: u64) -> &[Arc<Change>] {
        let Some(changes) = self.lanes.get_or_init(|| self.by_resource()).get(resource) else {
            return &[];
        };
        &changes[changes.partition_point(|change| change.revision <= after)..]
    }

    fn by_resource(&self) -> BTreeMap<Text, Vec<Arc<Change>>> {
        let mut lanes: BTreeMap<Text, Vec<Arc<Change>>> = BTreeMap::new();
        for event in &self.events {
            for folded in &event.objects {
                let change = Arc::new(Change::new(folded, event.clone()));
                match lanes.get_mut(&folded.key.resource) {
                    Some(lane) => lane.push(change),
                    None => {
                        lanes.insert(folded.key.resource.clone(), vec![change]);
                    }
                }
            }
        }
        lanes
    }
}

/// Roughly what an event and a change take beside their objects' bytes.
const EVENT_BYTES: usize = 1_024;
const CHANGE_BYTES: usize = 512;

/// What a watch finds behind its cursor.
pub(crate) enum Next {
    Block(Arc<Block>),
    /// Nothing of its own up to this revision, an event's end.
    Nothing(u64),
    /// It missed what has left the ring: the disk has it.
    Behind,
}

pub(crate) struct Ring {
    most_events: usize,
    most_bytes: usize,
    inner: Mutex<Inner>,
    pub pace: Pace,
}

#[derive(Default)]
struct Inner {
    all: Lane,
    by_resource: BTreeMap<Text, Lane>,
    last: u64,
    events: usize,
    bytes: usize,
    /// The number of the next cursor.
    cursors: u64,
}

#[derive(Default)]
struct Lane {
    blocks: VecDeque<Arc<Block>>,
    /// The revision of the last change that left.
    left: u64,
    /// How many cursors go along it, and those of them that wait.
    cursors: usize,
    sleepers: Sleepers,
}

impl Inner {
    fn next(&self, resource: Option<&Text>, after: u64) -> Next {
        let lane = match resource {
            None => Some(&self.all),
            Some(resource) => self.by_resource.get(resource),
        };
        let Some(lane) = lane else {
            return Next::Nothing(self.last);
        };
        if lane.left > after {
            return Next::Behind;
        }
        // A lane's block may end after the lane's own last change in it: then it is skipped by the watch, at no cost.
        match lane
            .blocks
            .get(lane.blocks.partition_point(|block| block.last <= after))
        {
            Some(block) => Next::Block(block.clone()),
            None => Next::Nothing(self.last),
        }
    }

    fn lane(&mut self, resource: Option<&Text>) -> &mut Lane {
        match resource {
            None => &mut self.all,
            Some(resource) => self.by_resource.entry(resource.clone()).or_default(),
        }
    }
}

impl Ring {
    pub fn new(most_events: usize, most_bytes: usize, view: &View) -> Self {
        let ring = Self {
            most_events,
            most_bytes,
            inner: Mutex::default(),
            pace: Pace::default(),
        };
        ring.restart(view);
        ring
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties it: all up to this view has to be read from the disk.
    pub fn restart(&self, view: &View) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.all.blocks.clear();
        inner.all.left = view.revision;
        for lane in inner.by_resource.values_mut() {
            lane.blocks.clear();
        }
        for resource in view.resources() {
            inner.by_resource.entry(resource.clone()).or_default().left =
                view.last_change(resource);
        }
        (inner.last, inner.events, inner.bytes) = (view.revision, 0, 0);
        let projections = std::mem::take(&mut inner.all.sleepers);
        let mut watches = Sleepers::new();
        for lane in inner.by_resource.values_mut() {
            watches.append(&mut lane.sleepers);
        }
        drop(guard);
        self.wake(projections, watches);
    }

    /// What decides, as the leader's reconcilers do, does not take turns with a thousand who look on.
    fn wake(&self, projections: Sleepers, watches: Sleepers) {
        projections.into_values().for_each(Waker::wake);
        self.pace.wake(watches);
    }

    /// Adds a group's events and wakes those who watch for them.
    pub fn push(&self, block: Block) {
        let block = Arc::new(block);
        let mut gone = Vec::new();
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.last = block.last;
        inner.events += block.events.len();
        inner.bytes += block.bytes;
        inner.all.blocks.push_back(block.clone());
        let projections = std::mem::take(&mut inner.all.sleepers);
        let mut watches = Sleepers::new();
        for resource in block.resources.keys() {
            let lane = match inner.by_resource.get_mut(resource) {
                Some(lane) => lane,
                None => inner.by_resource.entry(resource.clone()).or_default(),
            };
            lane.blocks.push_back(block.clone());
            watches.append(&mut lane.sleepers);
        }
        while inner.events > self.most_events || inner.bytes > self.most_bytes {
            let Some(oldest) = inner.all.blocks.pop_front() else {
                break;
            };
            inner.events -= oldest.events.len();
            inner.bytes -= oldest.bytes;
            inner.all.left = oldest.last;
            for (resource, last) in &oldest.resources {
                if let Some(lane) = inner.by_resource.get_mut(resource) {
                    lane.blocks.pop_front();
                    lane.left = *last;
                }
            }
            gone.push(oldest);
        }
        drop(guard);
        self.wake(projections, watches);
        // Freed here, where no one waits for it.
        drop(gone);
    }

    /// The first block with something after `after`, of one resource or of all.
    pub fn next(&self, resource: Option<&Text>, after: u64) -> Next {
        self.lock().next(resource, after)
    }

    /// The same; when there is nothing yet, the cursor of this number is woken once there may be.
    pub fn next_or_wait(
        &self,
        resource: Option<&Text>,
        after: u64,
        cursor: u64,
        waker: &Waker,
    ) -> Next {
        let mut inner = self.lock();
        let next = inner.next(resource, after);
        if matches!(next, Next::Nothing(_)) {
            let sleepers = &mut inner.lane(resource).sleepers;
            sleepers.insert(cursor, waker.clone());
        }
        next
    }

    /// Begins a cursor along the changes of one resource, or of all; its number.
    pub fn begin(&self, resource: Option<&Text>) -> u64 {
        let mut inner = self.lock();
        inner.lane(resource).cursors += 1;
        inner.cursors += 1;
        inner.cursors
    }

    /// A cursor has ended. A lane that no one needs any more goes, for clients may name any resource.
    pub fn end(&self, resource: Option<&Text>, cursor: u64) {
        let mut inner = self.lock();
        let lane = inner.lane(resource);
        lane.cursors -= 1;
        lane.sleepers.remove(&cursor);
        let idle = lane.cursors == 0 && lane.blocks.is_empty() && lane.left == 0;
        if let Some(resource) = resource.filter(|_| idle) {
            inner.by_resource.remove(resource);
        }
    }

    /// Events and bytes held.
    pub fn held(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.events, inner.bytes)
    }
}
