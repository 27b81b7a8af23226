//! Logs ride an agent's session: opened from whichever server a client asks, carried by the server that holds the session.
//!
//! The agent may send as many bytes as it was given credit for; credit is given as the client reads, so a slow reader holds at most
//! `CREDIT_BYTES` here.

use super::Hub;
use super::session::message;
use agent::proto::{
    Logs, StreamClose, StreamCredit, StreamData, StreamOpen, server_message::Kind, stream_open,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use seams::{ByteStream, NetworkError};
use serde::{Deserialize, Serialize};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;

/// The peers' method that asks the holder of a session for a log.
pub(crate) const METHOD_LOGS: &str = "logs";

const CREDIT_BYTES: u64 = 512 * 1024;
/// Messages of a stream that may wait: more than the credit can hold at the agent's chunk size.
const WAITING_MAX: usize = 4_096;
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, StreamError>> + Send>>;

/// `pods/log` for one container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogsRequest {
    pub node: String,
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub tail_lines: Option<i64>,
    pub since_seconds: Option<i64>,
    /// RFC 3339.
    pub since_time: Option<String>,
    pub timestamps: bool,
    pub limit_bytes: Option<i64>,
}

/// Why a log can't be had, with the HTTP status it maps to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct StreamError {
    pub code: u16,
    pub message: String,
}

impl StreamError {
    fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: 503,
            message: message.into(),
        }
    }
}

/// A stream that is open on a session.
pub(super) struct Open {
    sender: mpsc::Sender<Result<Bytes, StreamError>>,
}

impl Hub {
    /// The log, from whichever server holds the node's session.
    pub async fn logs(&self, request: LogsRequest) -> Result<LogStream, StreamError> {
        if let Some(stream) = self.logs_here(&request) {
            return first_checked(stream).await;
        }
        let node = &request.node;
        let view = self.core().view();
        let Some(session) = view.session(node).filter(|session| session.lost.is_none()) else {
            return Err(StreamError::unavailable(format!(
                "the agent of node {node:?} is not connected"
            )));
        };
        let status = self.core().node().status();
        if *session.server == *self.core().name() {
            return Err(StreamError::unavailable(format!(
                "the agent of node {node:?} is just reconnecting; try again"
            )));
        }
        let Some(peer) = status
            .members
            .into_iter()
            .map(|member| member.peer)
            .find(|peer| peer.name == *session.server)
        else {
            return Err(StreamError::unavailable(format!(
                "{} holds the session of node {node:?} and is no member",
                session.server
            )));
        };
        let body = serde_json::to_vec(&request).map_err(|error| StreamError {
            code: 500,
            message: error.to_string(),
        })?;
        let pieces = self
            .core()
            .node()
            .stream(&peer, METHOD_LOGS, body.into(), OPEN_TIMEOUT)
            .await;
        let pieces = pieces.map_err(|error| StreamError::unavailable(error.to_string()))?;
        first_checked(pieces.map(unpack).boxed()).await
    }

    /// For a peer: the log of a session held here.
    pub(crate) async fn logs_for_peer(&self, body: &[u8]) -> Result<ByteStream, String> {
        let request: LogsRequest =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let stream = match self.logs_here(&request) {
            Some(stream) => stream,
            None => {
                let gone = StreamError::unavailable(format!(
                    "the agent of node {:?} is not connected here",
                    request.node
                ));
                futures::stream::once(async { Err(gone) }).boxed()
            }
        };
        Ok(Box::pin(stream.map(|piece| Ok(pack(piece)))))
    }

