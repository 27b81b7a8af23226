//! Kubernetes' API of a Reckon cluster, as kubectl would speak it: HTTPS, HTTP/2, JSON. As many connections as are asked for, in turn to
//! each server.

use crate::cluster::Cluster;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::sync::Arc;

/// Where all that is written for a benchmark lies.
pub const NAMESPACE: &str = "bench";
pub const MAPS: &str = "/api/v1/namespaces/bench/configmaps";

#[derive(Clone)]
pub struct Api {
    connections: Arc<Vec<Link>>,
}

struct Link {
    url: String,
    /// One HTTP/2 connection, made at the first request and again when it broke.
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Api {
    pub fn new(cluster: &Cluster, connections: usize) -> Result<Self> {
        let pki = &cluster.pki;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.authority.as_bytes())?)?;
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(pki.certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(pki.key.as_bytes())?,
            )?;
        let addresses = cluster.addresses();
        let connections = (0..connections).map(|number| {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            let https = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_only()
                .enable_http2()
                .wrap_connector(tcp);
            Link {
                url: format!("https://{}", addresses[number % addresses.len()]),
                http: legacy::Client::builder(TokioExecutor::new())
                    .http2_only(true)
                    .http2_adaptive_window(true)
                    .build(https),
            }
        });
        Ok(Self {
            connections: Arc::new(connections.collect()),
        })
    }

    /// An answer to be read as it comes. `number`: which connection, modulo how many there are.
    pub async fn open(
        &self,
        number: usize,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Incoming)> {
        let link = &self.connections[number % self.connections.len()];
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", link.url))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "reckon-benchmarks")
            .body(Full::new(body))?;
        let answer = link.http.request(request).await;
        let answer = answer.with_context(|| format!("{}{path} can't be asked", link.url))?;
        Ok((answer.status(), answer.into_body()))
    }

    /// The whole answer, which must be a good one.
    pub async fn ask(
        &self,
        number: usize,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        let (status, answer) = self.open(number, method.clone(), path, body).await?;
        let answer = answer.collect().await.context("the answer broke off")?;
        let answer = answer.to_bytes();
        if !status.is_success() {
            bail!(
                "{method} {path}: {status}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(answer)
    }

    pub async fn get(&self, number: usize, path: &str) -> Result<Bytes> {
        self.ask(number, Method::GET, path, Bytes::new()).await
    }

    pub async fn make_namespace(&self) -> Result<()> {
        let body =
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": NAMESPACE}});
        let body = body.to_string().into();
        self.ask(0, Method::POST, "/api/v1/namespaces", body)
            .await
            .map(drop)
    }

    /// The newest revision that the first server has.
    pub async fn revision(&self) -> Result<u64> {
        let status: Value = serde_json::from_slice(&self.get(0, "/reckon/v1/status").await?)?;
        status["revision"]
            .as_u64()
            .context("/reckon/v1/status names no revision")
    }
}

/// A ConfigMap with one field of this text.
pub fn map(name: &str, text: &str) -> Bytes {
    format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}"}},"data":{{"v":"{text}"}}}}"#
    )
    .into()
}

/// The revision of an object as it was answered.
pub fn revision_of(object: &[u8]) -> Result<u64> {
    let value: Value = serde_json::from_slice(object)?;
    value["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .context("the answer has no resourceVersion")
}
