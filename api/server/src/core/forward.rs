//! Proposals on their way from this server to the leader: those that wait while others are under way go together in one message.
//!
//! A message costs both ends about what a client's call costs, so one a proposal would cost the cluster more than storing it. A lane for
//! each leader there was, so that what hangs on the way to one that died holds up nobody who goes to the next. The answer comes as soon
//! as all of a message is queued, and says of each proposal whether it was taken: what comes of it is in the log, which this server
//! folds, and messages are under way for as long as the way takes and no longer.
//!
//! A message is read once: whoever was told that nothing was taken must not find it done because the message came a second time. So it
//! names the term whose leader it is for, which no other server and no later life of that one leads, and a number of its own in that term.

use super::Core;
use super::propose::SendFailure;
use super::queue::{QueueLimits, SendError};
use bytes::Bytes;
use eventstore::{Entry, Proposal, decode, encode, encode_large};
use futures::task::AtomicWaker;
use raft::{Node, NodeId};
use seams::{NetworkError, Peer, Refusal, RefusalCode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The peers' method that forwards proposals to the leader.
pub(crate) const METHOD_PROPOSE_ONCE: &str = "propose.once";
/// The same without a number, as servers before this one ask it; asked of those that do not know the other.
pub(crate) const METHOD_PROPOSE_ALL: &str = "propose.all";
/// The same for one alone, as servers before those ask it.
pub(crate) const METHOD_PROPOSE: &str = "propose";

/// Messages under way at once to one leader: few, so that proposals gather; more than one, so that the way there is never idle.
const MESSAGES_IN_FLIGHT_MAX: usize = 2;
/// One message's proposals together; one alone may have more than that.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Servers whose numbers are remembered, and numbers of each: far more than are under way at once.
const SENDERS_MAX: usize = 64;
const NUMBERS_MAX: u64 = 1_024;
/// One try to forward, which is answered as soon as it is queued: past it the leader is asked again, under the same ids.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(1);
/// The same of a server that answers once it has committed.
const ALONE_TIMEOUT: Duration = Duration::from_secs(5);
/// So much of a message may take as long again.
const FORWARD_BYTES_A_TIMEOUT: usize = 1 << 20;

/// Cheap to clone; its lanes end with the last clone.
#[derive(Clone)]
pub(crate) struct Forward {
    node: Node,
    limits: QueueLimits,
    bytes: Arc<Semaphore>,
    /// By the term and its leader; those of earlier terms end when one of a later begins.
    lanes: Arc<Mutex<Lanes>>,
    /// What tells this life of this server from all others.
    life: u64,
    read: Arc<Mutex<Read>>,
}

type Lanes = BTreeMap<(u64, NodeId), mpsc::Sender<Waiting>>;

/// Ahead of a message's proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Once {
    /// In which it is to be read.
    term: u64,
    /// The sender, since it was started.
    life: u64,
    /// Of its messages in this lane.
    number: u64,
}

/// The messages read in one term, by sender; who sent last stands last.
#[derive(Default)]
struct Read {
    term: u64,
    senders: VecDeque<(u64, BTreeSet<u64>)>,
}

impl Read {
    /// False: it was read before, or so long ago that it can't be told.
    fn is_first(&mut self, once: Once) -> bool {
        if once.term != self.term {
            *self = Self {
                term: once.term,
                ..Self::default()
            };
        }
        let known = self.senders.iter().position(|(life, _)| *life == once.life);
        let known = known.and_then(|at| self.senders.remove(at));
        let (_, mut numbers) = known.unwrap_or_default();
        let newest = numbers.last().copied().unwrap_or_default();
        let is_first = once.number + NUMBERS_MAX > newest && numbers.insert(once.number);
        if numbers.len() as u64 > NUMBERS_MAX {
            numbers.pop_first();
        }
        self.senders.push_back((once.life, numbers));
        if self.senders.len() > SENDERS_MAX {
            // It ended long since: a cluster has few servers.
            self.senders.pop_front();
        }
        is_first
    }
}

/// How far a proposal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// The leader has it in its queue.
    Queued,
    Committed,
}

