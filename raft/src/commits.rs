//! How often a follower learns how far the log is committed, on the leader.
//!
//! Entries carry it, and where none come it goes in a message of its own. While one write follows another, as of a client that
//! waits for each, that message costs as much as the write's, and the follower wakes its machine for each entry alone. So
//! where commits come close together they are told at most so often, and wait a moment for entries to go with. Only a follower's
//! watchers and local reads are late by that moment: whatever there waits for a commit, a proposal that it forwards or a read of what is
//! newest, has asked the leader first, and then it does not wait ([`Awaited`]). Heartbeats tell of commits as ever.
//!
//! Where no entries come, a commit would wait for nothing, and a client may be waiting to see it on a follower before it goes on. So
//! one waits only behind many in a row that entries came after in time, and after one that waited for nothing they are counted anew.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::unfold;
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::types::{LogId, Types};

/// Entries carry a newer commit when the last was told so long ago.
const COMMIT_EVERY: Duration = Duration::from_millis(4);
/// So long after the last one a newer commit goes by itself.
const COMMIT_WAIT: Duration = Duration::from_millis(6);
/// A commit waits for entries at least so long, and only if they came within it behind so many in a row: fewer than one in a hundred
/// waits for nothing then. If entries come with a probability p, n in a row take (p^-n - 1) / (1 - p) commits on average, and of those
/// after them 1 / (1 - p) wait until one does for nothing: together 175 at least, with 64 in a row.
const ENTRIES_WAIT: Duration = Duration::from_millis(2);
const ENTRIES_CAME_MIN: u32 = 64;

type Request = AppendEntriesRequest<Types>;

/// Who on a follower waits for a commit.
#[derive(Default)]
pub(crate) struct Awaited {
    readers: Notify,
    proposers: AtomicBool,
}

impl Awaited {
    /// For what is committed already.
    pub(crate) fn by_reader(&self) {
        self.readers.notify_one();
    }

    /// For what it has just forwarded. What is committed already can go with that.
    pub(crate) fn by_proposer(&self) {
        self.proposers.store(true, Ordering::Release);
    }

    fn take_proposers(&self) -> bool {
        self.proposers.load(Ordering::Relaxed) && self.proposers.swap(false, Ordering::Acquire)
    }
}

/// The messages to one follower, each asked for when the one before is answered.
pub(crate) fn paced<S>(messages: S, awaited: Arc<Awaited>) -> impl Stream<Item = Request> + Unpin
where
    S: Stream<Item = Request> + Unpin,
{
    let paced = Paced {
        messages,
        awaited,
        ended: false,
        told: None,
        told_at: None,
        untold: None,
        alarm: Box::pin(sleep_until(Instant::now())),
        alone_at: None,
        came: 0,
    };
    Box::pin(unfold(paced, |mut paced| async move {
        let message = paced.next().await?;
        Some((message, paced))
    }))
}

struct Paced<S> {
    messages: S,
    awaited: Arc<Awaited>,
    ended: bool,
    /// The commit that the follower was told last.
    told: Option<LogId>,
    told_at: Option<Instant>,
    /// A message without entries that tells a newer one.
    untold: Option<Request>,
    /// Set where it is over, and left to ring at an earlier time where it is not: setting a timer may wake a thread.
    alarm: Pin<Box<Sleep>>,
    /// When a commit was told without entries, until some come.
    alone_at: Option<Instant>,
    /// Behind how many commits in a row entries came in time.
    came: u32,
}

impl<S: Stream<Item = Request> + Unpin> Paced<S> {
    async fn next(&mut self) -> Option<Request> {
        while !self.ended {
            let message = match self.untold.take() {
                None => self.messages.next().await?,
                Some(untold) => match self.wait(untold).await {
                    Ok(message) => message,
                    Err(untold) => return Some(self.tell(untold)),
                },
            };
            if let Some(message) = self.now(message) {
                return Some(message);
            }
        }
        None
    }

    /// What of this message goes now, if anything does; the rest is kept.
    fn now(&mut self, mut message: Request) -> Option<Request> {
        if !message.entries.is_empty()
            && let Some(alone_at) = self.alone_at.take()
        {
            self.entries_came(alone_at.elapsed() <= ENTRIES_WAIT);
        }
        if message.leader_commit <= self.told {
            return Some(message);
        }
        if self.awaited.take_proposers() {
            self.came = 0;
        }
        let (due, alone) = match message.entries.last() {
            Some(last) => (COMMIT_EVERY, Some(last.log_id)),
            None => (COMMIT_WAIT, None),
        };
        if self.came < ENTRIES_CAME_MIN || self.told_at.is_none_or(|at| at.elapsed() >= due) {
            return Some(self.tell(message));
        }
        let Some(last) = alone else {
            self.untold = Some(message);
            return None;
        };
        self.untold = Some(Request {
            vote: message.vote,
            prev_log_id: Some(last),
            leader_commit: message.leader_commit,
            entries: Vec::new(),
        });
        message.leader_commit = self.told;
        Some(message)
    }

