//! How a server that was invited comes in, before it starts: it learns its id, and gets a certificate for its own key.
//!
//! With a token: fetch the authority's certificate from anybody, take it only if its digest is the one in the token, and only then
//! show the token's secret, over a connection that this authority vouches for. What came of it lies in the directory's `pki/`, so a
//! later start needs nobody. The key never leaves this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use server::authority;
use tokio::time::{Instant, sleep, timeout};

use super::Client;
use super::client::Failure;
use super::kubeconfig::{
    Cluster, Context as KubeContext, Kubeconfig, NamedCluster, NamedContext, NamedUser, User,
};
use crate::files;

/// How long the others are asked again that can't be reached, or have no leader.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);
const FETCH_LIMIT: Duration = Duration::from_secs(10);
const AUTHORITY_BYTES_MAX: usize = 1 << 20;

/// What `--join` is asked with.
pub struct Asking<'a> {
    pub data_dir: &'a Path,
    /// `https://host:port` of servers that are there.
    pub servers: &'a [String],
    pub how: How<'a>,
}

pub enum How<'a> {
    Token(&'a str),
    /// A certificate that somebody else made.
    Certificate(&'a Files),
}

/// Where a server's certificates lie.
#[derive(Clone, Debug)]
pub struct Files {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a server is that came in.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Place {
    pub id: u64,
    pub name: String,
    /// Under which the others know it.
    pub address: String,
    /// The cluster's name to raft.
    pub cluster: String,
}

/// Where a server that joined by a token keeps its certificates.
pub fn files(data_dir: &Path) -> Files {
    let pki = data_dir.join("pki");
    Files {
        ca: pki.join("ca.crt"),
        cert: pki.join("server.crt"),
        key: pki.join("server.key"),
    }
}

/// What this directory's server is, if it has come in before.
pub fn known(data_dir: &Path) -> Result<Option<Place>> {
    let path = place_file(data_dir);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{} cannot be read", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn place_file(data_dir: &Path) -> PathBuf {
    data_dir.join("pki/server.json")
}

/// Asks until one of the servers lets this one in, or says no.
pub async fn come_in(asking: &Asking<'_>) -> Result<Place> {
    let pki = asking.data_dir.join("pki");
    fs::create_dir_all(&pki).with_context(|| format!("cannot make {}", pki.display()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut last = anyhow::anyhow!("--join names no server");
        for server in asking.servers {
            match ask(asking, server).await {
                Ok(place) => return keep(asking, place),
                Err(Refusal::ForGood(error)) => return Err(error),
                Err(Refusal::ForNow(error)) => last = error,
            }
        }
        if Instant::now() > deadline {
            return Err(last.context(format!(
                "no server let this one in within {} s",
                PATIENCE.as_secs()
            )));
        }
        tracing::info!(error = format!("{last:#}"), "asking again to be let in");
        sleep(RETRY).await;
    }
}

enum Refusal {
    ForNow(anyhow::Error),
    ForGood(anyhow::Error),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::ForGood(error)
    }
}

async fn ask(asking: &Asking<'_>, server: &str) -> Result<Place, Refusal> {
    let own = files(asking.data_dir);
    let (authority, user, body) = match asking.how {
        How::Token(token) => {
            let authority = fetch_authority(server, token).await?;
            let key = key(&own.key)?;
            let params = CertificateParams::default();
            let request = params
                .serialize_request(&key)
                .and_then(|request| request.pem())
                .context("cannot make a request for a certificate")?;
            let body = json!({ "token": token, "certificateRequest": request });
            (authority, User::default(), body)
        }
        How::Certificate(files) => {
            let read = |path: &Path| {
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))
            };
            let user = User {
                client_certificate_data: Some(STANDARD.encode(read(&files.cert)?)),
                client_key_data: Some(STANDARD.encode(read(&files.key)?)),
                ..User::default()
            };
            let authority =
                String::from_utf8(read(&files.ca)?).context("the authority is no PEM")?;
            (authority, user, json!({}))
        }
    };
    let client = client(server, &authority, user)?;
    let answer = match client.ask(Method::POST, "/reckon/v1/join", &body).await {
        Ok(answer) => answer,
        Err(Failure::Refused { code, message, .. })
            if code == StatusCode::FORBIDDEN || code == StatusCode::BAD_REQUEST =>
        {
            return Err(Refusal::ForGood(anyhow::anyhow!(
                "{server} says: {message}"
            )));
        }
        Err(failure) => return Err(Refusal::ForNow(failure.into())),
    };
    let place: Place = serde_json::from_value(answer.clone())
        .with_context(|| format!("{server} answered what cannot be read"))?;
    // Whatever it says, this server's messages are for the cluster of its own authority.
    let base = authority::digest(&authority);
    if !place.cluster.starts_with(&base) {
        return Err(Refusal::ForGood(anyhow::anyhow!(
            "{server} serves cluster {}, which is not this authority's, {base}",
            place.cluster
        )));
    }
    if let How::Token(_) = asking.how {
        let certificate = answer["certificate"]
            .as_str()
            .with_context(|| format!("{server} signed no certificate"))?;
        write(&own.ca, authority.as_bytes(), 0o644)?;
        write(&own.cert, certificate.as_bytes(), 0o644)?;
    }
    Ok(place)
}