struct Waiting {
    to: Peer,
    encoded: Bytes,
    teller: Teller,
    _bytes: OwnedSemaphorePermit,
}

/// What the leader did with one proposal of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Became {
    Queued,
    /// It was not taken.
    Busy,
    /// It was not taken, and why.
    NoRoom(String),
    /// It was not taken: the one asked does not lead.
    NotLeader,
    /// It may have been taken.
    Unknown,
}

impl From<Result<(), SendError>> for Became {
    fn from(result: Result<(), SendError>) -> Self {
        match result {
            Ok(()) => Self::Queued,
            Err(SendError::Full) => Self::Busy,
            Err(SendError::NoRoom(why)) => Self::NoRoom(why.to_string()),
            Err(SendError::NotLeader) => Self::NotLeader,
            Err(SendError::Unknown) => Self::Unknown,
        }
    }
}

impl From<Became> for Result<Sent, SendFailure> {
    fn from(became: Became) -> Self {
        match became {
            Became::Queued => Ok(Sent::Queued),
            Became::Busy => Err(SendFailure::Busy),
            Became::NoRoom(why) => Err(SendFailure::NoRoom(why)),
            Became::NotLeader => Err(SendFailure::NoLeader),
            Became::Unknown => Err(SendFailure::Lost),
        }
    }
}

impl Forward {
    pub(crate) fn new(node: Node, limits: QueueLimits, life: u64) -> Self {
        Self {
            node,
            limits,
            bytes: Arc::new(Semaphore::new(limits.bytes)),
            lanes: Arc::default(),
            life,
            read: Arc::default(),
        }
    }

    fn is_first(&self, once: Once) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.is_first(once)
    }

    /// Sends a proposal, encoded, to the leader of this term. Returns when it was not taken, or when a leader of an earlier release has
    /// committed it. Of one that was taken the log tells: whoever waits here for it waits until then, and is not woken before.
    pub(super) async fn send(
        &self,
        term: u64,
        to: &Peer,
        encoded: Bytes,
    ) -> Result<(), SendFailure> {
        let permit = self
            .bytes
            .clone()
            .try_acquire_many_owned(encoded.len() as u32);
        let permit = permit.map_err(|_| SendFailure::Busy)?;
        let (teller, fate) = fate();
        let waiting = Waiting {
            to: to.clone(),
            encoded,
            teller,
            _bytes: permit,
        };
        self.lane(term, to.id)
            .try_send(waiting)
            .map_err(|_| SendFailure::Busy)?;
        fate.await
    }

    fn lane(&self, term: u64, to: NodeId) -> mpsc::Sender<Waiting> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let (sender, receiver) = mpsc::channel(self.limits.proposals);
            let first = Once {
                term,
                life: self.life,
                number: 1,
            };
            let gathering = gather(self.node.clone(), receiver, first);
            self.node.strand().spawn(gathering);
            sender
        };
        let lane = lanes.entry((term, to)).or_insert_with(begin).clone();
        // What waits in the others is sent yet: they end when they are empty.
        lanes.retain(|(of, _), _| *of >= term);
        lane
    }
}

/// Tells whoever sent a proposal what became of it on its way.
struct Teller {
    told: Arc<Told>,
    done: bool,
}

/// Resolves when there is something to tell.
struct Fate(Arc<Told>);

#[derive(Default)]
struct Told {
    became: Mutex<Option<Result<(), SendFailure>>>,
    waker: AtomicWaker,
}

fn fate() -> (Teller, Fate) {
    let told = Arc::<Told>::default();
    let fate = Fate(told.clone());
    (Teller { told, done: false }, fate)
}

impl Teller {
    /// Nobody waits any more: its outcome may be known already, or its caller gone.
    fn is_forsaken(&self) -> bool {
        Arc::strong_count(&self.told) == 1
    }