    fn tell(&mut self, message: Request) -> Request {
        let now = Instant::now();
        self.told = message.leader_commit;
        self.told_at = Some(now);
        if message.entries.is_empty() {
            self.alone_at.get_or_insert(now);
        }
        message
    }

    fn entries_came(&mut self, in_time: bool) {
        self.came = if in_time {
            self.came.saturating_add(1)
        } else {
            0
        };
    }

    /// For entries, which say what this message says: each is made with the newest commit there is. The message, if it has waited
    /// long enough or somebody else does.
    async fn wait(&mut self, mut untold: Request) -> Result<Request, Request> {
        let least = Instant::now() + ENTRIES_WAIT;
        let until = self.told_at.map_or(least, |at| least.max(at + COMMIT_WAIT));
        if self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(until);
        }
        loop {
            // In this order, so that a simulation always chooses the same.
            tokio::select! {
                biased;
                () = self.awaited.readers.notified() => {
                    self.came = 0;
                    return Err(untold);
                }
                next = self.messages.next() => match next {
                    Some(message) if message.entries.is_empty() => {
                        if self.awaited.take_proposers() {
                            self.came = 0;
                            return Err(message);
                        }
                        untold = message;
                    }
                    Some(message) => {
                        self.entries_came(true);
                        return Ok(message);
                    }
                    None => {
                        self.ended = true;
                        return Err(untold);
                    }
                },
                () = &mut self.alarm => {
                    if self.alarm.deadline() < until {
                        self.alarm.as_mut().reset(until);
                        continue;
                    }
                    self.came = 0;
                    return Err(untold);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, Payload, Position, Vote};
    use bytes::Bytes;
    use futures::FutureExt;
    use openraft::EntryPayload;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::time::{advance, sleep};

    const MS: Duration = Duration::from_millis(1);

    fn at(index: u64) -> LogId {
        LogId::from(Position { term: 1, index })
    }

    /// One stream of messages, as openraft makes them.
    struct Messages {
        send: UnboundedSender<Request>,
        awaited: Arc<Awaited>,
        paced: Pin<Box<dyn Stream<Item = Request>>>,
        last: u64,
    }

    impl Messages {
        fn new() -> Self {
            let (send, mut receiver) = unbounded_channel();
            let awaited = Arc::<Awaited>::default();
            let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
            Self {
                send,
                paced: Box::pin(paced(stream, awaited.clone())),
                awaited,
                last: 100,
            }
        }

        fn send(&mut self, entries: u64, committed: u64) {
            let last = self.last;
            let entry = |index| Entry {
                log_id: at(index),
                payload: EntryPayload::Normal(Payload(Bytes::new())),
            };
            let message = AppendEntriesRequest {
                vote: Vote::new_committed(1, 1),
                prev_log_id: Some(at(last)),
                leader_commit: Some(at(committed)),
                entries: (last + 1..=last + entries).map(entry).collect(),
            };
            self.last += entries;
            self.send.send(message).unwrap();
        }

        /// How many entries, how far committed, and after how long. No message goes that leaves a gap.
        async fn next(&mut self) -> (usize, u64, Duration) {
            let started = Instant::now();
            let message = self.paced.next().await.unwrap();
            let last = message.entries.last().map(|entry| entry.log_id);
            assert_eq!(last.or(message.prev_log_id), Some(at(self.last)));
            assert_eq!(message.vote, Vote::new_committed(1, 1));
            let committed = message.leader_commit.unwrap().index;
            (message.entries.len(), committed, started.elapsed())
        }

        /// Commits that are told at once, until the next one may wait: behind each, entries come. The newest commit.
        async fn entries_come(&mut self, committed: u64, after: Duration) -> u64 {
            let last = committed + u64::from(ENTRIES_CAME_MIN);
            for committed in committed + 1..=last {
                self.send(0, committed);
                assert_eq!(self.next().await, (0, committed, Duration::ZERO));
                advance(after).await;
                self.send(1, committed);
                assert_eq!(self.next().await, (1, committed, Duration::ZERO));
            }
            last
        }

        async fn nothing_within(&mut self, time: Duration) {
            let waited = tokio::time::timeout(time, self.paced.next()).await;
            assert!(waited.is_err(), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_writes_follow_each_other_every_few_tell_a_commit() {
        let mut messages = Messages::new();
        let first = messages.entries_come(0, MS).await;
        let (mut told, mut told_at, mut tellings) = (first, Instant::now() - MS, 0);
        for committed in first..first + 1_000 {
            messages.send(1, committed);
            let (entries, says, waited) = messages.next().await;
            assert_eq!((entries, waited), (1, Duration::ZERO));
            assert!(says == told || says == committed);
            if says > told {
                (told, told_at, tellings) = (says, Instant::now(), tellings + 1);
            }
            assert!(told_at.elapsed() < COMMIT_EVERY);
            // The write is committed, and the next one comes.
            messages.send(0, committed + 1);
            messages.nothing_within(MS * 4 / 5).await;
        }
        assert_eq!(tellings, 250);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_commit_is_told_without_entries() {
        let mut messages = Messages::new();
        let first = messages.entries_come(0, MS).await;
        messages.send(1, first + 1);
        assert_eq!(messages.next().await, (1, first, Duration::ZERO));
        // openraft takes it for told: it is in what came from there.
        assert_eq!(messages.next().await, (0, first + 1, COMMIT_WAIT - MS));
        messages.nothing_within(MS * 100).await;
        messages.send(2, first + 1);
        assert_eq!(messages.next().await, (2, first + 1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_late_in_the_others_time_waits_for_entries_all_the_same() {
        let mut messages = Messages::new();
        let first = messages.entries_come(0, MS).await;
        advance(COMMIT_WAIT - 2 * MS).await;
        messages.send(0, first + 1);
        assert_eq!(messages.next().await, (0, first + 1, ENTRIES_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn commits_that_come_seldom_do_not_wait() {
        let mut messages = Messages::new();
        for committed in 1..100 {
            messages.send(1, committed);
            assert_eq!(messages.next().await, (1, committed, Duration::ZERO));
            advance(COMMIT_WAIT).await;
            messages.send(0, committed + 1);
            assert_eq!(messages.next().await, (0, committed + 1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_only_where_entries_came_soon() {
        for (after, waits) in [
            (ENTRIES_WAIT, COMMIT_WAIT - ENTRIES_WAIT),
            (ENTRIES_WAIT + MS, Duration::ZERO),
        ] {
            let mut messages = Messages::new();
            let first = messages.entries_come(0, after).await;
            messages.send(0, first + 1);
            assert_eq!(messages.next().await, (0, first + 1, waits));
            // If it waited, it was for nothing.
            advance(COMMIT_WAIT).await;
            messages.send(1, first + 1);
            messages.next().await;
            let second = messages.entries_come(first + 1, after).await;
            messages.send(0, second + 1);
            assert_eq!(messages.next().await, (0, second + 1, waits));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_of_many_wait_for_nothing_whatever_the_rhythm() {
        // In how many of a hundred cases entries come at once; else they come when waiting is over.
        for often in [0, 50, 90, 97, 98, 99, 100] {
            let mut messages = Messages::new();
            let mut dice = 1_u64;
            let (mut waited, mut saved) = (0, 0);
            for committed in 1..=100_000 {
                messages.send(0, committed);
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if (dice >> 33) % 100 < often {
                    // Told, or kept for what comes now.
                    saved += u32::from(messages.paced.next().now_or_never().is_none());
                    messages.send(1, committed);
                } else {
                    let started = Instant::now();
                    messages.next().await;
                    waited += u32::from(started.elapsed() > Duration::ZERO);
                    advance(COMMIT_EVERY - MS).await;
                    messages.send(1, committed);
                }
                assert_eq!(messages.next().await.0, 1);
            }
            assert!(waited <= 1_000, "{often}: {waited}");
            assert_eq!(saved > 50_000, often >= 99, "{often}: {saved}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_hurries_the_commit_also_before_it_is_there() {
        for before in [false, true] {
            let mut messages = Messages::new();
            let first = messages.entries_come(0, MS).await;
            let awaited = messages.awaited.clone();
            if before {
                awaited.by_reader();
            }
            messages.send(0, first + 1);
            let later = async {
                sleep(MS).await;
                awaited.by_reader();
            };
            let ((_, says, waited), ()) = tokio::join!(messages.next(), later);
            assert_eq!(says, first + 1);
            assert_eq!(waited, if before { Duration::ZERO } else { MS });
            // And those that follow.
            messages.entries_come(first + 1, MS).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_a_proposer_waits_for_goes_at_once() {
        for held in [false, true] {
            let mut messages = Messages::new();
            let mut committed = messages.entries_come(0, MS).await;
            if held {
                committed += 1;
                messages.send(0, committed);
                messages.nothing_within(MS).await;
            }
            messages.awaited.by_proposer();
            // What is committed already goes with the entry: no message is under way when that comes.
            messages.nothing_within(MS).await;
            messages.send(1, committed);
            assert_eq!(messages.next().await, (1, committed, Duration::ZERO));
            // This is what is waited for, and those that follow.
            messages.send(0, committed + 1);
            assert_eq!(messages.next().await, (0, committed + 1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_commit_goes_before_the_end() {
        let mut messages = Messages::new();
        let first = messages.entries_come(0, MS).await;
        messages.send(1, first + 1);
        messages.next().await;
        let (closed, _) = unbounded_channel();
        messages.send = closed;
        assert_eq!(messages.next().await, (0, first + 1, Duration::ZERO));
        assert!(messages.paced.next().await.is_none());
    }
}
