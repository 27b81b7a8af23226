//! One server as a process: its parts started in order, one HTTPS port for API, agents, peers and the plain log, and a clean stop.

use crate::agents::{AgentIdentity, Hub};
use crate::archive::restore::{BeginError, begin};
use crate::authority::{self, Authority, SERVERS_GROUP};
use crate::calls::{Calls, Connection};
use crate::coalesce::coalesced;
use crate::core::{Core, CoreConfig, StartError, Tamper};
use crate::damage::way_out;
use crate::http::{Api, Caller, Settings};
use crate::leader::{LeaderError, WaitingFor};
use crate::log::Log;
use crate::peers::Peers;
use crate::read_ahead::ReadAhead;
use crate::tls::{self, TlsError};
use crate::{Config, archive, divergence, found, leader, level, log, members, retention, room};
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use raft::WhoseDisk;
use seams::{
    DiskError, FileDirectory, PeerIdentity, PeerService, Seams, Strand, SystemClock, SystemEntropy,
    ThreadRuntime, TonicNetwork,
};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Connections that are served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stop waits for leadership to move and the fold to be flushed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way on one HTTP/2 connection (kube-apiserver: 250).
const STREAMS_MAX: u32 = 1_000;
/// What a client may send before it is read. Fixed, for to measure what a connection could carry takes a ping for nearly every message.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{listen} can't be listened on: {error}")]
    Listen {
        listen: SocketAddr,
        error: std::io::Error,
    },
    #[error("the data directory can't be used: {0}")]
    Directory(#[from] DiskError),
    #[error("the data directory can't be used: {0}")]
    Whose(#[from] std::io::Error),
    #[error("{0}")]
    Place(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error("a thread can't be started: {0}")]
    Thread(#[from] seams::WorkerError),
    #[error("this server can't go on: {0}")]
    Fault(String),
    #[error("{error}. {}", way_out(name))]
    Damaged { name: String, error: Box<RunError> },
}

impl RunError {
    /// It came of a disk that has not kept what was written to it.
    fn is_corrupt(&self) -> bool {
        match self {
            Self::Directory(error) => error.is_corrupt(),
            Self::Whose(error) => DiskError::makes_corrupt(error),
            Self::Start(StartError::Store(error)) => error.is_corrupt(),
            Self::Start(StartError::Raft(error)) => error.is_corrupt(),
            Self::Begin(error) => error.is_corrupt(),
            Self::Start(StartError::Damaged { .. }) | Self::Damaged { .. } => true,
            Self::Listen { .. }
            | Self::Place(_)
            | Self::Tls(_)
            | Self::Thread(_)
            | Self::Fault(_) => false,
        }
    }

    /// With what to do, where it is known.
    fn told(self, name: &str, damaged: bool) -> Self {
        if damaged {
            Self::Damaged {
                name: name.to_owned(),
                error: Box::new(self),
            }
        } else {
            self
        }
    }
}

/// Runs until `stop` resolves, then hands over leadership and flushes.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| RunError::Listen {
            listen: config.listen,
            error,
        })?;
    let identity = tls::Identity::read(&config)?;
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()?));
    let directory = Arc::new(FileDirectory::open(&config.data_dir)?);
    let strand = Strand::new();
    let network = Arc::new(TonicNetwork::new(identity.peer_tls(), strand.clone()));
    let seams = Seams {
        directory,
        network: network.clone(),
        clock: Arc::new(SystemClock),
        runtime: Arc::new(ThreadRuntime),
        entropy: Arc::new(SystemEntropy),
        strand: strand.clone(),
    };
    let parts = Parts::start(&config, seams, identity.ca_text(), None)
        .await
        .map_err(|error| {
            let damaged = error.is_corrupt();
            error.told(&config.name, damaged)
        })?;
    let peers = network.service();
    let listen = Listen {
        api: parts.api.clone(),
        hub: parts.hub.clone(),
        log: Log::new(parts.core.clone()),
        peers,
        strand,
    };
    tracing::info!(name = config.name, listen = %config.listen, "serving");
    let accepting = tokio::spawn(accept(listener, acceptor, listen));
    let result = tokio::select! {
        () = stop => Ok(()),
        fault = parts.core.failed() => {
            let damaged = parts.core.says_damaged().is_some();
            Err(RunError::Fault(fault).told(&config.name, damaged))
        }
        result = parts.leading => Err(RunError::Fault(format!("the leader's loop ended: {result:?}"))),
    };
    match timeout(STOP_TIMEOUT, parts.core.stop()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the stop was not clean; the log has everything"),
        Err(_) => tracing::warn!("the stop took too long; the log has everything"),
    }
    accepting.abort();
    result
}