    fn tell(mut self, became: Result<Sent, SendFailure>) {
        self.done = true;
        match became {
            Ok(Sent::Queued) => {}
            Ok(Sent::Committed) => self.told.set(Ok(())),
            Err(failure) => self.told.set(Err(failure)),
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if !self.done {
            self.told.set(Err(SendFailure::Lost));
        }
    }
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Option<Result<(), SendFailure>>> {
        self.became.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, became: Result<(), SendFailure>) {
        *self.lock() = Some(became);
        self.waker.wake();
    }
}

impl Future for Fate {
    type Output = Result<(), SendFailure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.waker.register(context.waker());
        match self.0.lock().take() {
            Some(became) => Poll::Ready(became),
            None => Poll::Pending,
        }
    }
}

async fn gather(node: Node, mut receiver: mpsc::Receiver<Waiting>, mut once: Once) {
    let in_flight = Arc::new(Semaphore::new(MESSAGES_IN_FLIGHT_MAX));
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
        let mut bytes = first.encoded.len();
        let mut group = vec![first];
        while let Ok(next) = receiver.try_recv() {
            bytes += next.encoded.len();
            if group.len() >= Entry::MOST_PROPOSALS || bytes > MESSAGE_BYTES_MAX {
                held = Some(next);
                break;
            }
            group.push(next);
        }
        // Whoever went away before it was sent need not be served.
        group.retain(|waiting| !waiting.teller.is_forsaken());
        let Some(to) = group.first().map(|waiting| waiting.to.clone()) else {
            continue;
        };
        let asking = node.clone();
        let this = once;
        once.number += 1;
        node.strand().spawn(async move {
            let encoded = group
                .iter()
                .map(|waiting| waiting.encoded.clone())
                .collect();
            let became = ask(&asking, &to, this, encoded).await;
            for (waiting, became) in group.into_iter().zip(became) {
                waiting.teller.tell(became);
            }
            drop(permit);
        });
    }
}

/// One result for each, in order.
async fn ask(
    node: &Node,
    to: &Peer,
    once: Once,
    proposals: Vec<Bytes>,
) -> Vec<Result<Sent, SendFailure>> {
    let count = proposals.len();
    let len: usize = proposals.iter().map(Bytes::len).sum();
    let timeout = FORWARD_TIMEOUT * (1 + len / FORWARD_BYTES_A_TIMEOUT) as u32;
    let message = encode_large(&(once, &proposals), len).into();
    let mut answer = node.call(to, METHOD_PROPOSE_ONCE, message, timeout).await;
    if is_unknown_method(&answer) {
        let message = encode_large(&proposals, len).into();
        answer = node.call(to, METHOD_PROPOSE_ALL, message, timeout).await;
    }
    match answer {
        Ok(answer) => match decode::<Vec<Became>>(&answer) {
            Ok(became) if became.len() == count => became.into_iter().map(Into::into).collect(),
            Ok(_) | Err(_) => (0..count).map(|_| Err(SendFailure::Lost)).collect(),
        },
        Err(_) if is_unknown_method(&answer) => {
            let each = proposals
                .into_iter()
                .map(|proposal| ask_alone(node, to, proposal));
            futures::future::join_all(each).await
        }
        Err(error) => (0..count).map(|_| Err(failure(error.clone()))).collect(),
    }
}

fn is_unknown_method(answer: &Result<Bytes, NetworkError>) -> bool {
    let unknown = RefusalCode::UnknownMethod;
    matches!(answer, Err(NetworkError::Refused { code, .. }) if *code == unknown)
}

/// As a server of an earlier release is asked, which answers once it has committed.
async fn ask_alone(node: &Node, to: &Peer, proposal: Bytes) -> Result<Sent, SendFailure> {
    let answer = node.call(to, METHOD_PROPOSE, proposal, ALONE_TIMEOUT).await;
    answer.map(|_| Sent::Committed).map_err(failure)
}

fn failure(error: NetworkError) -> SendFailure {
    match error {
        NetworkError::Refused {
            code: RefusalCode::Busy,
            ..
        } => SendFailure::Busy,
        NetworkError::Refused {
            code: RefusalCode::NoRoom,
            message,
            ..
        } => SendFailure::NoRoom(message),
        NetworkError::Refused {
            code: RefusalCode::Unavailable,
            ..
        } => SendFailure::NoLeader,
        NetworkError::Refused { .. }
        | NetworkError::Unreachable { .. }
        | NetworkError::TimedOut { .. } => SendFailure::Lost,
    }
}

