//! The server's half of one session, from Hello to its end.

use super::route::Follow;
use super::{Held, Hub, OUTBOUND_MAX, report, service::AgentIdentity};
use crate::core::{Draft, ProposeError};
use agent::proto::{
    AgentMessage, Fenced, HeartbeatAck, Hello, ServerMessage, Welcome, agent_message,
    server_message,
};
use eventstore::{Act, Actor, Cause, Intent};
use futures::{Stream, StreamExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const HEARTBEAT_MS: u32 = 2_000;
/// Silence after which a session is given up, by both sides.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a session ended; the agent dials again unless it was fenced.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    #[error("the agent closed it")]
    Closed,
    #[error("nothing was heard for {} s", SESSION_TIMEOUT.as_secs())]
    Silent,
    #[error("this server can't hold a session now: {0}")]
    Unavailable(String),
    #[error("fenced: {0}")]
    Fenced(String),
    #[error("protocol: {0}")]
    Protocol(String),
    #[error("the agent takes its messages too slowly")]
    Slow,
}

impl Hub {
    /// Serves one session until it ends. `outbound` goes to the agent. Whoever calls has checked the agent's certificate.
    pub async fn serve(
        &self,
        identity: AgentIdentity,
        mut inbound: impl Stream<Item = AgentMessage> + Unpin + Send,
        outbound: mpsc::Sender<ServerMessage>,
    ) -> SessionEnd {
        let hello = match timeout(HELLO_TIMEOUT, inbound.next()).await {
            Ok(Some(AgentMessage {
                kind: Some(agent_message::Kind::Hello(hello)),
            })) => hello,
            Ok(Some(_)) => {
                return SessionEnd::Protocol("the first message must be Hello".to_owned());
            }
            Ok(None) => return SessionEnd::Closed,
            Err(_) => return SessionEnd::Silent,
        };
        let node = hello.node_name.clone();
        let epoch = match self.open(&identity, &hello).await {
            Ok(epoch) => epoch,
            Err(end) => {
                if let SessionEnd::Fenced(reason) = &end {
                    let fenced = Fenced {
                        reason: reason.clone(),
                        epoch: 0,
                    };
                    // An agent that is gone already needs no reason.
                    let _ = outbound
                        .send(message(server_message::Kind::Fenced(fenced)))
                        .await;
                }
                return end;
            }
        };
        let end = watch::Sender::new(false);
        let held = Held {
            epoch,
            sender: outbound.clone(),
            heard: Instant::now(),
            streams: BTreeMap::new(),
            end: end.clone(),
        };
        if !self.hold(&node, held) {
            return SessionEnd::Fenced(format!("{node} has opened a newer session"));
        }
        let reason = self.converse(&hello, epoch, inbound, outbound, end).await;
        let mut sessions = self.sessions();
        // A newer session of the same node is not ours to forget.
        if sessions.get(&node).is_some_and(|held| held.epoch == epoch) {
            sessions.remove(&node);
        }
        reason
    }

    /// Takes the place of the node's session before it. False: there is a newer one.
    fn hold(&self, node: &str, held: Held) -> bool {
        let mut sessions = self.sessions();
        if let Some(before) = sessions.get(node) {
            if before.epoch > held.epoch {
                return false;
            }
            before.end.send_replace(true);
        }
        sessions.insert(node.to_owned(), held);
        true
    }

    /// Checks Hello and proposes the session's opening; its revision is the epoch.
    async fn open(&self, identity: &AgentIdentity, hello: &Hello) -> Result<u64, SessionEnd> {
        if !identity.may_be(&hello.node_name, hello.simulated) {
            return Err(SessionEnd::Fenced(format!(
                "the certificate is not that of node {:?}",
                hello.node_name
            )));
        }
        let core = self.core();
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let view = core
            .not_older_than(hello.last_revision, deadline)
            .await
            .map_err(|late| SessionEnd::Unavailable(late.to_string()))?;
        if !hello.cluster_id.is_empty() && hello.cluster_id != view.cluster.to_string() {
            return Err(SessionEnd::Fenced(format!(
                "this is cluster {}, the agent belongs to {}",
                view.cluster, hello.cluster_id
            )));
        }
        let actor = Actor::Server {
            name: core.name().into(),
        };
        let act = Act::OpenSession {
            node: hello.node_name.as_str().into(),
            server: core.name().into(),
        };
        let draft = Draft {
            intent: Intent::Session,
            expectations: Vec::new(),
            act,
        };
        let mut request = core.request(actor, Cause::default());
        let opened = core
            .propose(&mut request, draft, deadline)
            .await
            .map_err(|error| SessionEnd::Unavailable(error.to_string()))?;
        Ok(opened.revision())
    }

