//! How often a follower learns how far the log is committed, on the leader.
//!
//! Entries carry it, and where none come it goes in a message of its own. While one write follows another, as of a client that
//! waits for each, that message costs as much as the write's, and the follower wakes its machine for each entry alone. So
//! where commits come close together they are told at most so often, and wait a moment for entries to go with. Only a follower's
//! watchers and local reads are late by that moment: whatever there waits for a commit, a proposal that it forwards or a read of what is
//! newest, has asked the leader first, and that sends it off ([`Wires::hurry`](crate::transport::Wires::hurry)). Heartbeats tell
//! of commits as ever.
//!
//! A client may be waiting to see on a follower what it wrote before it goes on: where a commit waited and no entries came,
//! the next ones go at once, more of them each time.

use std::pin::Pin;
use std::sync::Arc;
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
/// How many commits go at once after one that waited for nothing, so that it is less than one in a hundred that does; twice as many
/// after the next such, and half as many after one that entries came for.
const AT_ONCE_MIN: u32 = 256;
const AT_ONCE_MAX: u32 = 4_096;

type Request = AppendEntriesRequest<Types>;

/// The messages to one follower, each asked for when the one before is answered.
pub(crate) fn paced<S>(messages: S, hurry: Arc<Notify>) -> impl Stream<Item = Request> + Unpin
where
    S: Stream<Item = Request> + Unpin,
{
    let paced = Paced {
        messages,
        hurry,
        ended: false,
        told: None,
        told_at: None,
        untold: None,
        alarm: Box::pin(sleep_until(Instant::now())),
        at_once: 0,
        at_once_next: AT_ONCE_MIN,
    };
    Box::pin(unfold(paced, |mut paced| async move {
        let message = paced.next().await?;
        Some((message, paced))
    }))
}

struct Paced<S> {
    messages: S,
    hurry: Arc<Notify>,
    ended: bool,
    /// The commit that the follower was told last.
    told: Option<LogId>,
    told_at: Option<Instant>,
    /// A message without entries that tells a newer one.
    untold: Option<Request>,
    /// Set where it is over, and left to ring at an earlier time where it is not: setting a timer may wake a thread.
    alarm: Pin<Box<Sleep>>,
    /// So many of the next commits don't wait.
    at_once: u32,
    at_once_next: u32,
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
        if message.leader_commit <= self.told {
            return Some(message);
        }
        let (due, alone) = match message.entries.last() {
            Some(last) => (COMMIT_EVERY, Some(last.log_id)),
            None => (COMMIT_WAIT, None),
        };
        if self.at_once > 0 {
            self.at_once -= 1;
            return Some(self.tell(message));
        }
        if self.told_at.is_none_or(|at| at.elapsed() >= due) {
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
        self.told = message.leader_commit;
        self.told_at = Some(Instant::now());
        message
    }

    /// For entries, which say what this message says: each is made with the newest commit there is. The message, if it has waited
    /// long enough.
    async fn wait(&mut self, mut untold: Request) -> Result<Request, Request> {
        let until = self
            .told_at
            .map_or_else(Instant::now, |at| at + COMMIT_WAIT);
        if self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(until);
        }
        loop {
            // In this order, so that a simulation always chooses the same.
            tokio::select! {
                biased;
                () = self.hurry.notified() => {
                    self.at_once = self.at_once.max(AT_ONCE_MIN);
                    return Err(untold);
                }
                next = self.messages.next() => match next {
                    Some(message) if message.entries.is_empty() => untold = message,
                    Some(message) => {
                        self.at_once_next = AT_ONCE_MIN.max(self.at_once_next / 2);
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
                    self.at_once = self.at_once_next;
                    self.at_once_next = AT_ONCE_MAX.min(self.at_once_next * 2);
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
        hurry: Arc<Notify>,
        paced: Pin<Box<dyn Stream<Item = Request>>>,
        last: u64,
    }

    impl Messages {
        fn new() -> Self {
            let (send, mut receiver) = unbounded_channel();
            let hurry = Arc::new(Notify::new());
            let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
            Self {
                send,
                paced: Box::pin(paced(stream, hurry.clone())),
                hurry,
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

        async fn nothing_within(&mut self, time: Duration) {
            let waited = tokio::time::timeout(time, self.paced.next()).await;
            assert!(waited.is_err(), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_writes_follow_each_other_every_few_tell_a_commit() {
        let mut messages = Messages::new();
        let (mut told, mut told_at, mut tellings) = (0, Instant::now(), 0);
        for committed in 1..=1_000 {
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
        messages.send(1, 1);
        assert_eq!(messages.next().await, (1, 1, Duration::ZERO));
        advance(MS).await;
        messages.send(1, 2);
        assert_eq!(messages.next().await, (1, 1, Duration::ZERO));
        // openraft takes it for told: it is in what came from there.
        assert_eq!(messages.next().await, (0, 2, COMMIT_WAIT - MS));
        messages.nothing_within(MS * 100).await;
        messages.send(2, 2);
        assert_eq!(messages.next().await, (2, 2, Duration::ZERO));
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
    async fn where_waiting_was_for_nothing_the_next_ones_do_not_wait() {
        let mut messages = Messages::new();
        let mut committed = 0..;
        let mut tell = async |messages: &mut Messages| {
            let committed = committed.next().unwrap();
            messages.send(0, committed);
            let (_, says, waited) = messages.next().await;
            assert_eq!(says, committed);
            waited
        };
        assert_eq!(tell(&mut messages).await, Duration::ZERO);
        for at_once in [256, 512, 1_024] {
            assert_eq!(tell(&mut messages).await, COMMIT_WAIT);
            for _ in 0..at_once {
                assert_eq!(tell(&mut messages).await, Duration::ZERO);
            }
        }
        // This one is worth its wait: the next for nothing has half as many go at once as it would have.
        messages.send(0, 10_000);
        messages.nothing_within(MS).await;
        messages.send(1, 10_000);
        assert_eq!(messages.next().await.0, 1);
        assert_eq!(messages.next().await, (0, 10_000, COMMIT_WAIT - MS));
        let mut committed = 10_001..;
        for _ in 0..1_024 {
            let committed = committed.next().unwrap();
            messages.send(0, committed);
            assert_eq!(messages.next().await, (0, committed, Duration::ZERO));
        }
        messages.send(0, 20_000);
        assert_eq!(messages.next().await, (0, 20_000, COMMIT_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_hurries_the_commit_also_before_it_is_there() {
        for before in [false, true] {
            let mut messages = Messages::new();
            messages.send(1, 1);
            messages.next().await;
            let hurry = messages.hurry.clone();
            if before {
                hurry.notify_one();
            }
            messages.send(0, 2);
            let later = async {
                sleep(MS).await;
                hurry.notify_one();
            };
            let ((_, says, waited), ()) = tokio::join!(messages.next(), later);
            assert_eq!(says, 2);
            assert_eq!(waited, if before { Duration::ZERO } else { MS });
            // And those that follow.
            for committed in 3..3 + u64::from(AT_ONCE_MIN) {
                messages.send(committed % 2, committed);
                let (_, says, waited) = messages.next().await;
                assert_eq!((says, waited), (committed, Duration::ZERO));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_commit_goes_before_the_end() {
        let mut messages = Messages::new();
        messages.send(1, 1);
        messages.next().await;
        messages.send(1, 2);
        messages.next().await;
        let (closed, _) = unbounded_channel();
        messages.send = closed;
        assert_eq!(messages.next().await, (0, 2, Duration::ZERO));
        assert!(messages.paced.next().await.is_none());
    }
}