    fn logs_here(&self, request: &LogsRequest) -> Option<LogStream> {
        let id = self.stream_id();
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let open = StreamOpen {
            id,
            credit_bytes: CREDIT_BYTES,
            kind: Some(stream_open::Kind::Logs(Logs {
                namespace: request.namespace.clone(),
                pod: request.pod.clone(),
                uid: request.uid.clone(),
                container: request.container.clone(),
                follow: request.follow,
                previous: request.previous,
                tail_lines: request.tail_lines,
                since_seconds: request.since_seconds,
                since_time: request.since_time.clone(),
                timestamps: request.timestamps,
                limit_bytes: request.limit_bytes,
            })),
        };
        let mut sessions = self.sessions();
        let held = sessions.get_mut(&request.node)?;
        held.sender.try_send(message(Kind::StreamOpen(open))).ok()?;
        held.streams.insert(id, Open { sender });
        let reading = Reading {
            hub: self.clone(),
            node: request.node.clone(),
            id,
            receiver,
        };
        drop(sessions);
        let stream = futures::stream::unfold(reading, |mut reading| async move {
            let item = reading.receiver.recv().await?;
            if let Ok(data) = &item {
                reading.give_credit(data.len() as u64);
            }
            Some((item, reading))
        });
        Some(stream.boxed())
    }

    /// A piece of a stream came up a session.
    pub(super) fn stream_data(&self, node: &str, data: StreamData) {
        let mut sessions = self.sessions();
        let Some(held) = sessions.get_mut(node) else {
            return;
        };
        let Some(open) = held.streams.get(&data.id) else {
            return;
        };
        let mut ended = data.end;
        if !data.data.is_empty() {
            // More than the credit allows, or a reader that is gone: the stream is over.
            ended |= open.sender.try_send(Ok(data.data.into())).is_err();
        }
        if let Some(error) = data.error {
            let code = u16::try_from(data.error_code)
                .ok()
                .filter(|code| *code >= 400)
                .unwrap_or(500);
            let _ = open.sender.try_send(Err(StreamError {
                code,
                message: error,
            }));
        }
        if ended {
            held.streams.remove(&data.id);
        }
    }
}

/// The client's end: dropping it closes the stream at the agent.
struct Reading {
    hub: Hub,
    node: String,
    id: u64,
    receiver: mpsc::Receiver<Result<Bytes, StreamError>>,
}

impl Reading {
    fn give_credit(&self, bytes: u64) {
        if let Some(held) = self.hub.sessions().get(&self.node) {
            let _ = held
                .sender
                .try_send(message(Kind::StreamCredit(StreamCredit {
                    id: self.id,
                    bytes,
                })));
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(held) = self.hub.sessions().get_mut(&self.node)
            && held.streams.remove(&self.id).is_some()
        {
            let _ = held
                .sender
                .try_send(message(Kind::StreamClose(StreamClose { id: self.id })));
        }
    }
}

/// Waits for the first piece of a log, so that what is wrong with the request becomes its HTTP status. A log that has nothing yet is
/// not waited for long.
async fn first_checked(mut stream: LogStream) -> Result<LogStream, StreamError> {
    const FIRST: Duration = Duration::from_millis(500);
    match tokio::time::timeout(FIRST, stream.next()).await {
        Ok(Some(Err(error))) => Err(error),
        Ok(Some(Ok(first))) => Ok(futures::stream::once(async { Ok(first) })
            .chain(stream)
            .boxed()),
        Ok(None) => Ok(futures::stream::empty().boxed()),
        Err(_) => Ok(stream),
    }
}

/// Between servers a piece is a mark, 0 for data and 1 for why it ended, and the rest.
fn pack(piece: Result<Bytes, StreamError>) -> Bytes {
    let (mark, rest) = match piece {
        Ok(data) => (0, data.to_vec()),
        Err(error) => (1, serde_json::to_vec(&error).unwrap_or_default()),
    };
    [&[mark][..], &rest].concat().into()
}

fn unpack(piece: Result<Bytes, NetworkError>) -> Result<Bytes, StreamError> {
    let piece = piece.map_err(|error| StreamError::unavailable(error.to_string()))?;
    match piece.split_first() {
        Some((0, data)) => Ok(piece.slice_ref(data)),
        Some((1, error)) => Err(serde_json::from_slice(error)
            .unwrap_or_else(|_| StreamError::unavailable("the stream broke"))),
        Some(_) | None => Err(StreamError::unavailable("a peer of another version")),
    }
}
