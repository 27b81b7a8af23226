//! One server: the Kubernetes API over the event store, and the leader's loop.
//!
//! `core` puts raft and the event store together: propose, read, watch, without sockets. `http` is the front door: it authenticates,
//! authorizes, admits and proposes. `leader` runs the reconcilers while this server leads. `agents` holds the agents' sessions.
//! `log` is the plain key-value interface. `timetravel` reads the past. `divergence` compares the servers' digests, `room` looks after the disks, `damage` says what is to be done about one that lost something. `members` lets servers come and go. `offline` is for a server that does not run. `server` opens the listener and starts all of it.

pub mod agents;
pub mod archive;
pub mod authority;
mod calls;
mod coalesce;
pub mod config;
pub mod core;
mod damage;
mod divergence;
mod found;
pub mod http;
pub mod leader;
mod level;
pub mod log;
mod members;
pub mod offline;
mod peers;
mod read_ahead;
mod retention;
mod room;
pub mod server;
pub mod timetravel;
mod tls;

pub use config::Config;
pub use core::Tamper;
pub use server::run;

/// Of every process that a server runs in, simulated ones too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
