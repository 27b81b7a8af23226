//! The leader's queue: proposals from everywhere become entries.
//!
//! What waits while entries are under way goes into the next entry together, so entries grow with load and throughput with them.
//! Bounded by count and by bytes; past that callers are told, at once.

use super::fence::Fence;
use crate::room::Rooms;
use eventstore::{Entry, Proposal, Time, encode};
use raft::{AppendError, Counted, Durations, Node};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// The peers' method that forwards a proposal to the leader.
pub(crate) const METHOD_PROPOSE: &str = "propose";

/// Entries under way at once: few, so that waiting proposals gather; more than one, so that disk and network overlap.
const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// What may wait or be under way; past either, callers are told to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    pub proposals: usize,
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            proposals: 8_192,
            bytes: 64 << 20,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Queue {
    node: Node,
    sender: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    limits: QueueLimits,
    fence: Fence,
    rooms: Rooms,
    meters: Arc<Meters>,
}

/// What is measured of the queue.
#[derive(Default)]
struct Meters {
    under_way: AtomicU64,
    commits: Durations,
}

/// How the queue stands.
pub(crate) struct Depth {
    /// Waiting or under way, and their bytes.
    pub proposals: u64,
    pub bytes: u64,
    /// How long proposals took from here until they were applied.
    pub commits: Counted,
}

/// Counts a proposal for as long as it waits or is under way.
struct UnderWay(Arc<Meters>);

impl UnderWay {
    fn new(meters: &Arc<Meters>) -> Self {
        meters.under_way.fetch_add(1, Ordering::Relaxed);
        Self(meters.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Waiting {
    proposal: Arc<Proposal>,
    len: usize,
    since: Instant,
    reply: oneshot::Sender<Result<(), SendError>>,
    _bytes: OwnedSemaphorePermit,
    _counted: UnderWay,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// Not taken.
    Full,
    /// Not taken: the disks are too full for users' writes.
    NoRoom(Arc<str>),
    /// Not taken.
    NotLeader,
    /// Leadership was lost while it was under way.
    Unknown,
}

impl Queue {
    pub(crate) fn start(node: Node, limits: QueueLimits, fence: Fence, rooms: Rooms) -> Self {
        let (sender, receiver) = mpsc::channel(limits.proposals);
        let meters = Arc::<Meters>::default();
        tokio::spawn(gather(node.clone(), receiver, meters.clone()));
        Self {
            node,
            sender,
            bytes: Arc::new(Semaphore::new(limits.bytes)),
            limits,
            fence,
            rooms,
            meters,
        }
    }

    pub(crate) fn depth(&self) -> Depth {
        Depth {
            proposals: self.meters.under_way.load(Ordering::Relaxed),
            bytes: (self.limits.bytes - self.bytes.available_permits()) as u64,
            commits: self.meters.commits.counted(),
        }
    }

    /// Queues a proposal of `len` encoded bytes; returns when its entry is committed and applied here.
    pub(crate) async fn submit(
        &self,
        proposal: Arc<Proposal>,
        len: usize,
    ) -> Result<(), SendError> {
        if self.fence.why().is_some() {
            return Err(SendError::NotLeader);
        }
        if let Some(why) = self.rooms.refuses(&proposal) {
            return Err(SendError::NoRoom(why));
        }
        let permit = self
            .bytes
            .clone()
            .try_acquire_many_owned(len as u32)
            .map_err(|_| SendError::Full)?;
        let (reply, answer) = oneshot::channel();
        self.sender
            .try_send(Waiting {
                proposal,
                len,
                since: Instant::now(),
                reply,
                _bytes: permit,
                _counted: UnderWay::new(&self.meters),
            })
            .map_err(|_| SendError::Full)?;
        answer.await.unwrap_or(Err(SendError::Unknown))
    }

    /// Appends the proposals of a round, in as many entries as the limits ask for, in order; only in `term`.
    pub(crate) async fn append_all(
        &self,
        proposals: Vec<Proposal>,
        term: u64,
    ) -> Result<(), AppendError> {
        if self.fence.why().is_some() {
            return Err(AppendError::NotLeader { leader: None });
        }
        let started = Instant::now();
        let under_way: Vec<_> = proposals
            .iter()
            .map(|_| UnderWay::new(&self.meters))
            .collect();
        let mut proposals = proposals
            .into_iter()
            .map(Arc::new)
            .map(|proposal| (encode(&*proposal).len(), proposal))
            .peekable();
        while proposals.peek().is_some() {
            let mut taken = Vec::new();
            let mut bytes = 0;
            while let Some((len, proposal)) =
                proposals.next_if(|(len, _)| fits(taken.len(), bytes, *len))
            {
                bytes += len;
                taken.push(proposal);
            }
            self.node
                .append(entry(&self.node, &taken), Some(term))
                .await?;
            taken
                .iter()
                .for_each(|_| self.meters.commits.since(started));
        }
        drop(under_way);
        Ok(())
    }
}

fn fits(count: usize, bytes: usize, len: usize) -> bool {
    // The entry's own framing is a few bytes; a single proposal always fits, for it is bounded below an entry.
    count == 0 || (count < Entry::MOST_PROPOSALS && bytes + len + 64 <= Entry::MOST_BYTES)
}

fn entry(node: &Node, proposals: &[Arc<Proposal>]) -> bytes::Bytes {
    let entry = Entry {
        clock: Time::from_ms(node.clock_estimate_ms() as i64),
        proposals: proposals
            .iter()
            .map(|proposal| (**proposal).clone())
            .collect(),
    };
    encode(&entry).into()
}

async fn gather(node: Node, mut receiver: mpsc::Receiver<Waiting>, meters: Arc<Meters>) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    let mut held: Option<Waiting> = None;
    loop {
        let Ok(permit) = in_flight.clone().acquire_owned().await else {
            return;
        };
        let Some(first) = (match held.take() {
            Some(waiting) => Some(waiting),
            None => receiver.recv().await,
        }) else {
            return;
        };
        let mut bytes = first.len;
        let mut group = vec![first];
        while let Ok(next) = receiver.try_recv() {
            if !fits(group.len(), bytes, next.len) {
                held = Some(next);
                break;
            }
            bytes += next.len;
            group.push(next);
        }
        // A caller that went away before its proposal was taken need not be served.
        group.retain(|waiting| !waiting.reply.is_closed());
        if group.is_empty() {
            continue;
        }
        let proposals: Vec<_> = group
            .iter()
            .map(|waiting| waiting.proposal.clone())
            .collect();
        let encoded = entry(&node, &proposals);
        let (node, meters) = (node.clone(), meters.clone());
        tokio::spawn(async move {
            let result = match node.append(encoded, None).await {
                Ok(_) => Ok(()),
                Err(
                    AppendError::NotLeader { .. }
                    | AppendError::TermMoved { .. }
                    | AppendError::Stopped,
                ) => Err(SendError::NotLeader),
                // Each proposal is bounded below an entry: one that does not fit can't have come this far.
                Err(AppendError::Full | AppendError::TooLarge { .. }) => Err(SendError::Full),
                Err(AppendError::Unknown) => Err(SendError::Unknown),
            };
            for waiting in group {
                if result.is_ok() {
                    meters.commits.since(waiting.since);
                }
                // The one who asked may have gone; the proposal was appended all the same.
                let _ = waiting.reply.send(result.clone());
            }
            drop(permit);
        });
    }
}
