//! Messages and streams between the servers of a cluster.
//!
//! A call is bytes there and bytes back, within a deadline; what they mean is for the caller and the handler. There is
//! no order between calls, none is repeated by itself, and a call that failed may still have been carried out.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

/// The largest message, either way. Above the largest log entry (9 MiB) with room for its envelope: a message that
/// can't pass would stop replication for good.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Another server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    pub id: u64,
    /// As in its certificate: `server-1`.
    pub name: String,
    /// `host:port`.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

/// Who calls, as proven by the client certificate (its CN; the listener has checked the organisation).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub name: String,
}

/// Chunks as they arrive. An error is the last item.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, NetworkError>> + Send>>;

/// This server's way to the others.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Asks a peer and waits for its answer until the deadline.
    async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError>;

    /// Asks a peer for a stream. The deadline is for its opening; a stream that goes silent because the peer is gone
    /// ends with an error, in the time that keep-alive takes.
    async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError>;

    /// Gives incoming calls to this handler, in place of the one before. Until there is one, they are refused.
    fn serve(&self, handler: Arc<dyn Handler>);
}

/// What answers the calls of other servers.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    async fn call(&self, from: &PeerIdentity, method: &str, body: Bytes) -> Result<Bytes, Refusal>;

    async fn stream(
        &self,
        from: &PeerIdentity,
        method: &str,
        body: Bytes,
    ) -> Result<ByteStream, Refusal>;
}

/// What a peer says instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    pub code: RefusalCode,
    pub message: String,
}

impl Refusal {
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The class of a refusal, for the caller to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// Not now: starting, stopping, or not the one to ask. Try again, perhaps elsewhere.
    Unavailable,
    /// Too much at once. Try again, later.
    Busy,
    /// Not enough room on the disks.
    NoRoom,
    /// The caller is not a server of this cluster.
    Forbidden,
    /// The peer does not know this method: it runs another version.
    UnknownMethod,
    /// The message can't be read.
    Invalid,
    /// The peer tried and failed.
    Failed,
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::NoRoom => "no room",
            Self::Forbidden => "forbidden",
            Self::UnknownMethod => "unknown method",
            Self::Invalid => "invalid message",
            Self::Failed => "failed",
        })
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No connection, or it broke. The call may have been carried out if it broke under way.
    #[error("{peer} can't be reached: {reason}")]
    Unreachable { peer: String, reason: String },
    /// The deadline passed. The call may have been carried out.
    #[error("{peer} did not answer within {} ms", .after.as_millis())]
    TimedOut { peer: String, after: Duration },
    #[error("{peer} refused: {code}: {message}")]
    Refused {
        peer: String,
        code: RefusalCode,
        message: String,
    },
}
