//! Calls that share one stream.
//!
//! To HTTP/2 each call is a stream of its own: opened, announced by headers, ended by trailers, and handed from task to task at the sending
//! end. Servers that lead and follow ask each other all the time, and small things, so to each peer one stream stays open, on which
//! questions go one way and answers the other, each with the number of its question. An answer comes when it is ready, in no order; a
//! caller that goes away says so. A stream that breaks fails all that wait for it, and the next call opens another.
//!
//! ```text
//! frame    = number u64, head's length u8, head, body
//! question: the head is the method; no head: nobody waits for the answer any more
//! answer:   no head: the body is the answer; else the head is the refusal's code, and the body its message
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::codec::{DecodeBuf, EncodeBuf};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::{CALLS_PATH, Handlers, Wire, Wired, code_of, failure, handler, path, word_of};
use crate::Strand;
use crate::network::{NetworkError, Peer, PeerIdentity, Refusal, RefusalCode};

/// Calls of one stream that may wait to be sent, and for their answers. Those beyond either go by themselves.
const CALLS_MAX: usize = 1_024;
/// A peer of an earlier release does not know of this; it is asked again after so long, for it may have been exchanged.
const EARLIER_RELEASE: Duration = Duration::from_secs(10);

/// The way of calls to one peer.
pub(super) struct Lane {
    strand: Strand,
    state: Mutex<State>,
    /// One opens it for all.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    unknown_until: Option<Instant>,
}

/// A stream that is open.
struct Open {
    /// It holds no more than `CALLS_MAX` questions, and for each of them perhaps that nobody waits any more.
    questions: mpsc::UnboundedSender<Frame>,
    queued: Arc<AtomicUsize>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    answers: BTreeMap<u64, oneshot::Sender<Result<Frame, NetworkError>>>,
    asked: u64,
    ended: bool,
}

impl Lane {
    pub(super) fn new(strand: Strand) -> Self {
        Self {
            strand,
            state: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// The answer to a call; None: this one has to go by itself.
    pub(super) async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: &Bytes,
        connect: impl Future<Output = Result<tonic::client::Grpc<Channel>, NetworkError>>,
    ) -> Result<Option<Bytes>, NetworkError> {
        let open = match self.usable() {
            Usable::Open(open) => open,
            Usable::Never => return Ok(None),
            Usable::Later => match self.open(to, connect).await? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        let Some(asked) = open.ask(method, body.clone()) else {
            return Ok(None);
        };
        let answer = asked.answer(to).await?;
        if answer.head.is_empty() {
            return Ok(Some(answer.body));
        }
        let code = std::str::from_utf8(&answer.head).ok().and_then(code_of);
        Err(NetworkError::Refused {
            peer: to.to_string(),
            code: code.unwrap_or(RefusalCode::Failed),
            message: String::from_utf8_lossy(&answer.body).into_owned(),
        })
    }

    fn usable(&self) -> Usable {
        let mut state = lock(&self.state);
        if let Some(open) = &state.open {
            if !lock(&open.waiting).ended {
                return Usable::Open(open.clone());
            }
            state.open = None;
        }
        match state.unknown_until {
            Some(until) if Instant::now() < until => Usable::Never,
            _ => Usable::Later,
        }
    }

    async fn open(
        &self,
        to: &Peer,
        connect: impl Future<Output = Result<tonic::client::Grpc<Channel>, NetworkError>>,
    ) -> Result<Option<Arc<Open>>, NetworkError> {
        let _one = self.opening.lock().await;
        match self.usable() {
            Usable::Open(open) => return Ok(Some(open)),
            Usable::Never => return Ok(None),
            Usable::Later => {}
        }
        let mut client = connect.await?;
        let (questions, frames) = mpsc::unbounded_channel();
        let queued = Arc::<AtomicUsize>::default();
        let asked = Asked {
            frames,
            queued: queued.clone(),
        };
        let opened = client
            .streaming(
                Request::new(asked),
                path(CALLS_PATH, "all"),
                Wired::<Frame>::new(),
            )
            .await;
        let answers = match opened.map_err(|status| failure(to, &status)) {
            Ok(answers) => answers.into_inner(),
            Err(NetworkError::Refused {
                code: RefusalCode::UnknownMethod,
                ..
            }) => {
                lock(&self.state).unknown_until = Some(Instant::now() + EARLIER_RELEASE);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let waiting = Arc::<Mutex<Waiting>>::default();
        self.strand
            .spawn(hand_out(answers, waiting.clone(), to.clone()));
        let open = Arc::new(Open {
            questions,
            queued,
            waiting,
        });
        lock(&self.state).open = Some(open.clone());
        Ok(Some(open))
    }
}

enum Usable {
    Open(Arc<Open>),
    /// It can be opened.
    Later,
    /// The peer does not know of it.
    Never,
}

/// Gives the answers to those who wait for them. It holds nothing of the way there: that ends with its lane.
async fn hand_out(mut answers: Streaming<Frame>, waiting: Arc<Mutex<Waiting>>, from: Peer) {
    let reason = loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let caller = lock(&waiting).answers.remove(&answer.number);
                // One that went away meanwhile needs no answer.
                let _ = caller.map(|caller| caller.send(Ok(answer)));
            }
            Ok(None) => {
                break NetworkError::Unreachable {
                    peer: from.to_string(),
                    reason: "it ended the connection".to_owned(),
                };
            }
            Err(status) => break failure(&from, &status),
        }
    };
    let answers = {
        let mut waiting = lock(&waiting);
        waiting.ended = true;
        std::mem::take(&mut waiting.answers)
    };
    for caller in answers.into_values() {
        let _ = caller.send(Err(reason.clone()));
    }
}

impl Open {
    fn ask(self: Arc<Self>, method: &'static str, body: Bytes) -> Option<Question> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        let queued = self.queued.load(Ordering::Relaxed);
        if waiting.answers.len().max(queued) >= CALLS_MAX {
            return None;
        }
        waiting.asked += 1;
        let number = waiting.asked;
        // After its end nobody answers; whoever waits is told when this is dropped.
        if !waiting.ended {
            waiting.answers.insert(number, sender);
        }
        drop(waiting);
        self.queued.fetch_add(1, Ordering::Relaxed);
        let head = Bytes::from_static(method.as_bytes());
        let frame = Frame { number, head, body };
        // Where nobody takes it, the stream has ended, and the answers with it.
        let _ = self.questions.send(frame);
        Some(Question {
            open: self,
            number,
            answer,
        })
    }
}

/// A call that was sent. Dropped before its answer came, it tells the peer.
struct Question {
    open: Arc<Open>,
    number: u64,
    answer: oneshot::Receiver<Result<Frame, NetworkError>>,
}

impl Question {
    async fn answer(mut self, to: &Peer) -> Result<Frame, NetworkError> {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            Err(_) => Err(NetworkError::Unreachable {
                peer: to.to_string(),
                reason: "the connection has ended".to_owned(),
            }),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if lock(&self.open.waiting)
            .answers
            .remove(&self.number)
            .is_some()
        {
            let _ = self.open.questions.send(Frame {
                number: self.number,
                head: Bytes::new(),
                body: Bytes::new(),
            });
        }
    }
}

/// What is asked, as the request's body.
struct Asked {
    frames: mpsc::UnboundedReceiver<Frame>,
    queued: Arc<AtomicUsize>,
}

impl Stream for Asked {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let next = self.frames.poll_recv(context);
        if let Poll::Ready(Some(frame)) = &next
            && !frame.head.is_empty()
        {
            self.queued.fetch_sub(1, Ordering::Relaxed);
        }
        next
    }
}

