//! HTTPS to the servers of a cluster, from a kubeconfig. A server that is down is passed over for the next.
//!
//! The other servers are those of the kubeconfig's other contexts that have the same authority and the same user as the chosen
//! one: the same cluster, for nobody else signs with that key. A request that a server answered is never sent to another.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use thiserror::Error;

use super::kubeconfig::{Cluster, Kubeconfig, User};

/// Until a server has begun to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Of an answer that is read whole: the largest object is 3 MiB, a long history some times that.
const MAX_ANSWER_BYTES: usize = 256 << 20;

pub struct Client {
    /// The chosen context's first.
    servers: Vec<Server>,
    /// The context's, else `default`.
    pub namespace: String,
}

pub struct Server {
    pub name: String,
    url: String,
    authorization: Option<HeaderValue>,
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

#[derive(Debug, Error)]
pub enum Failure {
    #[error("{server} ({url}) cannot be reached: {reason}")]
    Unreachable {
        server: String,
        url: String,
        reason: String,
        /// It was: what was asked may have been done.
        connected: bool,
    },
    /// A Kubernetes Status, said as kubectl says it.
    #[error("the server says ({reason}): {message}")]
    Refused {
        code: StatusCode,
        reason: String,
        message: String,
    },
    /// It has done nothing, and will not: another may.
    #[error("{message}")]
    Diverged { message: String },
    #[error("{server} answered what cannot be read: {reason}")]
    Unreadable { server: String, reason: String },
}

impl Client {
    pub fn new(config: &Kubeconfig, context: Option<&str>) -> Result<Self> {
        let chosen = config.context(context)?;
        let cluster = config.cluster(&chosen.context.cluster)?;
        let authority = config.authority(cluster)?;
        let tls = tls(config, cluster, config.user(&chosen.context.user)?)?;
        let mut servers = vec![Server::new(
            config,
            &chosen.name,
            cluster,
            config.user(&chosen.context.user)?,
            &tls,
        )?];
        for other in &config.contexts {
            if other.name == chosen.name || other.context.user != chosen.context.user {
                continue;
            }
            let cluster = config.cluster(&other.context.cluster)?;
            if config.authority(cluster)? != authority || authority.is_none() {
                continue;
            }
            match servers
                .iter_mut()
                .find(|server| server.url == cluster.server.trim_end_matches('/'))
            {
                // `reckon` and `server-1` are one server: its own name says more.
                Some(same) => same.name.clone_from(&other.name),
                None => servers.push(Server::new(
                    config,
                    &other.name,
                    cluster,
                    config.user(&other.context.user)?,
                    &tls,
                )?),
            }
        }
        let namespace = chosen
            .context
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_string());
        Ok(Self { servers, namespace })
    }

    /// All of them, for what each has to say of itself.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The first server that answers.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let mut passed_over = None;
        for server in &self.servers {
            match server.get(path).await {
                Err(failure @ (Failure::Unreachable { .. } | Failure::Diverged { .. })) => {
                    passed_over = Some(failure);
                }
                answer => return answer,
            }
        }
        Err(passed_over.expect("a client has one server at least"))
    }

    /// A request with a JSON body, to the first server that can be reached and serves: the others only if it does not, for what one has
    /// taken must not be asked of another.
    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut passed_over = None;
        for server in &self.servers {
            match server.ask(method.clone(), path, body).await {
                Err(
                    failure @ (Failure::Unreachable {
                        connected: false, ..
                    }
                    | Failure::Diverged { .. }),
                ) => {
                    passed_over = Some(failure);
                }
                answer => return answer,
            }
        }
        Err(passed_over.expect("a client has one server at least"))
    }

    /// The first server that answers, its body as it is.
    pub async fn bytes(&self, path: &str) -> Result<Bytes, Failure> {
        let mut unreachable = None;
        for server in &self.servers {
            let answer = match server.send(Method::GET, path).await {
                Ok(answer) => server.read(answer).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Err(failure @ Failure::Unreachable { .. }) => unreachable = Some(failure),
                answer => return answer,
            }
        }
        Err(unreachable.expect("a client has one server at least"))
    }

    /// As `get`, but nothing when the server says that it does not exist.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Refused {
                code: StatusCode::NOT_FOUND,
                ..
            }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

