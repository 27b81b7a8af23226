//! The leader's queue: proposals from everywhere become entries.
//!
//! What waits while an entry is under way goes into the next one together, so entries grow with load and throughput with them.
//! Bounded by count and by bytes; past that callers are told, at once.

use super::fence::Fence;
use crate::room::Rooms;
use bytes::Bytes;
use eventstore::{Entry, Proposal, Time, encode};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use raft::{AppendError, Counted, Durations, Node};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Entries under way at once: more than one, so that disk and network overlap.
const ENTRIES_IN_FLIGHT_MAX: usize = 2;
/// What has to wait before another entry goes beside one that is under way.
const GATHER_PROPOSALS: usize = 128;
const GATHER_BYTES: usize = 256 << 10;
/// Those whose proposals an entry carried are waited for again, if there were so many,
const COME_AGAIN_MIN: usize = 4;
/// and for no longer than this, in which what it brought has to reach them and what they say next to come back.
const COME_AGAIN_WAIT: Duration = Duration::from_millis(5);
/// Entries that go at once when they did not come, at most.
const COME_AGAIN_PAUSE_MAX: u32 = 31;

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
    encoded: Bytes,
    since: Instant,
    /// None: nobody waits for it here.
    reply: Option<oneshot::Sender<Result<(), SendError>>>,
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
        node.strand()
            .spawn(gather(node.clone(), receiver, meters.clone()));
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

    /// Queues a proposal, whose bytes these are; returns when its entry is committed and applied here.
    pub(crate) async fn submit(
        &self,
        proposal: &Proposal,
        encoded: Bytes,
    ) -> Result<(), SendError> {
        let (reply, answer) = oneshot::channel();
        self.push(proposal, encoded, Some(reply))?;
        answer.await.unwrap_or(Err(SendError::Unknown))
    }

    /// Queues a proposal and returns at once. What comes of it is told to whoever asks for `reply`, and is in the log for all.
    pub(crate) fn push(
        &self,
        proposal: &Proposal,
        encoded: Bytes,
        reply: Option<oneshot::Sender<Result<(), SendError>>>,
    ) -> Result<(), SendError> {
        if self.fence.why().is_some() {
            return Err(SendError::NotLeader);
        }
        if let Some(why) = self.rooms.refuses(proposal) {
            return Err(SendError::NoRoom(why));
        }
        let permit = self
            .bytes
            .clone()
            .try_acquire_many_owned(encoded.len() as u32)
            .map_err(|_| SendError::Full)?;
        self.sender
            .try_send(Waiting {
                encoded,
                since: Instant::now(),
                reply,
                _bytes: permit,
                _counted: UnderWay::new(&self.meters),
            })
            .map_err(|_| SendError::Full)
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
        let mut proposals = proposals.iter().map(encode).peekable();
        while proposals.peek().is_some() {
            let mut taken = Vec::new();
            let mut bytes = 0;
            while let Some(encoded) =
                proposals.next_if(|encoded| fits(taken.len(), bytes, encoded.len()))
            {
                bytes += encoded.len();
                taken.push(Bytes::from(encoded));
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

fn entry(node: &Node, proposals: &[Bytes]) -> Bytes {
    let clock = Time::from_ms(node.clock_estimate_ms() as i64);
    Entry::join(clock, proposals).into()
}

/// Makes entries of what waits. With none under way one goes at once; while one is, those that come wait for it together, or until
/// there are so many that another is worth what an entry costs: a message to each follower and a sync on each disk.
///
/// Clients that propose again as soon as they are answered would so fall into two groups, each of which waits for the other's entry: twice
/// as many entries as there need be. So the next one waits a little for those whom the last one answered.
async fn gather(node: Node, mut receiver: mpsc::Receiver<Waiting>, meters: Arc<Meters>) {
    let mut waiting = VecDeque::new();
    let mut received = Vec::new();
    let mut under_way = FuturesUnordered::new();
    let mut again = ComeAgain::new();
    loop {
        let now = Instant::now();
        if may_go(&waiting, under_way.len()) && !again.expected(waiting.len(), under_way.len(), now)
        {
            again.goes(waiting.len());
            let group = take(&mut waiting);
            if !group.is_empty() {
                let appended = append(node.clone(), group, meters.clone());
                under_way.push(node.strand().spawn(appended));
            }
            continue;
        }
        let room = Entry::MOST_PROPOSALS.saturating_sub(waiting.len());
        tokio::select! {
            biased;
            Some(done) = under_way.next() => {
                // One that panicked says nothing of itself.
                again.answered(done.unwrap_or_default(), waiting.len(), Instant::now());
            }
            () = sleep_until(again.until), if again.until > now && !waiting.is_empty() => {}
            count = receiver.recv_many(&mut received, room), if room > 0 => match count {
                // Nobody asks any more; what is under way goes on.
                0 => return,
                _ => waiting.extend(received.drain(..)),
            },
        }
    }
}

/// Whether those whom an entry answered propose again at once, as clients do that have nothing else to do.
struct ComeAgain {
    /// When the last entry was answered: how many waited, and how many will if all come.
    before: usize,
    together: usize,
    until: Instant,
    /// Entries before it is tried again, and how many it was the last time: twice as many each time that they did not come.
    pause: u32,
    paused: u32,
}

impl ComeAgain {
    fn new() -> Self {
        Self {
            before: 0,
            together: 0,
            until: Instant::now(),
            pause: 0,
            paused: 0,
        }
    }

    /// An entry of `count` proposals was answered, while so many others waited.
    fn answered(&mut self, count: usize, waiting: usize, now: Instant) {
        self.together = 0;
        if self.pause > 0 {
            self.pause -= 1;
        } else if count >= COME_AGAIN_MIN {
            self.before = waiting;
            self.together = (waiting + count).min(Entry::MOST_PROPOSALS);
            self.until = now + COME_AGAIN_WAIT;
        }
    }

    /// Whether to wait for more than wait already. While an entry is under way there is time anyway.
    fn expected(&self, waiting: usize, under_way: usize, now: Instant) -> bool {
        under_way == 0 && waiting < self.together && now < self.until
    }

    /// The next entry goes, with so many that waited.
    fn goes(&mut self, waiting: usize) {
        if self.together == 0 {
            return;
        }
        let wanted = self.together - self.before;
        let came = waiting.saturating_sub(self.before);
        self.paused = if 4 * came >= 3 * wanted {
            0
        } else {
            (2 * self.paused + 1).min(COME_AGAIN_PAUSE_MAX)
        };
        self.pause = self.paused;
        self.together = 0;
    }
}

fn may_go(waiting: &VecDeque<Waiting>, under_way: usize) -> bool {
    let enough = || {
        let bytes: usize = waiting.iter().map(|waiting| waiting.encoded.len()).sum();
        waiting.len() >= GATHER_PROPOSALS || bytes >= GATHER_BYTES
    };
    match under_way {
        0 => !waiting.is_empty(),
        ENTRIES_IN_FLIGHT_MAX.. => false,
        _ => enough(),
    }
}

/// As many as fit into one entry, in order. A caller that went away before its proposal was taken need not be served.
fn take(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    while let Some(next) = waiting.pop_front() {
        if next.reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
            continue;
        }
        if !fits(group.len(), bytes, next.encoded.len()) {
            waiting.push_front(next);
            break;
        }
        bytes += next.encoded.len();
        group.push(next);
    }
    group
}

/// How many proposals it appended.
async fn append(node: Node, group: Vec<Waiting>, meters: Arc<Meters>) -> usize {
    let count = group.len();
    let proposals: Vec<_> = group
        .iter()
        .map(|waiting| waiting.encoded.clone())
        .collect();
    let result = match node.append(entry(&node, &proposals), None).await {
        Ok(_) => Ok(()),
        Err(
            AppendError::NotLeader { .. } | AppendError::TermMoved { .. } | AppendError::Stopped,
        ) => Err(SendError::NotLeader),
        // Each proposal is bounded below an entry: one that does not fit can't have come this far.
        Err(AppendError::Full | AppendError::TooLarge { .. }) => Err(SendError::Full),
        Err(AppendError::Unknown) => Err(SendError::Unknown),
    };
    for waiting in group {
        if result.is_ok() {
            meters.commits.since(waiting.since);
        }
        if let Some(reply) = waiting.reply {
            // The one who asked may have gone; the proposal was appended all the same.
            let _ = reply.send(result.clone());
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many that wait, of so many bytes each.
    async fn waiting(count: usize, bytes: usize) -> VecDeque<Waiting> {
        let meters = Arc::<Meters>::default();
        let permits = Arc::new(Semaphore::new(count));
        let mut waiting = VecDeque::new();
        for _ in 0..count {
            waiting.push_back(Waiting {
                encoded: vec![0; bytes].into(),
                since: Instant::now(),
                reply: None,
                _bytes: permits.clone().acquire_owned().await.unwrap(),
                _counted: UnderWay::new(&meters),
            });
        }
        waiting
    }

    #[tokio::test]
    async fn an_entry_goes_when_none_is_under_way_or_much_waits() {
        // waiting, bytes each, entries under way, whether another goes
        for (count, bytes, under_way, goes) in [
            (0, 1, 0, false),
            (1, 1, 0, true),
            (GATHER_PROPOSALS, 1, 0, true),
            (GATHER_PROPOSALS - 1, 1, 1, false),
            (GATHER_PROPOSALS, 1, 1, true),
            (1, GATHER_BYTES - 1, 1, false),
            (1, GATHER_BYTES, 1, true),
            (GATHER_PROPOSALS, 1, ENTRIES_IN_FLIGHT_MAX - 1, true),
            (GATHER_PROPOSALS, 1, ENTRIES_IN_FLIGHT_MAX, false),
        ] {
            let waiting = waiting(count, bytes).await;
            assert_eq!(
                may_go(&waiting, under_way),
                goes,
                "{count} of {bytes}, {under_way} under way"
            );
        }
    }

    #[tokio::test]
    async fn those_who_were_answered_are_waited_for_a_little() {
        const FULL: usize = Entry::MOST_PROPOSALS;
        let wait = COME_AGAIN_WAIT.as_millis() as u64;
        // proposals of the last entry, others waiting then; waiting now, under way, ms since; whether more are waited for
        for (count, others, waiting, under_way, since, expected) in [
            // A lone writer waits for nobody.
            (1, 0, 1, 0, 0, false),
            (COME_AGAIN_MIN - 1, 0, 1, 0, 0, false),
            (COME_AGAIN_MIN, 0, 1, 0, 0, true),
            (COME_AGAIN_MIN, 0, COME_AGAIN_MIN, 0, 0, false),
            (10, 30, 39, 0, 0, true),
            (10, 30, 40, 0, 0, false),
            (10, 30, 39, 1, 0, false),
            (10, 30, 39, 0, wait - 1, true),
            (10, 30, 39, 0, wait, false),
            // No entry has room for more.
            (FULL, 30, FULL, 0, 0, false),
        ] {
            let (mut again, now) = (ComeAgain::new(), Instant::now());
            again.answered(count, others, now);
            assert_eq!(
                again.expected(waiting, under_way, now + Duration::from_millis(since)),
                expected,
                "{count}, {others}; {waiting}, {under_way}, {since} ms"
            );
        }
    }

    #[tokio::test]
    async fn those_who_do_not_come_again_are_waited_for_less_and_less() {
        let (mut again, now) = (ComeAgain::new(), Instant::now());
        // Which of so many entries of ten, behind which so many come again, were waited for.
        let mut waits = |entries: usize, came: usize| -> Vec<usize> {
            let mut waited = Vec::new();
            for entry in 0..entries {
                again.answered(10, 5, now);
                if again.expected(6, 0, now) {
                    waited.push(entry);
                }
                again.goes(5 + came);
            }
            waited
        };
        assert_eq!(waits(80, 2), [0, 2, 6, 14, 30, 62]);
        // One more is tried within the longest pause, and as they come, each is.
        let waited = waits(40, 8);
        assert_eq!(waited, (waited[0]..40).collect::<Vec<_>>());
        assert!(waited[0] <= COME_AGAIN_PAUSE_MAX as usize);
    }

    #[tokio::test]
    async fn what_is_too_much_for_an_entry_waits_for_the_next() {
        // waiting, bytes each, how many go
        for (count, bytes, go) in [
            (3, 10, 3),
            (Entry::MOST_PROPOSALS + 1, 1, Entry::MOST_PROPOSALS),
            (3, Entry::MOST_BYTES / 2 - 32, 2),
            (2, Entry::MOST_BYTES, 1),
        ] {
            let mut waiting = waiting(count, bytes).await;
            assert_eq!(take(&mut waiting).len(), go, "{count} of {bytes}");
            assert_eq!(waiting.len(), count - go);
        }
        let mut left = waiting(2, 1).await;
        let (reply, asks) = oneshot::channel();
        left[0].reply = Some(reply);
        drop(asks);
        assert_eq!(take(&mut left).len(), 1, "one went away");
        assert!(left.is_empty());
    }
}
