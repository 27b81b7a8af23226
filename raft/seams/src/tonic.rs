//! The real network: gRPC framing over mutual TLS, with bytes for messages.
//!
//! A server has one HTTPS listener for everything, so the receiving side here is a service to be mounted under
//! [`PEER_PATH_PREFIX`], not a listener. Whoever mounts it has verified the client certificate against the cluster's
//! authority and its organisation `system:reckon:servers`, and puts a [`PeerIdentity`] into the request's extensions; a
//! request without one is refused. The sending side verifies that the other end is the very server it meant, by name.
//!
//! Calls share one stream (`calls`); the largest go by themselves. Large messages travel on a connection of their own, so that no heartbeat
//! waits behind a snapshot.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use http::uri::PathAndQuery;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};

use crate::Strand;
use crate::network::{
    ByteStream, Handler, MESSAGE_BYTES_MAX, Network, NetworkError, Peer, PeerIdentity, Refusal,
    RefusalCode,
};

mod calls;

use calls::{Answering, Frame, Lane};

/// Every path of [`PeerService`] begins like this.
pub const PEER_PATH_PREFIX: &str = "/reckon.peer.v1.";
const CALL_PATH: &str = "/reckon.peer.v1.Peer/";
const CALLS_PATH: &str = "/reckon.peer.v1.PeerCalls/";
const STREAM_PATH: &str = "/reckon.peer.v1.PeerStream/";

/// A refusal by the peer's handler carries its code here; a failure of the transport has no such header.
const REFUSAL_HEADER: &str = "reckon-refusal";

/// Bodies above this use the second connection.
const BULK_BYTES: usize = 64 << 10;
/// Bodies above this go by themselves: a stream's window is small beside them.
const STREAMED_BYTES_MAX: usize = 1 << 20;
/// Connections kept, two a peer. Members are few; the bound is for addresses that change.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection with calls open is probed this often, and given up when the answer takes longer than this.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2's default of 64 KiB would cost a round trip for every so many bytes.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// What a server shows and trusts, as PEM.
#[derive(Clone)]
pub struct PeerTls {
    /// The cluster's authority.
    pub ca: String,
    /// This server's certificate, good for client and server use.
    pub certificate: String,
    pub key: String,
}

/// Calls other servers, and takes their calls through [`TonicNetwork::service`].
pub struct TonicNetwork {
    tls: ClientTlsConfig,
    connections: Mutex<Vec<Arc<Connection>>>,
    handlers: Handlers,
    strand: Strand,
}

/// Who answers calls, once there is someone.
type Handlers = Arc<RwLock<Option<Arc<dyn Handler>>>>;

/// To one peer, for small messages or for large ones.
struct Connection {
    name: String,
    address: String,
    bulk: bool,
    channel: Channel,
    lane: Lane,
}

impl TonicNetwork {
    /// Connections for small messages are tasks of this strand.
    pub fn new(tls: PeerTls, strand: Strand) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(tls.ca))
            .identity(Identity::from_pem(tls.certificate, tls.key));
        Self {
            tls,
            connections: Mutex::default(),
            handlers: Arc::default(),
            strand,
        }
    }

    /// What the listener mounts. It answers as soon as [`Network::serve`] has been called.
    pub fn service(&self) -> PeerService {
        PeerService {
            handlers: self.handlers.clone(),
        }
    }

    /// The connection to a peer, which is made when first used, and again whenever it broke.
    fn connection(&self, to: &Peer, bulk: bool) -> Result<Arc<Connection>, NetworkError> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = connections.iter().find(|known| {
            known.bulk == bulk && known.address == to.address && known.name == to.name
        });
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let invalid = |error: tonic::transport::Error| NetworkError::Unreachable {
            peer: to.to_string(),
            reason: cause(&error),
        };
        let endpoint = Endpoint::from_shared(format!("https://{}", to.address))
            .map_err(invalid)?
            .tls_config(self.tls.clone().domain_name(&to.name))
            .map_err(invalid)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = match bulk {
            true => endpoint.connect_lazy(),
            false => endpoint.executor(self.strand.clone()).connect_lazy(),
        };
        if connections.len() >= CONNECTIONS_MAX {
            connections.clear();
        }
        let connection = Arc::new(Connection {
            name: to.name.clone(),
            address: to.address.clone(),
            bulk,
            channel,
            lane: Lane::new(self.strand.clone()),
        });
        connections.push(connection.clone());
        Ok(connection)
    }
}

impl Connection {
    async fn client(&self, to: &Peer) -> Result<tonic::client::Grpc<Channel>, NetworkError> {
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        client
            .ready()
            .await
            .map_err(|error| NetworkError::Unreachable {
                peer: to.to_string(),
                reason: cause(&error),
            })?;
        Ok(client)
    }
}

