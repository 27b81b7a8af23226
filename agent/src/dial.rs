//! How an agent reaches a server: `Dialer` is the seam, `TonicDialer` its real side (gRPC over mutual TLS), and a simulation or a
//! test gives a pair of channels.
//!
//! A dialer connects once and reports failure; it never retries, chooses a server or looks into messages: that is `link`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::proto::agents_client::AgentsClient;
use crate::proto::{AgentMessage, ServerMessage};

/// Messages that wait to be sent on one session. Past it the sender waits.
pub const UP_QUEUE: usize = 64;
/// The largest message either way: a pod or a ConfigMap is at most 3 MiB, a log chunk far less.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A session's two directions. Dropping both ends it.
pub struct Connection {
    pub up: mpsc::Sender<AgentMessage>,
    /// Ends, or yields an error once, when the session is over.
    pub down: BoxStream<'static, Result<ServerMessage, DialError>>,
}

#[derive(Debug, Clone, Error)]
pub enum DialError {
    #[error("cannot reach {server}: {reason}")]
    Unreachable { server: String, reason: String },
    #[error("the session broke: {0}")]
    Broken(String),
    #[error("bad credentials or address: {0}")]
    Config(String),
}

/// Opens sessions.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// A new session with `server`, one of the list that the agent was given. The first message is up to the caller.
    async fn dial(&self, server: &str) -> Result<Connection, DialError>;
}

/// Who the agent is to a server, in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// What the server's certificate must chain to.
    pub ca_pem: Vec<u8>,
    /// CN `system:node:<name>`, O `system:nodes`.
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

/// The real dialer. Sessions to the same server share one HTTP/2 connection while it lives, so that a thousand simulated nodes
/// cost one socket.
pub struct TonicDialer {
    tls: ClientTlsConfig,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl TonicDialer {
    pub fn new(credentials: &Credentials) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&credentials.ca_pem))
            .identity(Identity::from_pem(
                &credentials.certificate_pem,
                &credentials.key_pem,
            ));
        TonicDialer {
            tls,
            channels: Arc::default(),
        }
    }

    async fn channel(&self, server: &str) -> Result<Channel, DialError> {
        let mut channels = self.channels.lock().await;
        if let Some(channel) = channels.get(server) {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(server.to_owned())
            .map_err(|error| DialError::Config(error.to_string()))?
            .tls_config(self.tls.clone())
            .map_err(|error| DialError::Config(describe(&error)))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect()
            .await
            .map_err(|error| DialError::Unreachable {
                server: server.to_owned(),
                reason: describe(&error),
            })?;
        channels.insert(server.to_owned(), channel.clone());
        Ok(channel)
    }
}

#[async_trait]
impl Dialer for TonicDialer {
    /// `server` is an https URL: `https://127.0.0.1:6443`.
    async fn dial(&self, server: &str) -> Result<Connection, DialError> {
        let channel = self.channel(server).await?;
        let mut client = AgentsClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (up, sent) = mpsc::channel(UP_QUEUE);
        let (channels, server) = (self.channels.clone(), server.to_owned());
        // A server may wait for Hello before it answers at all: so the answer is awaited with the first message.
        let open = async move {
            match client.session(ReceiverStream::new(sent)).await {
                Ok(response) => Ok(response
                    .into_inner()
                    .map_err(|status| DialError::Broken(told(&status)))),
                Err(status) => {
                    // The connection may be what is broken: the next dial makes a new one.
                    channels.lock().await.remove(&server);
                    Err(DialError::Unreachable {
                        server,
                        reason: told(&status),
                    })
                }
            }
        };
        Ok(Connection {
            up,
            down: futures::stream::once(open).try_flatten().boxed(),
        })
    }
}

fn told(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An error with its causes: tonic's own text is "transport error" and no more.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
