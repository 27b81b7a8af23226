//! The real network between two ends: mutual TLS over loopback, through one listener that mounts the peer service.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use seams::{
    ByteStream, Handler, Network, NetworkError, PEER_PATH_PREFIX, Peer, PeerIdentity, PeerTls,
    Refusal, RefusalCode, Strand, TonicNetwork,
};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(10);

/// Signs one server's certificate after another.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        PeerTls {
            ca: self.0.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Counts calls that run.
struct Held;

impl Held {
    fn new() -> Self {
        HELD.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers as its method says.
struct Answers;

#[async_trait]
impl Handler for Answers {
    async fn call(&self, from: &PeerIdentity, method: &str, body: Bytes) -> Result<Bytes, Refusal> {
        match method {
            "echo" => Ok(body),
            "who" => Ok(Bytes::from(from.name.clone())),
            "busy" => Err(Refusal::new(RefusalCode::Busy, "too much")),
            "unavailable" => Err(Refusal::new(RefusalCode::Unavailable, "not now")),
            // Until it is given up.
            "held" => {
                let held = Held::new();
                tokio::time::sleep(PATIENCE).await;
                drop(held);
                Ok(body)
            }
            "held-now" => Ok(HELD.load(Ordering::Relaxed).to_string().into()),
            "slow" => {
                tokio::time::sleep(PATIENCE).await;
                Ok(body)
            }
            _ => Err(Refusal::new(RefusalCode::UnknownMethod, method)),
        }
    }

    async fn stream(
        &self,
        _: &PeerIdentity,
        method: &str,
        body: Bytes,
    ) -> Result<ByteStream, Refusal> {
        match method {
            "thrice" => Ok(Box::pin(futures::stream::iter(vec![Ok(body); 3]))),
            _ => Err(Refusal::new(RefusalCode::UnknownMethod, method)),
        }
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn acceptor(tls: &PeerTls) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&tls.ca));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.certificate), key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A listener as the server's: TLS with client certificates, and the peer service behind it.
async fn listen(
    network: &TonicNetwork,
    tls: &PeerTls,
    at: SocketAddr,
    known: bool,
) -> (SocketAddr, JoinHandle<()>) {
    listen_as(network, tls, at, known, false).await
}

/// The same; `earlier`: as a server of an earlier release, which does not know of calls that share a stream.
async fn listen_as(
    network: &TonicNetwork,
    tls: &PeerTls,
    at: SocketAddr,
    known: bool,
    earlier: bool,
) -> (SocketAddr, JoinHandle<()>) {
    let acceptor = acceptor(tls);
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = network.service();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, service) = (acceptor.clone(), service.clone());
            connections.spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else {
                    return;
                };
                let answer = hyper::service::service_fn(
                    move |mut request: hyper::Request<hyper::body::Incoming>| {
                        assert!(request.uri().path().starts_with(PEER_PATH_PREFIX));
                        let path = request.uri().path();
                        if earlier && path.starts_with("/reckon.peer.v1.PeerCalls/") {
                            *request.uri_mut() = "/reckon.peer.v1.Other/all".parse().unwrap();
                        }
                        if known {
                            request.extensions_mut().insert(PeerIdentity {
                                name: "server-1".to_owned(),
                            });
                        }
                        tower::ServiceExt::oneshot(service.clone(), request)
                    },
                );
                // A connection that breaks is what some rows want.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), answer)
                    .await;
            });
        }
    });
    (address, task)
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn peer(name: &str, address: SocketAddr) -> Peer {
    Peer {
        id: 2,
        name: name.to_owned(),
        address: address.to_string(),
    }
}