#[async_trait]
impl Network for TonicNetwork {
    async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        fits(to, &body)?;
        let answer = async {
            let connection = self.connection(to, body.len() > BULK_BYTES)?;
            if body.len() <= STREAMED_BYTES_MAX
                && let Some(answer) = connection
                    .lane
                    .call(to, method, &body, connection.client(to))
                    .await?
            {
                return Ok(answer);
            }
            let mut client = connection.client(to).await?;
            let answer = client
                .unary(
                    Request::new(body),
                    path(CALL_PATH, method),
                    Wired::<Bytes>::new(),
                )
                .await;
            answer
                .map(Response::into_inner)
                .map_err(|status| failure(to, &status))
        };
        within(to, deadline, answer).await
    }

    async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError> {
        fits(to, &body)?;
        let opened = async {
            let mut client = self.connection(to, true)?.client(to).await?;
            let answer = client
                .server_streaming(
                    Request::new(body),
                    path(STREAM_PATH, method),
                    Wired::<Bytes>::new(),
                )
                .await;
            let chunks = answer.map_err(|status| failure(to, &status))?.into_inner();
            let to = to.clone();
            let chunks = chunks.map(move |chunk| chunk.map_err(|status| failure(&to, &status)));
            Ok(Box::pin(chunks) as ByteStream)
        };
        within(to, deadline, opened).await
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        *self
            .handlers
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(handler);
    }
}

/// tonic would break the connection's stream in place of naming the reason.
fn fits(to: &Peer, body: &Bytes) -> Result<(), NetworkError> {
    if body.len() <= MESSAGE_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "a message of {} bytes is above {MESSAGE_BYTES_MAX}",
        body.len()
    );
    Err(NetworkError::Refused {
        peer: to.to_string(),
        code: RefusalCode::Invalid,
        message,
    })
}

async fn within<T>(
    to: &Peer,
    deadline: Duration,
    answer: impl Future<Output = Result<T, NetworkError>>,
) -> Result<T, NetworkError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(NetworkError::TimedOut {
            peer: to.to_string(),
            after: deadline,
        }),
    }
}

fn path(prefix: &str, method: &'static str) -> PathAndQuery {
    PathAndQuery::try_from(format!("{prefix}{method}"))
        .expect("methods are constants of ours, made of letters, dots and dashes")
}

fn failure(to: &Peer, status: &Status) -> NetworkError {
    let peer = to.to_string();
    let refusal = status
        .metadata()
        .get(REFUSAL_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(code_of);
    match (refusal, status.code()) {
        (Some(code), _) => NetworkError::Refused {
            peer,
            code,
            message: status.message().to_owned(),
        },
        // The listener's answers and this crate's own limits: a peer was there, and won't have this message.
        (None, Code::Unimplemented) => refused(peer, RefusalCode::UnknownMethod, status),
        (None, Code::Unauthenticated | Code::PermissionDenied) => {
            refused(peer, RefusalCode::Forbidden, status)
        }
        (None, Code::OutOfRange | Code::ResourceExhausted) => {
            refused(peer, RefusalCode::Invalid, status)
        }
        (None, _) => NetworkError::Unreachable {
            peer,
            reason: cause(status),
        },
    }
}

fn refused(peer: String, code: RefusalCode, status: &Status) -> NetworkError {
    NetworkError::Refused {
        peer,
        code,
        message: status.message().to_owned(),
    }
}

/// The innermost reason: "Connection refused" says more than "transport error".
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The receiving side, a tower service to be mounted under [`PEER_PATH_PREFIX`].
#[derive(Clone)]
pub struct PeerService {
    handlers: Handlers,
}

fn handler(handlers: &Handlers) -> Result<Arc<dyn Handler>, Refusal> {
    let handler = handlers
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let starting = || Refusal::new(RefusalCode::Unavailable, "this server is starting");
    handler.ok_or_else(starting)
}

impl PeerService {
    async fn answer<B>(self, request: http::Request<B>) -> http::Response<tonic::body::Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let Some(from) = request.extensions().get::<PeerIdentity>().cloned() else {
            return refuse(Refusal::new(
                RefusalCode::Forbidden,
                "not a server of this cluster",
            ))
            .into_http();
        };
        let handler = match handler(&self.handlers) {
            Ok(handler) => handler,
            Err(refusal) => return refuse(refusal).into_http(),
        };
        let path = request.uri().path().to_owned();
        if path.starts_with(CALLS_PATH) {
            let handlers = self.handlers.clone();
            return tonic::server::Grpc::new(Wired::<Frame>::new())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
                .streaming(Answering { handlers, from }, request)
                .await;
        }
        let mut server = tonic::server::Grpc::new(Wired::<Bytes>::new())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        if let Some(method) = path.strip_prefix(CALL_PATH) {
            server
                .unary(
                    Incoming {
                        handler,
                        from,
                        method: method.to_owned(),
                    },
                    request,
                )
                .await
        } else if let Some(method) = path.strip_prefix(STREAM_PATH) {
            server
                .server_streaming(
                    IncomingStream(Incoming {
                        handler,
                        from,
                        method: method.to_owned(),
                    }),
                    request,
                )
                .await
        } else {
            refuse(Refusal::new(RefusalCode::UnknownMethod, path)).into_http()
        }
    }
}

