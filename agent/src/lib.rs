//! The node agent: assigned pods to containers, over CRI.
//!
//! What a server assigns comes in over one session (`session`, `link`, `dial`), a pure planner (`plan`) compares it with what a container
//! runtime shows, and a shell carries the difference out. `simulated` is the same protocol with nothing behind it.
//! This crate knows nothing of the log, of servers or of reconcilers.

pub mod cni;
pub mod containerd;
pub mod dial;
pub mod env;
pub mod images;
mod jitter;
pub mod link;
pub mod logs;
pub mod node;
pub mod objects;
pub mod outbox;
pub mod plan;
pub mod pod;
pub mod probes;
mod quantity;
mod run;
pub mod runtime;
pub mod session;
pub mod simulated;
pub mod status;
pub mod streams;
pub mod volumes;
pub mod worker;

use std::sync::Arc;

pub use dial::{Connection, Credentials, DialError, Dialer, TonicDialer};
pub use run::{AgentConfig, AgentError, StopMode, preflight, run};
pub use simulated::{SimulatedConfig, run_simulated, run_simulated_node};

/// The protocol: messages, and the client and server of `reckon.agent.v1.Agents`.
#[allow(clippy::all)]
pub mod proto {
    tonic::include_proto!("reckon.agent.v1");
}

pub type Timestamp = chrono::DateTime<chrono::Utc>;
/// Wall clock, for the times that are written into statuses. Waits are tokio's.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// As Kubernetes writes `metav1.Time`: RFC 3339, whole seconds, Z.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