fn keep(asking: &Asking<'_>, place: Place) -> Result<Place> {
    let text = serde_json::to_string_pretty(&place).context("cannot write JSON")? + "\n";
    write(&place_file(asking.data_dir), text.as_bytes(), 0o644)?;
    Ok(place)
}

fn client(server: &str, authority: &str, user: User) -> Result<Client> {
    let name = "join".to_string();
    let cluster = NamedCluster {
        name: name.clone(),
        cluster: Cluster {
            server: server.to_string(),
            certificate_authority_data: Some(STANDARD.encode(authority)),
            ..Cluster::default()
        },
    };
    let context = NamedContext {
        name: name.clone(),
        context: KubeContext {
            cluster: name.clone(),
            user: name.clone(),
            namespace: None,
        },
    };
    let user = NamedUser { name, user };
    Client::new(
        &Kubeconfig::new(vec![cluster], vec![user], vec![context]),
        None,
    )
}

/// The authority's certificate, if it is the one that the token names.
async fn fetch_authority(server: &str, token: &str) -> Result<String, Refusal> {
    let Some(expected) = token.split('.').nth(2) else {
        return Err(Refusal::ForGood(anyhow::anyhow!(
            "this is no token of 'reckon member add'"
        )));
    };
    let fetched = match timeout(FETCH_LIMIT, fetch(server)).await {
        Ok(Ok(fetched)) => fetched,
        Ok(Err(error)) => return Err(Refusal::ForNow(error)),
        Err(_) => {
            return Err(Refusal::ForNow(anyhow::anyhow!(
                "{server} did not answer in time"
            )));
        }
    };
    if authority::digest(&fetched) != expected {
        return Err(Refusal::ForGood(anyhow::anyhow!(
            "{server} is not of the cluster that gave this token: its certificate authority is another"
        )));
    }
    Ok(fetched)
}

/// Whoever answers: nothing secret is said, and the answer is checked by its digest.
async fn fetch(server: &str) -> Result<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS has no protocol version")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_all_versions()
        .build();
    let http: legacy::Client<_, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(format!("{server}/reckon/v1/ca"))
        .body(Full::default())
        .with_context(|| format!("'{server}' is no URL"))?;
    let answer = http
        .request(request)
        .await
        .with_context(|| format!("{server} cannot be reached"))?;
    let body = Limited::new(answer.into_body(), AUTHORITY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("{server} broke off: {error}"))?
        .to_bytes();
    let answer: Value = serde_json::from_slice(&body)
        .with_context(|| format!("{server} answered what cannot be read"))?;
    let certificate = answer["certificate"].as_str();
    Ok(certificate
        .with_context(|| format!("{server} told no certificate authority"))?
        .to_string())
}

/// This server's own key, made if there is none.
fn key(path: &Path) -> Result<KeyPair> {
    if let Ok(pem) = fs::read_to_string(path) {
        return KeyPair::from_pem(&pem).with_context(|| format!("{} is no key", path.display()));
    }
    let key = KeyPair::generate().context("cannot make a key")?;
    write(path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    files::replace(path, bytes, mode, |_| Ok(()))
}

/// Takes any certificate: for what is checked otherwise.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
