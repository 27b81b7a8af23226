//! The scheduler and the controllers, pure.
//!
//! `world` is the one projection they share; `reconciler` is what each of them is; `due` says which keys have to be decided;
//! `round` decides them. The shell (the server's leader loop) folds events, runs a round, proposes what it says, waits until that is
//! applied, and folds again. Nothing here reads a clock, a file, a socket or a random number: Cargo.toml, clippy.toml and a test hold that.

mod change;
mod claim;
mod conditions;
mod config;
mod deployment;
mod due;
mod endpoint_slice;
mod event_retention;
mod events;
mod garbage;
mod namespace;
mod node_health;
mod pod_garbage;
mod reconciler;
mod replica_set;
mod round;
mod scheduler;
mod service_account;
mod taint_eviction;
mod template;
mod world;

pub use config::{Config, all};
pub use due::Due;
pub use reconciler::{Decision, Draft, Reconciler, RoundState, Waiting, Wakes};
pub use round::{Decided, LOGIC, Limits, RoundOutcome, run_round};
pub use world::{
    Deployment, EndpointSlice, EventView, HostPort, IntOrPercent, Kind, Meta, Namespace, Node,
    NodeTerm, NodeUse, Operator, Owner, Phase, Pod, PodPhase, PortUse, PreferredTerm, ReplicaSet,
    Requirement, Resources, Selector, Service, ServicePort, Strategy, Taint, TargetPort, Thing,
    Toleration, Touched, World,
};
