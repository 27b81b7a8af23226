//! One server's API over HTTPS, for what kubectl would not send, or not as often.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::runtime::Runtime;

pub struct Api {
    runtime: Runtime,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: String,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
}

impl Api {
    pub fn new(kubeconfig: &Path, url: &str) -> Self {
        let config: Value =
            serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
        let pem = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        let user = &config["users"][0]["user"];
        let mut roots = rustls::RootCertStore::empty();
        let authority = pem(&config["clusters"][0]["cluster"]["certificate-authority-data"]);
        roots
            .add(CertificateDer::from_pem_slice(&authority).unwrap())
            .unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&pem(&user["client-certificate-data"])).unwrap()],
            PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])).unwrap(),
        )
        .unwrap();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_all_versions()
            .wrap_connector(tcp);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime,
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: url.to_string(),
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "application/json", Vec::new(), 30)
            .unwrap()
    }

    /// A number of `/metrics` that has no labels.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").body;
        let Value::String(text) = &metrics else {
            panic!("no metrics: {metrics}")
        };
        let value = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(found, _)| *found == name);
        let (_, value) = value.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().unwrap()
    }

    /// What was answered, or why nothing was within the limit.
    pub fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
        limit_s: u64,
    ) -> Result<Answer, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Content-Type", content_type)
            .header("Accept", "application/json")
            .header("User-Agent", "reckon-tests")
            .body(Full::from(body))
            .unwrap();
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| format!("{error:?}"))?;
            let code = answer.status().as_u16();
            let bytes = answer
                .into_body()
                .collect()
                .await
                .map_err(|error| format!("{error:?}"))?
                .to_bytes();
            Ok(Answer {
                code,
                body: serde_json::from_slice(&bytes).unwrap_or_else(|_| lines(&bytes)),
            })
        };
        let bounded = async { tokio::time::timeout(Duration::from_secs(limit_s), exchange).await };
        self.runtime
            .block_on(bounded)
            .unwrap_or_else(|_| Err(format!("no answer within {limit_s} s")))
    }
}

/// A watch's answer is a JSON document a line; anything else is text.
fn lines(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    let documents: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    documents
        .map(Value::Array)
        .unwrap_or_else(|_| Value::String(text.into_owned()))
}
