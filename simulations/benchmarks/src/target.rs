//! One connection to one member of either system, and the calls that are measured. The channel under both is the same.

use crate::cluster::System;
use crate::pki::Pki;
use anyhow::{Context, Result};
use bytes::Bytes;
use proto::log_client::LogClient;
use proto::{GetRequest, PutRequest};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

#[allow(clippy::all)]
mod proto {
    tonic::include_proto!("reckon.log.v1");
}

/// Cheap to clone; clones share the one HTTP/2 connection.
#[derive(Clone)]
pub enum Connection {
    Etcd(Box<etcd_client::KvClient>),
    Reckon(LogClient<Channel>),
}

impl Connection {
    pub async fn open(system: System, address: &str, pki: &Pki) -> Result<Self> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&pki.authority))
            .identity(Identity::from_pem(&pki.certificate, &pki.key));
        let channel = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(tls)?
            .tcp_nodelay(true)
            .connect()
            .await
            .with_context(|| format!("{address} cannot be reached"))?;
        Ok(match system {
            System::Etcd => {
                let channel = etcd_client::Channel::Tonic(channel);
                let client = etcd_client::Client::from_channel(channel, None).await?;
                Self::Etcd(Box::new(client.kv_client()))
            }
            System::Reckon => Self::Reckon(LogClient::new(channel)),
        })
    }

    pub async fn put(&mut self, key: &str, value: Bytes) -> Result<()> {
        match self {
            Self::Etcd(client) => {
                client.put(key, value, None).await?;
            }
            Self::Reckon(client) => {
                let request = PutRequest {
                    key: key.to_owned(),
                    value,
                };
                client.put(request).await?;
            }
        }
        Ok(())
    }

    /// Linearizable with both. The value must be there.
    pub async fn get(&mut self, key: &str) -> Result<()> {
        let found = match self {
            Self::Etcd(client) => client.get(key, None).await?.count() == 1,
            Self::Reckon(client) => {
                let request = GetRequest {
                    key: key.to_owned(),
                };
                !client.get(request).await?.into_inner().value.is_empty()
            }
        };
        anyhow::ensure!(found, "{key} was not found");
        Ok(())
    }
}