/// Answers the calls of a stream, as the response's body: they run where it is polled.
pub(super) struct Answers {
    handlers: Handlers,
    from: PeerIdentity,
    questions: Streaming<Frame>,
    running: FuturesUnordered<Abortable<Running>>,
    by_number: BTreeMap<u64, AbortHandle>,
}

type Running = Pin<Box<dyn Future<Output = Frame> + Send>>;

impl Answers {
    fn begin(&mut self, question: Frame) {
        let Frame { number, head, body } = question;
        if head.is_empty() {
            if let Some(running) = self.by_number.remove(&number) {
                running.abort();
            }
            return;
        }
        let (handlers, from) = (self.handlers.clone(), self.from.clone());
        let answer = async move {
            let method = std::str::from_utf8(&head).unwrap_or_default();
            let answer = match handler(&handlers) {
                Ok(handler) => handler.call(&from, method, body).await,
                Err(refusal) => Err(refusal),
            };
            match answer {
                Ok(body) => Frame {
                    number,
                    head: Bytes::new(),
                    body,
                },
                Err(Refusal { code, message }) => Frame {
                    number,
                    head: Bytes::from_static(word_of(code).as_bytes()),
                    body: message.into(),
                },
            }
        };
        let (answer, abort) = futures::future::abortable(Box::pin(answer) as Running);
        self.by_number.insert(number, abort);
        self.running.push(answer);
    }
}

impl Stream for Answers {
    type Item = Result<Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            while self.running.len() < CALLS_MAX {
                match self.questions.poll_next_unpin(context) {
                    Poll::Ready(Some(Ok(question))) => self.begin(question),
                    // Nobody is there to be answered.
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                    Poll::Pending => break,
                }
            }
            match self.running.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(answer))) => {
                    self.by_number.remove(&answer.number);
                    return Poll::Ready(Some(Ok(answer)));
                }
                Poll::Ready(Some(Err(futures::future::Aborted))) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// The receiving side of a stream.
pub(super) struct Answering {
    pub(super) handlers: Handlers,
    pub(super) from: PeerIdentity,
}

impl tonic::server::StreamingService<Frame> for Answering {
    type Response = Frame;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Frame>>) -> Self::Future {
        std::future::ready(Ok(Response::new(Answers {
            handlers: self.handlers.clone(),
            from: self.from.clone(),
            questions: request.into_inner(),
            running: FuturesUnordered::new(),
            by_number: BTreeMap::new(),
        })))
    }
}

/// A question or an answer.
#[derive(Debug)]
pub(super) struct Frame {
    number: u64,
    head: Bytes,
    body: Bytes,
}

impl Wire for Frame {
    fn put(self, into: &mut EncodeBuf<'_>) {
        into.reserve(9 + self.head.len() + self.body.len());
        into.put_u64_le(self.number);
        into.put_u8(self.head.len() as u8);
        into.put(self.head);
        into.put(self.body);
    }

    fn take(from: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        let short = || Status::invalid_argument("a frame is cut short");
        if from.remaining() < 9 {
            return Err(short());
        }
        let (number, head) = (from.get_u64_le(), usize::from(from.get_u8()));
        if from.remaining() < head {
            return Err(short());
        }
        let head = from.copy_to_bytes(head);
        let body = from.copy_to_bytes(from.remaining());
        Ok(Self { number, head, body })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
