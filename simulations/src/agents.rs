//! Simulated nodes, on wires that break: the agent crate's own simulated nodes and session code, dialling servers through the
//! simulated network.

use crate::cluster::Fronts;
use crate::sides::{EPOCH_MS, Fate, SimNet};
use agent::proto::{AgentMessage, ServerMessage};
use agent::{
    Connection, DialError, Dialer, SimulatedConfig, Timestamp, WallClock, run_simulated_node,
};
use async_trait::async_trait;
use futures::StreamExt;
use server::agents::AgentIdentity;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

const PREFIX: &str = "node";
const QUEUE: usize = 256;
/// A lost segment comes again after about this (RFC 6298: at least 200 ms in practice).
const RESENT_AFTER: Duration = Duration::from_millis(220);

/// What each node has.
pub const NODE_CPU: &str = "4";
pub const NODE_PODS: u32 = 20;

/// The name of node number `index`, from 1.
pub fn name(index: u32) -> String {
    format!("{PREFIX}-{index}")
}

/// Starts a node; dropping the handle's task kills it.
pub fn start(
    index: u32,
    seed: u64,
    servers: Vec<String>,
    net: SimNet,
    fronts: Fronts,
    started: Instant,
) -> tokio::task::JoinHandle<()> {
    let config = SimulatedConfig {
        count: index,
        prefix: PREFIX.to_owned(),
        servers,
        start_delay: Duration::from_millis(400),
        stop_delay: Duration::from_millis(300),
        cpu: NODE_CPU.to_owned(),
        memory: "8Gi".to_owned(),
        pods: NODE_PODS,
        seed,
    };
    let dialer = Arc::new(SimDialer {
        name: name(index),
        net,
        fronts,
    });
    let wall_clock: WallClock = Arc::new(move || {
        let ms = EPOCH_MS + started.elapsed().as_millis() as i64;
        Timestamp::from_timestamp_millis(ms).unwrap_or_default()
    });
    tokio::spawn(run_simulated_node(config, index, dialer, wall_clock))
}

struct SimDialer {
    name: String,
    net: SimNet,
    fronts: Fronts,
}

#[async_trait]
impl Dialer for SimDialer {
    async fn dial(&self, server: &str) -> Result<Connection, DialError> {
        let unreachable = |reason: &str| DialError::Unreachable {
            server: server.to_owned(),
            reason: reason.to_owned(),
        };
        match self.net.fate(&self.name, server) {
            Fate::Arrives(after) => sleep(after).await,
            Fate::Lost | Fate::Cut => {
                sleep(Duration::from_secs(1)).await;
                return Err(unreachable("no answer"));
            }
        }
        let Some(hub) = self.fronts.hub(server) else {
            return Err(unreachable("connection refused"));
        };
        let (up, up_out) = mpsc::channel::<AgentMessage>(QUEUE);
        let (up_in, inbound) = mpsc::channel::<AgentMessage>(QUEUE);
        let (outbound, down_out) = server::agents::outbound();
        let (down_in, down) = mpsc::channel::<ServerMessage>(QUEUE);
        let wire = |from: &str, to: &str| Wire {
            net: self.net.clone(),
            from: from.to_owned(),
            to: to.to_owned(),
            agent: self.name.clone(),
            broken: self.net.broken(&self.name),
        };
        tokio::spawn(wire(&self.name, server).carry(up_out, up_in));
        tokio::spawn(wire(server, &self.name).carry(down_out, down_in));
        let identity = AgentIdentity {
            common_name: format!("system:node:{}", self.name),
            organizations: vec!["system:nodes".to_owned()],
        };
        self.fronts.spawn(server, async move {
            hub.serve(identity, ReceiverStream::new(inbound), outbound)
                .await;
        });
        Ok(Connection {
            up,
            down: ReceiverStream::new(down).map(Ok).boxed(),
        })
    }
}

/// One direction of a connection: in order, late when a segment is lost, gone when the two are cut apart or a fault breaks it.
struct Wire {
    net: SimNet,
    from: String,
    to: String,
    agent: String,
    /// [`SimNet::broken`] when it was made.
    broken: u64,
}

impl Wire {
    async fn carry<T>(self, mut out: mpsc::Receiver<T>, into: mpsc::Sender<T>) {
        while let Some(message) = out.recv().await {
            match self.net.fate(&self.from, &self.to) {
                Fate::Arrives(after) => sleep(after).await,
                Fate::Lost => sleep(RESENT_AFTER).await,
                Fate::Cut => return,
            }
            let whole = self.net.broken(&self.agent) == self.broken;
            if !whole || into.send(message).await.is_err() {
                return;
            }
        }
    }
}