/// A server's parts, without a listener: what the simulation starts too.
pub struct Parts {
    pub core: Core,
    pub hub: Hub,
    pub api: Api,
    pub leading: JoinHandle<Result<(), LeaderError>>,
    /// What goes on beside, as long as the server runs.
    beside: Vec<AbortHandle>,
}

impl Parts {
    /// `root_ca_pem`: the authority that pods are told to trust; it also names the cluster to raft. `tamper`: None but in the
    /// simulation.
    pub async fn start(
        config: &Config,
        seams: Seams,
        root_ca_pem: String,
        tamper: Option<Tamper>,
    ) -> Result<Self, RunError> {
        let cluster = authority::digest(&root_ca_pem);
        let store = eventstore_disk::StoreConfig {
            most_level: config.most_level,
            most_outcomes: config.most_outcomes,
            ..eventstore_disk::StoreConfig::default()
        };
        begin(&seams.directory, &cluster, &config.peers(), &*seams.entropy)?;
        let known = WhoseDisk::read(&*seams.directory)?;
        let core = CoreConfig {
            name: config.name.clone(),
            raft: config.raft(cluster, known).map_err(RunError::Place)?,
            store,
            queue: config.queue,
            disk_reserve: config.disk_reserve,
            tamper,
        };
        let core = Core::start(core, seams).await?;
        let hub = Hub::start(core.clone(), Duration::from_secs(config.node_grace_s));
        Peers::listen(&core, &hub);
        let waiting = WaitingFor::default();
        let archiving = archive::Shown::default();
        let settings = Settings {
            authority: authority_of(config, &root_ca_pem)?,
            ca_pem: root_ca_pem.clone(),
            archiving: archiving.clone(),
            ..Settings::from(config)
        };
        let api = Api::new(core.clone(), settings, Some(Arc::new(hub.clone())));
        let reconcilers = reconcilers::Config {
            node_grace_ms: config.node_grace_s as i64 * 1000,
            default_not_ready_toleration_s: config.default_not_ready_toleration_s,
            default_unreachable_toleration_s: config.default_not_ready_toleration_s,
            root_ca_pem,
            ..reconcilers::Config::default()
        };
        let mut beside = vec![
            tokio::spawn(found::run(core.clone(), config.clone())).abort_handle(),
            tokio::spawn(members::keep(core.clone())).abort_handle(),
            tokio::spawn(level::run(core.clone())).abort_handle(),
            tokio::spawn(retention::run(core.clone(), config.retention)).abort_handle(),
            tokio::spawn(retention::prune(core.clone())).abort_handle(),
            tokio::spawn(divergence::run(core.clone())).abort_handle(),
            tokio::spawn(room::run(core.clone())).abort_handle(),
            tokio::spawn(pace_watches(core.clone())).abort_handle(),
        ];
        if let Some(url) = config.archive.clone() {
            let keeping = archive::keep(core.clone(), url, archiving);
            beside.push(tokio::spawn(keeping).abort_handle());
        }
        let leading = tokio::spawn(leader::run(core.clone(), reconcilers, waiting));
        Ok(Self {
            core,
            hub,
            api,
            leading,
            beside,
        })
    }

    /// Drops its tasks where they stand, as a crash does. Must be called within a tokio runtime.
    pub fn abort(self) {
        self.leading.abort();
        self.beside.iter().for_each(AbortHandle::abort);
        self.hub.abort();
        // Proposals under way hold the core until raft gives them up.
        self.core.node().kill();
    }
}

async fn pace_watches(core: Core) {
    core.store().pace_watches().await;
}