/// The leader's side of these methods. It decodes and bounds a proposal before it appends it: what is in the log can be applied.
impl Core {
    pub(crate) async fn forwarded(&self, method: &str, body: Bytes) -> Result<Bytes, Refusal> {
        if method == METHOD_PROPOSE {
            let proposal = read(&body)?;
            let submitted = self.queue().submit(&proposal, body).await;
            return submitted.map(|()| Bytes::new()).map_err(refusal);
        }
        let (once, proposals): (Option<Once>, Vec<Bytes>) = if method == METHOD_PROPOSE_ONCE {
            let (once, proposals) = decode(&body).map_err(|error| invalid(error.to_string()))?;
            (Some(once), proposals)
        } else {
            let proposals = decode(&body).map_err(|error| invalid(error.to_string()))?;
            (None, proposals)
        };
        if proposals.len() > Entry::MOST_PROPOSALS {
            let (count, most) = (proposals.len(), Entry::MOST_PROPOSALS);
            return Err(invalid(format!(
                "{count} proposals at once, the most is {most}"
            )));
        }
        let led = self.node().led();
        let leads = led.filter(|(_, leader)| leader.id == self.node().id());
        let Some((term, _)) = leads else {
            return Err(refusal(SendError::NotLeader));
        };
        if once.is_some_and(|once| once.term != term) {
            return Err(refusal(SendError::NotLeader));
        }
        let proposals: Vec<(Proposal, Bytes)> = proposals
            .into_iter()
            .map(|encoded| Ok((read(&encoded)?, encoded)))
            .collect::<Result<_, Refusal>>()?;
        if once.is_some_and(|once| !self.forward().is_first(once)) {
            // Whoever sent it has its answer, or will ask again.
            return Err(refusal(SendError::Unknown));
        }
        let became: Vec<Became> = proposals
            .into_iter()
            .map(|(proposal, encoded)| self.queue().push(&proposal, encoded, None).into())
            .collect();
        Ok(encode(&became).into())
    }
}

fn read(encoded: &Bytes) -> Result<Proposal, Refusal> {
    if encoded.len() > Proposal::MOST_BYTES {
        let (len, most) = (encoded.len(), Proposal::MOST_BYTES);
        return Err(invalid(format!(
            "a proposal of {len} bytes, the most is {most}"
        )));
    }
    decode(encoded).map_err(|error| invalid(error.to_string()))
}

fn refusal(error: SendError) -> Refusal {
    match error {
        SendError::Full => Refusal::new(RefusalCode::Busy, "the queue is full"),
        SendError::NoRoom(why) => Refusal::new(RefusalCode::NoRoom, &*why),
        SendError::NotLeader => Refusal::new(RefusalCode::Unavailable, "this server does not lead"),
        SendError::Unknown => Refusal::new(
            RefusalCode::Failed,
            "leadership was lost while it was under way",
        ),
    }
}

