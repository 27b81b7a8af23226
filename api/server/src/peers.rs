//! What this server does for the others of its cluster, besides raft: takes proposals when it leads, hears which agents' sessions they
//! hold, reads logs from the agents whose sessions it holds.

use crate::agents::{Hub, METHOD_LOGS, METHOD_VOUCH};
use crate::core::{Core, METHOD_PROPOSE, SendError};
use async_trait::async_trait;
use bytes::Bytes;
use eventstore::{Proposal, decode};
use seams::{ByteStream, Handler, PeerIdentity, Refusal, RefusalCode};
use std::sync::Arc;

pub(crate) struct Peers {
    core: Core,
    hub: Hub,
}

impl Peers {
    /// Answers the others from now on.
    pub fn listen(core: &Core, hub: &Hub) {
        let peers = Arc::new(Self {
            core: core.clone(),
            hub: hub.clone(),
        });
        for method in [METHOD_PROPOSE, METHOD_VOUCH, METHOD_LOGS] {
            core.node().handle(method, peers.clone());
        }
    }

    /// The leader decodes and bounds a proposal before it appends it: what is in the log can be applied.
    async fn propose(&self, body: Bytes) -> Result<Bytes, Refusal> {
        if body.len() > Proposal::MOST_BYTES {
            let most = Proposal::MOST_BYTES;
            return Err(Refusal::new(
                RefusalCode::Invalid,
                format!("a proposal of {} bytes, the most is {most}", body.len()),
            ));
        }
        let proposal: Proposal =
            decode(&body).map_err(|error| Refusal::new(RefusalCode::Invalid, error.to_string()))?;
        match self
            .core
            .queue()
            .submit(Arc::new(proposal), body.len())
            .await
        {
            Ok(()) => Ok(Bytes::new()),
            Err(SendError::Full) => Err(Refusal::new(RefusalCode::Busy, "the queue is full")),
            Err(SendError::NotLeader) => Err(Refusal::new(
                RefusalCode::Unavailable,
                "this server does not lead",
            )),
            Err(SendError::Unknown) => Err(Refusal::new(
                RefusalCode::Failed,
                "leadership was lost while it was under way",
            )),
        }
    }
}

#[async_trait]
impl Handler for Peers {
    async fn call(
        &self,
        _from: &PeerIdentity,
        method: &str,
        body: Bytes,
    ) -> Result<Bytes, Refusal> {
        match method {
            METHOD_PROPOSE => self.propose(body).await,
            METHOD_VOUCH => match self.hub.vouched(&body) {
                Ok(true) => Ok(Bytes::new()),
                Ok(false) => Err(Refusal::new(
                    RefusalCode::Unavailable,
                    "this server does not lead",
                )),
                Err(error) => Err(Refusal::new(RefusalCode::Invalid, error.to_string())),
            },
            other => Err(unknown(other)),
        }
    }

    async fn stream(
        &self,
        _from: &PeerIdentity,
        method: &str,
        body: Bytes,
    ) -> Result<ByteStream, Refusal> {
        match method {
            METHOD_LOGS => self
                .hub
                .logs_for_peer(&body)
                .await
                .map_err(|error| Refusal::new(RefusalCode::Invalid, error)),
            other => Err(unknown(other)),
        }
    }
}

fn unknown(method: &str) -> Refusal {
    Refusal::new(RefusalCode::UnknownMethod, format!("no method {method:?}"))
}