impl Server {
    fn new(
        config: &Kubeconfig,
        name: &str,
        cluster: &Cluster,
        user: &User,
        tls: &rustls::ClientConfig,
    ) -> Result<Self> {
        let url = cluster.server.trim_end_matches('/').to_string();
        let uri: http::Uri = url
            .parse()
            .with_context(|| format!("'{url}' in the kubeconfig is no URL"))?;
        if uri.scheme_str() != Some("https") {
            bail!("the kubeconfig's server {url} is not https");
        }
        let authorization = match config.token(user)? {
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .context("the kubeconfig's token has characters that no header may have")?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        tcp.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_only();
        let builder = match &cluster.tls_server_name {
            Some(name) => {
                builder.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(
                    rustls_pki_types::ServerName::try_from(name.clone())
                        .context("the kubeconfig's tls-server-name is no name")?,
                ))
            }
            None => builder,
        };
        let http = legacy::Client::builder(TokioExecutor::new())
            .build(builder.enable_all_versions().wrap_connector(tcp));
        Ok(Self {
            name: name.to_string(),
            url,
            authorization,
            http,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.send(Method::GET, path).await?;
        let body = self.read(answer).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(error))
    }

    /// Status 200 and any body.
    pub async fn is_ok(&self, path: &str) -> bool {
        self.send(Method::GET, path).await.is_ok()
    }

    pub async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let body = if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let answer = self.exchange(method, path, body).await?;
        let body = self.read(answer).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(error))
    }

    /// An answer of 2xx, its body unread. Its end is not waited for within any limit.
    pub async fn send(&self, method: Method, path: &str) -> Result<Response<Incoming>, Failure> {
        self.exchange(method, path, Bytes::new()).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("{}{path}", self.url))
            .header(USER_AGENT, concat!("reckon/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.unreachable(false, error))?;
        let answer = match tokio::time::timeout(ANSWER_LIMIT, self.http.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return Err(self.unreachable(!error.is_connect(), Sources(&error)));
            }
            Err(_) => {
                let waited = format!("no answer within {} s", ANSWER_LIMIT.as_secs());
                return Err(self.unreachable(true, waited));
            }
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status();
        let body = self.read(answer).await?;
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |field: &str| {
            status
                .get(field)
                .and_then(Value::as_str)
                .map(str::to_string)
        };
        if status["details"]["causes"][0]["reason"] == "Diverged" {
            let message = text("message").unwrap_or_default();
            return Err(Failure::Diverged { message });
        }
        Err(Failure::Refused {
            code,
            reason: text("reason")
                .filter(|reason| !reason.is_empty())
                .unwrap_or_else(|| code.to_string()),
            message: text("message")
                .unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_string()),
        })
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Bytes, Failure> {
        match Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
        {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    pub fn unreachable(&self, connected: bool, reason: impl ToString) -> Failure {
        Failure::Unreachable {
            server: self.name.clone(),
            url: self.url.clone(),
            reason: reason.to_string(),
            connected,
        }
    }

    pub fn unreadable(&self, reason: impl ToString) -> Failure {
        Failure::Unreadable {
            server: self.name.clone(),
            reason: reason.to_string(),
        }
    }
}

/// hyper says "client error (Connect)" and keeps the reason in its sources.
struct Sources<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = self.0;
        while let Some(source) = last.source() {
            last = source;
        }
        std::fmt::Display::fmt(last, f)
    }
}

fn tls(config: &Kubeconfig, cluster: &Cluster, user: &User) -> Result<rustls::ClientConfig> {
    if cluster.insecure_skip_tls_verify == Some(true) {
        bail!(
            "the kubeconfig says insecure-skip-tls-verify, which reckon's own commands do not do: name the certificate-authority"
        );
    }
    let authority = config
        .authority(cluster)?
        .context("the kubeconfig's cluster names no certificate-authority")?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&authority) {
        roots
            .add(certificate.context("the kubeconfig's certificate-authority is no PEM")?)
            .context("the kubeconfig's certificate-authority cannot be used")?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .context("TLS has no protocol version")?
    .with_root_certificates(roots);
    Ok(match config.client_certificate(user)? {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(&certificate)
                .collect::<Result<Vec<_>, _>>()
                .context("the client certificate is no PEM")?;
            let key = PrivateKeyDer::from_pem_slice(&key).context("the client key is no PEM")?;
            builder
                .with_client_auth_cert(chain, key)
                .context("the client certificate and key cannot be used")?
        }
        None => builder.with_no_client_auth(),
    })
}