/// The authority with its key, if this server is to have it.
fn authority_of(config: &Config, ca_pem: &str) -> Result<Option<Arc<Authority>>, TlsError> {
    let Some(path) = &config.ca_key else {
        return Ok(None);
    };
    let unread = |why: String| TlsError::Read {
        path: path.clone(),
        why,
    };
    let key = std::fs::read_to_string(path).map_err(|error| unread(error.to_string()))?;
    let authority = Authority::new(ca_pem, &key).map_err(unread)?;
    Ok(Some(Arc::new(authority)))
}

/// What a connection is served with.
#[derive(Clone)]
struct Listen {
    api: Api,
    hub: Hub,
    log: Log,
    peers: PeerService,
    strand: Strand,
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, listen: Listen) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: those that are open go on.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, listen) = (acceptor.clone(), listen.clone());
        tokio::spawn(async move {
            serve(stream, address, acceptor, listen).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor, listen: Listen) {
    // Small answers must not wait for more.
    let _ = stream.set_nodelay(true);
    let stream = ReadAhead::new(stream);
    let Ok(Ok(stream)) = timeout(TLS_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| tls::client_certificate(chain.first()?))
        .map(Arc::new);
    let caller = Caller::new(address, certificate);
    // What other servers ask is of the log, mostly.
    let strand = peer_name(&caller).map(|_| listen.strand.clone());
    let calls = Calls::default();
    let begun = calls.clone();
    // Boxed by kind: hyper moves a request's future, and the API's is large.
    let service = service_fn(move |request: Request<Incoming>| {
        if is_small(request.uri().path()) {
            begun.small();
        }
        route(&listen, caller.clone(), request)
    });
    let mut server = auto::Builder::new(calls.clone());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30));
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(15));
    let (stream, sending) = coalesced(stream);
    let connection = server
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .into_owned()
        .boxed();
    let connection = Connection::new(connection, calls);
    let serving = async move {
        // A client that goes away is no error.
        if let Err(error) = sending.run(connection).await {
            tracing::debug!(%address, %error, "a connection ended");
        }
    };
    match strand {
        // One that panicked has said so.
        Some(strand) => drop(strand.spawn(serving).await),
        None => serving.await,
    }
}

type Answer = Response<crate::http::Body>;

type Answering = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

/// What waits for the log and hardly computes.
fn is_small(path: &str) -> bool {
    path.starts_with(seams::PEER_PATH_PREFIX) || path.starts_with(log::PATH_PREFIX)
}

/// Agents, peers and the plain log have paths of their own; everything else is the API.
fn route(listen: &Listen, caller: Caller, mut request: Request<Incoming>) -> Answering {
    let path = request.uri().path();
    if path.starts_with(seams::PEER_PATH_PREFIX) {
        if let Some(name) = peer_name(&caller) {
            request.extensions_mut().insert(PeerIdentity { name });
        }
        let answer = listen.peers.clone().oneshot(request);
        return Box::pin(async { answer.await.map(|answer| answer.map(body)) });
    }
    if path.starts_with("/reckon.agent.v1.Agents/") {
        if let Some(certificate) = &caller.certificate {
            request.extensions_mut().insert(AgentIdentity {
                common_name: certificate.common_name.clone(),
                organizations: certificate.organizations.clone(),
            });
        }
        let answer = listen.hub.service().oneshot(request);
        return Box::pin(async { answer.await.map(|answer| answer.map(body)) });
    }
    if path.starts_with(log::PATH_PREFIX) {
        request.extensions_mut().insert(caller);
        let answer = listen.log.service().oneshot(request);
        return Box::pin(async { answer.await.map(|answer| answer.map(body)) });
    }
    let api = listen.api.clone();
    Box::pin(async move { Ok(api.handle(request, caller).await) })
}

/// What tonic answers with, as what the API answers with.
fn body(body: tonic::body::Body) -> crate::http::Body {
    body.map_err(std::io::Error::other).boxed_unsync()
}

fn peer_name(caller: &Caller) -> Option<String> {
    let certificate = caller.certificate.as_ref()?;
    certificate
        .organizations
        .iter()
        .any(|organization| organization == SERVERS_GROUP)
        .then(|| certificate.common_name.clone())
}