    async fn converse(
        &self,
        hello: &Hello,
        epoch: u64,
        mut inbound: impl Stream<Item = AgentMessage> + Unpin + Send,
        outbound: mpsc::Sender<ServerMessage>,
        end: watch::Sender<bool>,
    ) -> SessionEnd {
        let node = hello.node_name.as_str();
        let mut ended = end.subscribe();
        let core = self.core().clone();
        let writer = report::Writer::new(core.clone(), node, epoch);
        if let Err(error) = writer.register(hello).await {
            return match error {
                report::ReportError::Fenced(reason) => SessionEnd::Fenced(reason),
                other => SessionEnd::Unavailable(other.to_string()),
            };
        }
        let welcome = Welcome {
            epoch,
            cluster_id: core.view().cluster.to_string(),
            revision: core.view().revision,
            heartbeat_ms: HEARTBEAT_MS,
            session_timeout_ms: SESSION_TIMEOUT.as_millis() as u32,
        };
        if outbound
            .send(message(server_message::Kind::Welcome(welcome)))
            .await
            .is_err()
        {
            return SessionEnd::Closed;
        }
        let follow = Follow {
            node: node.to_owned(),
            epoch,
            sender: outbound.clone(),
            end,
        };
        if self.0.router.send(follow).await.is_err() {
            return SessionEnd::Unavailable("this server is stopping".to_owned());
        }
        let (reports, worker) = report::worker(writer, outbound.clone());
        // Ends with the session, however that ends.
        let _worker = AbortOnDropHandle::new(tokio::spawn(worker));
        loop {
            let next = tokio::select! {
                biased;
                _ = ended.wait_for(|end| *end) => break SessionEnd::Unavailable("the session was closed by this server".to_owned()),
                next = timeout(SESSION_TIMEOUT, inbound.next()) => next,
            };
            let kind = match next {
                Err(_) => break SessionEnd::Silent,
                Ok(None) => break SessionEnd::Closed,
                Ok(Some(AgentMessage { kind: None })) => continue,
                Ok(Some(AgentMessage { kind: Some(kind) })) => kind,
            };
            self.heard(node, epoch);
            match kind {
                agent_message::Kind::Hello(_) => {
                    break SessionEnd::Protocol("a second Hello".to_owned());
                }
                agent_message::Kind::Heartbeat(_) => {
                    let ack = HeartbeatAck {
                        revision: core.view().revision,
                    };
                    if outbound
                        .try_send(message(server_message::Kind::HeartbeatAck(ack)))
                        .is_err()
                    {
                        break SessionEnd::Slow;
                    }
                }
                agent_message::Kind::StreamData(data) => self.stream_data(node, data),
                agent_message::Kind::PodStatus(status) => reports.pod_status(status),
                agent_message::Kind::PodGone(gone) => reports.pod_gone(gone),
                agent_message::Kind::NodeStatus(status) => reports.node_status(status),
                agent_message::Kind::PodEvent(event) => reports.pod_event(event),
            }
            if let Some(reason) = reports.fenced() {
                let fenced = Fenced {
                    reason: reason.clone(),
                    epoch,
                };
                // Ending anyway.
                let _ = outbound.try_send(message(server_message::Kind::Fenced(fenced)));
                break SessionEnd::Fenced(reason);
            }
        }
    }

    fn heard(&self, node: &str, epoch: u64) {
        if let Some(held) = self
            .sessions()
            .get_mut(node)
            .filter(|held| held.epoch == epoch)
        {
            held.heard = Instant::now();
        }
    }
}

pub(super) fn message(kind: server_message::Kind) -> ServerMessage {
    ServerMessage { kind: Some(kind) }
}

/// The channel to one agent.
pub fn outbound() -> (mpsc::Sender<ServerMessage>, mpsc::Receiver<ServerMessage>) {
    mpsc::channel(OUTBOUND_MAX)
}

impl From<ProposeError> for SessionEnd {
    fn from(error: ProposeError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
