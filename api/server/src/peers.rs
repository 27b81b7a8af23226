//! What this server does for the others of its cluster, besides raft: takes proposals when it leads, hears which agents' sessions they
//! hold, reads logs from the agents whose sessions it holds, says how the members stand, what its history's digest is and how much room
//! its disk has, and hears what backups read.

use crate::agents::{Hub, METHOD_LOGS, METHOD_VOUCH, WeakHub};
use crate::archive::pins::{self, METHOD_PIN};
use crate::core::{
    Core, METHOD_HAND_OVER, METHOD_PROPOSE, METHOD_PROPOSE_ALL, METHOD_PROPOSE_ONCE,
    METHOD_STANDING,
};
use crate::divergence::{self, METHOD_DIGEST};
use crate::level::{self, METHOD_LEVEL};
use crate::room::{self, METHOD_ROOM};
use async_trait::async_trait;
use bytes::Bytes;
use seams::{ByteStream, Handler, PeerIdentity, Refusal, RefusalCode};
use std::sync::Arc;

/// Weakly held: the core's own node keeps the handler, so a strong handle would keep a server that has ended alive, raft and all.
pub(crate) struct Peers {
    hub: WeakHub,
}

impl Peers {
    /// Answers the others from now on.
    pub fn listen(core: &Core, hub: &Hub) {
        let peers = Arc::new(Self {
            hub: hub.downgrade(),
        });
        let methods = [
            METHOD_PROPOSE,
            METHOD_PROPOSE_ALL,
            METHOD_PROPOSE_ONCE,
            METHOD_VOUCH,
            METHOD_LOGS,
            METHOD_LEVEL,
            METHOD_STANDING,
            METHOD_HAND_OVER,
            METHOD_DIGEST,
            METHOD_ROOM,
            METHOD_PIN,
        ];
        for method in methods {
            core.node().handle(method, peers.clone());
        }
    }

    fn hub(&self) -> Result<Hub, Refusal> {
        let ended = || Refusal::new(RefusalCode::Unavailable, "this server has stopped");
        self.hub.upgrade().ok_or_else(ended)
    }
}

#[async_trait]
impl Handler for Peers {
    async fn call(&self, from: &PeerIdentity, method: &str, body: Bytes) -> Result<Bytes, Refusal> {
        let hub = self.hub()?;
        match method {
            METHOD_PROPOSE | METHOD_PROPOSE_ALL | METHOD_PROPOSE_ONCE => {
                // Its callers are answered from its own fold.
                hub.core().node().forwarded_by(&from.name);
                hub.core().forwarded(method, body).await
            }
            METHOD_LEVEL => Ok(level::answer(hub.core())),
            METHOD_PIN => pins::told(hub.core(), &body).await,
            METHOD_ROOM => Ok(room::answer(hub.core())),
            METHOD_DIGEST => {
                // It may be read from the disk, for which the log must not wait.
                let core = hub.core().clone();
                let answer = tokio::spawn(async move { divergence::answer(&core, &body) }).await;
                answer
                    .map_err(|error| Refusal::new(RefusalCode::Failed, error.to_string()))?
                    .map_err(|error| Refusal::new(RefusalCode::Invalid, error.to_string()))
            }
            METHOD_STANDING | METHOD_HAND_OVER => {
                hub.core().asked_about_members(method, &body).await
            }
            METHOD_VOUCH => match hub.vouched(&body) {
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
                .hub()?
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
