//! TLS of the one port: the server's certificate, and the clients' checked against the cluster's authority if they show one.

use crate::Config;
use crate::http::ClientCertificate;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use seams::PeerTls;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} can't be read: {why}")]
    Read { path: PathBuf, why: String },
    #[error("the server's certificate can't be used: {0}")]
    Use(String),
}

/// A server's certificate and key, and the authority of all.
pub struct Identity {
    pub ca_pem: Vec<u8>,
    pub cert_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

impl Identity {
    pub fn read(config: &Config) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| TlsError::Read {
                path: path.to_owned(),
                why: error.to_string(),
            })
        };
        Ok(Self {
            ca_pem: read(&config.ca)?,
            cert_pem: read(&config.cert)?,
            key_pem: read(&config.key)?,
        })
    }

    /// The authority's certificate as text: what pods get as `kube-root-ca.crt`.
    pub fn ca_text(&self) -> String {
        String::from_utf8_lossy(&self.ca_pem).into_owned()
    }

    /// What this server shows the others, and what it checks them against.
    pub fn peer_tls(&self) -> PeerTls {
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        PeerTls {
            ca: text(&self.ca_pem),
            certificate: text(&self.cert_pem),
            key: text(&self.key_pem),
        }
    }

    pub fn server_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        let used = |error: &dyn std::fmt::Display| TlsError::Use(error.to_string());
        let certificates = |pem: &[u8]| -> Result<Vec<CertificateDer<'static>>, TlsError> {
            CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|error| used(&error))
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut authority = RootCertStore::empty();
        for certificate in certificates(&self.ca_pem)? {
            authority.add(certificate).map_err(|error| used(&error))?;
        }
        // Without a certificate a client is anonymous, and may ask for health and version.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(authority), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| used(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem).map_err(|error| used(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| used(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.cert_pem)?, key)
            .map_err(|error| used(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Who a verified certificate names.
pub fn client_certificate(der: &CertificateDer<'_>) -> Option<ClientCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject
        .iter_organization()
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect();
    Some(ClientCertificate {
        common_name,
        organizations,
    })
}