impl<B> tower::Service<http::Request<B>> for PeerService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

struct Incoming {
    handler: Arc<dyn Handler>,
    from: PeerIdentity,
    method: String,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl tonic::server::UnaryService<Bytes> for Incoming {
    type Response = Bytes;
    type Future = Answer<Bytes>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (handler, from, method) =
            (self.handler.clone(), self.from.clone(), self.method.clone());
        Box::pin(async move {
            handler
                .call(&from, &method, request.into_inner())
                .await
                .map(Response::new)
                .map_err(refuse)
        })
    }
}

struct IncomingStream(Incoming);

type Chunks = Pin<Box<dyn futures::Stream<Item = Result<Bytes, Status>> + Send>>;

impl tonic::server::ServerStreamingService<Bytes> for IncomingStream {
    type Response = Bytes;
    type ResponseStream = Chunks;
    type Future = Answer<Chunks>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (handler, from, method) = (
            self.0.handler.clone(),
            self.0.from.clone(),
            self.0.method.clone(),
        );
        Box::pin(async move {
            let chunks = handler
                .stream(&from, &method, request.into_inner())
                .await
                .map_err(refuse)?;
            let chunks = chunks.map(|chunk| {
                chunk.map_err(|error| refuse(Refusal::new(RefusalCode::Failed, error.to_string())))
            });
            Ok(Response::new(Box::pin(chunks) as Chunks))
        })
    }
}

fn refuse(refusal: Refusal) -> Status {
    let code = match refusal.code {
        RefusalCode::Unavailable => Code::Unavailable,
        RefusalCode::Busy | RefusalCode::NoRoom => Code::ResourceExhausted,
        RefusalCode::Forbidden => Code::PermissionDenied,
        RefusalCode::UnknownMethod => Code::Unimplemented,
        RefusalCode::Invalid => Code::InvalidArgument,
        RefusalCode::Failed => Code::Internal,
    };
    let word = MetadataValue::from_static(word_of(refusal.code));
    let mut status = Status::new(code, refusal.message);
    status.metadata_mut().insert(REFUSAL_HEADER, word);
    status
}

fn word_of(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Unavailable => "unavailable",
        RefusalCode::Busy => "busy",
        RefusalCode::NoRoom => "no-room",
        RefusalCode::Forbidden => "forbidden",
        RefusalCode::UnknownMethod => "unknown-method",
        RefusalCode::Invalid => "invalid",
        RefusalCode::Failed => "failed",
    }
}

fn code_of(word: &str) -> Option<RefusalCode> {
    Some(match word {
        "unavailable" => RefusalCode::Unavailable,
        "busy" => RefusalCode::Busy,
        "no-room" => RefusalCode::NoRoom,
        "forbidden" => RefusalCode::Forbidden,
        "unknown-method" => RefusalCode::UnknownMethod,
        "invalid" => RefusalCode::Invalid,
        "failed" => RefusalCode::Failed,
        _ => return None,
    })
}

/// What goes over the wire as it is, without protobuf.
trait Wire: Sized + Send + 'static {
    fn put(self, into: &mut EncodeBuf<'_>);
    fn take(from: &mut DecodeBuf<'_>) -> Result<Self, Status>;
}

impl Wire for Bytes {
    fn put(self, into: &mut EncodeBuf<'_>) {
        into.reserve(self.len());
        into.put(self);
    }

    fn take(from: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        Ok(from.copy_to_bytes(from.remaining()))
    }
}

/// Messages of one kind.
struct Wired<T>(PhantomData<T>);

impl<T> Wired<T> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Wire> Codec for Wired<T> {
    type Encode = T;
    type Decode = T;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::new()
    }

    fn decoder(&mut self) -> Self {
        Self::new()
    }
}

impl<T: Wire> Encoder for Wired<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.put(into);
        Ok(())
    }
}

impl<T: Wire> Decoder for Wired<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::take(from).map(Some)
    }
}
