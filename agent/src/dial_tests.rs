//! The real dialer against a real server on loopback, with certificates on both sides.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::proto::agent_message::Kind as Up;
use crate::proto::agents_server::{Agents, AgentsServer};
use crate::proto::server_message::Kind as Down;
use crate::proto::{Heartbeat, Hello, Welcome};

/// Waits for Hello before it answers at all, then says Welcome to whom the certificate names.
struct Greeter;

#[tonic::async_trait]
impl Agents for Greeter {
    type SessionStream = BoxStream<'static, Result<ServerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let certified = request
            .peer_certs()
            .is_some_and(|certificates| !certificates.is_empty());
        let mut up = request.into_inner();
        let first = up.message().await?.and_then(|message| message.kind);
        let Some(Up::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let cluster_id = format!("{} {certified}", hello.node_name);
        let welcome = Welcome {
            epoch: 1,
            cluster_id,
            revision: 1,
            ..Default::default()
        };
        let message = ServerMessage {
            kind: Some(Down::Welcome(welcome)),
        };
        Ok(Response::new(
            futures::stream::once(async { Ok(message) })
                .chain(futures::stream::pending())
                .boxed(),
        ))
    }
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    fn issue(&self, name: &str, address: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![address.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            certificate.pem().into_bytes(),
            key.serialize_pem().into_bytes(),
        )
    }
}

async fn serve(authority: &Authority) -> String {
    let (certificate, key) = authority.issue("server", "127.0.0.1");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(authority.issuer.pem()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(AgentsServer::new(Greeter));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    format!("https://{address}")
}

fn credentials(ca: &Authority, issuer: &Authority) -> Credentials {
    let (certificate_pem, key_pem) = issuer.issue("system:node:n1", "n1");
    Credentials {
        ca_pem: ca.issuer.pem().into_bytes(),
        certificate_pem,
        key_pem,
    }
}

async fn open(dialer: &TonicDialer, server: &str) -> Result<Option<Down>, DialError> {
    let Connection { up, mut down } = dialer.dial(server).await?;
    let hello = Hello {
        node_name: "n1".into(),
        ..Default::default()
    };
    up.send(AgentMessage {
        kind: Some(Up::Hello(hello)),
    })
    .await
    .unwrap();
    let first = down.next().await.unwrap()?;
    up.send(AgentMessage {
        kind: Some(Up::Heartbeat(Heartbeat { sequence: 1 })),
    })
    .await
    .unwrap();
    Ok(first.kind)
}

#[tokio::test]
async fn sessions_over_mutual_tls() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (ours, others) = (Authority::new(), Authority::new());
    let server = serve(&ours).await;
    let dialer = TonicDialer::new(&credentials(&ours, &ours));
    for _ in 0..3 {
        let Ok(Some(Down::Welcome(welcome))) = open(&dialer, &server).await else {
            panic!("no Welcome")
        };
        assert_eq!(welcome.cluster_id, "n1 true");
    }
    assert_eq!(
        dialer.channels.lock().await.len(),
        1,
        "one connection for all sessions"
    );
    for (ca, issuer) in [(&ours, &others), (&others, &ours)] {
        let refused = open(&TonicDialer::new(&credentials(ca, issuer)), &server).await;
        assert!(
            matches!(refused, Err(DialError::Unreachable { .. })),
            "{refused:?}"
        );
    }
    let nobody = open(&dialer, "https://127.0.0.1:1").await;
    assert!(
        matches!(nobody, Err(DialError::Unreachable { .. })),
        "{nobody:?}"
    );
}