fn invalid(why: String) -> Refusal {
    Refusal::new(RefusalCode::Invalid, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Draft;
    use crate::http::tests::cluster;
    use async_trait::async_trait;
    use eventstore::{Act, Actor, Cause, Intent};
    use seams::{ByteStream, Handler, PeerIdentity};
    use tokio::time::Instant;

    /// A server of an earlier release, as far as this method goes.
    struct Earlier;

    #[async_trait]
    impl Handler for Earlier {
        async fn call(&self, _: &PeerIdentity, method: &str, _: Bytes) -> Result<Bytes, Refusal> {
            Err(Refusal::new(RefusalCode::UnknownMethod, method))
        }

        async fn stream(
            &self,
            _: &PeerIdentity,
            method: &str,
            _: Bytes,
        ) -> Result<ByteStream, Refusal> {
            Err(Refusal::new(RefusalCode::UnknownMethod, method))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_leader_of_an_earlier_release_is_asked_for_each_alone() {
        let servers = cluster(3).await;
        let (leaders, followers): (Vec<_>, Vec<_>) = servers
            .iter()
            .partition(|server| server.core().node().status().leads());
        let (leader, follower) = (leaders[0].core(), followers[0].core());
        for (earlier, unknown) in [
            (0, None),
            (1, Some(METHOD_PROPOSE_ONCE)),
            (2, Some(METHOD_PROPOSE_ALL)),
        ] {
            if let Some(method) = unknown {
                leader.node().handle(method, Arc::new(Earlier));
            }
            let asked = (0..50).map(|number| async move {
                let actor = Actor::Server {
                    name: "test".into(),
                };
                let act = Act::Hold {
                    name: format!("{earlier}-{number}").into(),
                    revision: 1,
                };
                let draft = Draft {
                    intent: Intent::Hold,
                    expectations: Vec::new(),
                    act,
                };
                let mut request = follower.request(actor, Cause::default());
                let deadline = Instant::now() + Duration::from_secs(20);
                follower.propose(&mut request, draft, deadline).await
            });
            for proposed in futures::future::join_all(asked).await {
                let event = proposed.unwrap();
                assert!(follower.view().revision >= event.revision());
            }
        }
    }

    #[test]
    fn a_number_is_read_once_in_its_term() {
        let mut read = Read::default();
        let last = 2 * NUMBERS_MAX;
        // term, sender, number; whether it is read
        for (term, life, number, first) in [
            (1, 7, 1, true),
            (1, 7, 1, false),
            (1, 7, 3, true),
            (1, 7, 2, true),
            (1, 7, 2, false),
            (1, 8, 2, true),
            (1, 7, last, true),
            // Too long ago to tell.
            (1, 7, last - NUMBERS_MAX, false),
            (1, 7, last - NUMBERS_MAX + 1, true),
            (1, 7, last, false),
            (2, 7, 1, true),
            (2, 7, 1, false),
        ] {
            let once = Once { term, life, number };
            assert_eq!(read.is_first(once), first, "{once:?}");
        }
        for life in 0..1_000 {
            for number in 1..10 {
                let once = Once {
                    term: 2,
                    life,
                    number,
                };
                read.is_first(once);
            }
        }
        assert_eq!(read.senders.len(), SENDERS_MAX);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_that_comes_again_is_not_read() {
        let servers = cluster(3).await;
        let (leaders, followers): (Vec<_>, Vec<_>) = servers
            .iter()
            .partition(|server| server.core().node().status().leads());
        let (leader, follower) = (leaders[0].core(), followers[0].core());
        let (term, peer) = leader.node().led().unwrap();
        let proposal = |name: &str| {
            let proposal = Proposal {
                id: eventstore::ProposalId {
                    uuid: leader.draw().uuid(),
                    attempt: 0,
                },
                actor: Actor::Server {
                    name: "test".into(),
                },
                cause: Cause::default(),
                intent: Intent::Hold,
                first_sent: leader.store().position().index,
                salt: leader.draw().salt(),
                expectations: Vec::new(),
                act: Act::Hold {
                    name: name.into(),
                    revision: 1,
                },
            };
            Bytes::from(encode(&proposal))
        };
        let send = async |term, number, proposal: Bytes| {
            let once = Once {
                term,
                life: 7,
                number,
            };
            let message = encode(&(once, vec![proposal])).into();
            let answer = follower
                .node()
                .call(&peer, METHOD_PROPOSE_ONCE, message, FORWARD_TIMEOUT)
                .await;
            answer.map(|answer| decode::<Vec<Became>>(&answer).unwrap())
        };
        assert_eq!(send(term, 1, proposal("a")).await, Ok(vec![Became::Queued]));
        // Whatever it says: another proposal here, so that nothing but the number tells.
        for (term, number) in [(term, 1), (term - 1, 2), (term + 1, 2)] {
            let refused = send(term, number, proposal("b")).await;
            assert!(
                matches!(refused, Err(NetworkError::Refused { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(send(term, 2, proposal("c")).await, Ok(vec![Became::Queued]));
        let holds = |core: &Core| -> Vec<String> {
            let retention = core.view().retention;
            retention
                .holds()
                .map(|(name, _)| name.to_string())
                .collect()
        };
        for _ in 0..1_000 {
            if holds(leader).contains(&"c".to_owned()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(holds(leader), ["a", "c"]);
    }
}
