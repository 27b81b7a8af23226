//! The production code on a simulated network, disk and clock, from one seed.
//!
//! `sides` stands in for the seams; `cluster` starts and kills servers; `agents` are simulated nodes on simulated wires; `workload` is
//! what clients do; `faults` what goes wrong; `directed` scenes set by hand; `invariants` what must hold, one a file; `history` shows
//! them what the servers write; `run` is one seed from beginning to end. The same
//! seed gives the same log digest. Nothing here may be in the way of the production code: no part of a server is replaced.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation seeds tokio's own choices: build with --cfg tokio_unstable (.cargo/config.toml sets it; a RUSTFLAGS variable overrides it)"
);

mod agents;
mod cli;
mod cluster;
#[cfg(test)]
mod directed;
mod faults;
mod history;
pub mod invariants;
mod members;
mod planted;
mod run;
pub mod sides;
mod workload;

pub use cli::{SimulateArguments, simulate};
pub use faults::FaultCounts;
pub use planted::Planted;
pub use run::{Failure, Options, Report, run};
