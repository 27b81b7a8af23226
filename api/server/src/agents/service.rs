//! The gRPC shell of the hub: who calls, and a stream each way. It decides nothing.

use super::Hub;
use super::session::{SessionEnd, outbound};
use agent::proto::agents_server::{Agents, AgentsServer};
use agent::proto::{AgentMessage, ServerMessage};
use futures::{Stream, StreamExt};
use std::pin::Pin;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Agents' certificates: CN `system:node:<name>`, O one of these.
const NODES_GROUP: &str = "system:nodes";
const SIMULATED_NODES_GROUP: &str = "system:simulated-nodes";
const NODE_USER_PREFIX: &str = "system:node:";
/// A pod of 3 MiB, and room.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Who an agent's certificate says it is. The listener puts it into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    pub common_name: String,
    pub organizations: Vec<String>,
}

impl AgentIdentity {
    /// Whether it may open a session for this node.
    pub(super) fn may_be(&self, node: &str, simulated: bool) -> bool {
        let has = |group: &str| {
            self.organizations
                .iter()
                .any(|organization| organization == group)
        };
        let own = has(NODES_GROUP) && self.common_name.strip_prefix(NODE_USER_PREFIX) == Some(node);
        !node.is_empty() && (own || (simulated && has(SIMULATED_NODES_GROUP)))
    }
}

impl Hub {
    /// To be mounted at `/reckon.agent.v1.Agents`.
    pub fn service(&self) -> AgentsServer<Self> {
        AgentsServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Agents for Hub {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let Some(identity) = request.extensions().get::<AgentIdentity>().cloned() else {
            return Err(Status::unauthenticated(
                "a client certificate of an agent is needed",
            ));
        };
        let (sender, receiver) = outbound();
        // A message that can't be read ends the stream, and with it the session.
        let inbound = request
            .into_inner()
            .take_while(|message| futures::future::ready(message.is_ok()))
            .filter_map(|message| async { message.ok() });
        let hub = self.clone();
        tokio::spawn(async move {
            let end = hub.serve(identity, Box::pin(inbound), sender).await;
            match end {
                SessionEnd::Closed => tracing::debug!("an agent closed its session"),
                other => tracing::info!(reason = %other, "a session ended"),
            }
        });
        Ok(Response::new(Box::pin(
            ReceiverStream::new(receiver).map(Ok),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_open_their_own_sessions() {
        for (common_name, organization, node, simulated, may) in [
            ("system:node:a", "system:nodes", "a", false, true),
            ("system:node:a", "system:nodes", "b", false, false),
            ("system:node:", "system:nodes", "", false, false),
            ("a", "system:nodes", "a", false, false),
            ("system:node:a", "system:masters", "a", false, false),
            ("simulator", "system:simulated-nodes", "n7", true, true),
            ("simulator", "system:simulated-nodes", "n7", false, false),
        ] {
            let identity = AgentIdentity {
                common_name: common_name.to_owned(),
                organizations: vec![organization.to_owned()],
            };
            assert_eq!(
                identity.may_be(node, simulated),
                may,
                "{common_name} {organization} {node} {simulated}"
            );
        }
    }
}