fn refusal(result: Result<Bytes, NetworkError>) -> RefusalCode {
    match result {
        Err(NetworkError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn network_with(tls: PeerTls) -> TonicNetwork {
    TonicNetwork::new(tls, Strand::new())
}

#[tokio::test]
async fn calls_and_streams_arrive_and_failures_say_what_they_are() {
    let authority = Authority::new();
    let one = network_with(authority.sign("server-1"));
    let (tls, network) = (
        authority.sign("server-2"),
        network_with(authority.sign("server-2")),
    );
    let (address, _task) = listen(&network, &tls, any_port(), true).await;
    let two = peer("server-2", address);
    let call = async |method, body: Bytes| one.call(&two, method, body, PATIENCE).await;

    // Nobody serves yet.
    assert_eq!(
        refusal(call("echo", Bytes::new()).await),
        RefusalCode::Unavailable
    );
    network.serve(Arc::new(Answers));

    assert_eq!(
        call("echo", Bytes::from_static(b"as it is")).await.unwrap(),
        "as it is"
    );
    assert_eq!(call("echo", Bytes::new()).await.unwrap(), "");
    assert_eq!(call("who", Bytes::new()).await.unwrap(), "server-1");
    // The largest entry of the log with room to spare, and what no message may be.
    let large = Bytes::from(vec![7; 15 << 20]);
    assert_eq!(call("echo", large.clone()).await.unwrap(), large);
    assert_eq!(
        refusal(call("echo", Bytes::from(vec![7; 17 << 20])).await),
        RefusalCode::Invalid
    );
    assert_eq!(
        call("echo", large.slice(..9)).await.unwrap(),
        large.slice(..9),
        "and it goes on"
    );

    assert_eq!(refusal(call("busy", Bytes::new()).await), RefusalCode::Busy);
    assert_eq!(
        refusal(call("unavailable", Bytes::new()).await),
        RefusalCode::Unavailable
    );
    assert_eq!(
        refusal(call("unknown", Bytes::new()).await),
        RefusalCode::UnknownMethod
    );
    let late = one
        .call(&two, "slow", Bytes::new(), Duration::from_millis(50))
        .await;
    assert!(
        matches!(late, Err(NetworkError::TimedOut { .. })),
        "{late:?}"
    );

    let chunks = one
        .stream(&two, "thrice", Bytes::from_static(b"chunk"), PATIENCE)
        .await
        .unwrap();
    let chunks: Vec<_> = chunks.collect().await;
    assert_eq!(chunks, vec![Ok(Bytes::from_static(b"chunk")); 3]);
    assert!(
        one.stream(&two, "unknown", Bytes::new(), PATIENCE)
            .await
            .is_err()
    );
}

/// By rows: whether the other end is of an earlier release.
#[tokio::test]
async fn many_calls_are_under_way_at_once() {
    for earlier in [false, true] {
        let authority = Authority::new();
        let one = network_with(authority.sign("server-1"));
        let tls = authority.sign("server-2");
        let network = network_with(tls.clone());
        network.serve(Arc::new(Answers));
        let (address, _task) = listen_as(&network, &tls, any_port(), true, earlier).await;
        let two = peer("server-2", address);
        let call =
            async |method, body: Bytes, deadline| one.call(&two, method, body, deadline).await;

        // More than may wait on one stream, of sizes that go on either connection, beside some that are not answered in time.
        let held = (0..5).map(|_| call("held", Bytes::new(), Duration::from_secs(2)));
        let held = futures::future::join_all(held);
        let echoed = (0..2_000_usize).map(async |number| {
            let body = Bytes::from(vec![number as u8; number * number % 100_000]);
            let answer = call("echo", body.clone(), PATIENCE).await;
            assert!(answer == Ok(body), "{number}");
        });
        let (late, ..) = futures::future::join3(
            held,
            futures::future::join_all(echoed),
            until_held(&call, "5"),
        )
        .await;
        for late in late {
            assert!(
                matches!(late, Err(NetworkError::TimedOut { .. })),
                "{late:?}"
            );
        }
        // Whoever asked has gone, and they are given up.
        until_held(&call, "0").await;
    }
}

/// Waits until so many calls run at the other end.
async fn until_held<C>(call: &C, wanted: &str)
where
    C: AsyncFn(&'static str, Bytes, Duration) -> Result<Bytes, NetworkError>,
{
    for _ in 0..400 {
        if call("held-now", Bytes::new(), PATIENCE).await.unwrap() == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{wanted} calls never ran");
}

#[tokio::test]
async fn a_server_that_comes_back_is_reached_again() {
    let authority = Authority::new();
    let one = network_with(authority.sign("server-1"));
    let tls = authority.sign("server-2");
    let network = network_with(tls.clone());
    network.serve(Arc::new(Answers));
    let (address, task) = listen(&network, &tls, any_port(), true).await;
    let two = peer("server-2", address);
    one.call(&two, "echo", Bytes::new(), PATIENCE)
        .await
        .unwrap();

    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let gone = one.call(&two, "echo", Bytes::new(), PATIENCE).await;
    assert!(
        matches!(gone, Err(NetworkError::Unreachable { .. })),
        "{gone:?}"
    );

    let (_, _again) = listen(&network, &tls, address, true).await;
    assert_eq!(
        one.call(&two, "echo", Bytes::from_static(b"again"), PATIENCE)
            .await
            .unwrap(),
        "again"
    );
}

#[tokio::test]
async fn only_servers_of_the_cluster_talk_to_each_other() {
    let authority = Authority::new();
    let tls = authority.sign("server-2");
    let network = network_with(tls.clone());
    network.serve(Arc::new(Answers));
    let (address, _known) = listen(&network, &tls, any_port(), true).await;
    let (unknown_address, _unknown) = listen(&network, &tls, any_port(), false).await;

    let one = network_with(authority.sign("server-1"));
    let stranger = network_with(PeerTls {
        ca: authority.0.pem(),
        ..Authority::new().sign("server-1")
    });
    let misled = network_with(PeerTls {
        ca: Authority::new().0.pem(),
        ..authority.sign("server-1")
    });
    let check = async |network: &TonicNetwork, to: Peer, reached: bool| {
        let answer = network.call(&to, "echo", Bytes::new(), PATIENCE).await;
        match (reached, &answer) {
            (true, Ok(_)) | (false, Err(NetworkError::Unreachable { .. })) => {}
            _ => panic!("{to}: {answer:?}"),
        }
    };
    check(&one, peer("server-2", address), true).await;
    // Another server answers there than the one that was meant.
    check(&one, peer("server-3", address), false).await;
    // The caller's certificate is another authority's; the other end's is.
    check(&stranger, peer("server-2", address), false).await;
    check(&misled, peer("server-2", address), false).await;
    // The listener did not find the caller to be a server.
    let refused = one
        .call(
            &peer("server-2", unknown_address),
            "echo",
            Bytes::new(),
            PATIENCE,
        )
        .await;
    assert_eq!(refusal(refused), RefusalCode::Forbidden);
}
