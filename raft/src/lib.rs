//! Consensus as a service: openraft behind a facade.
//!
//! A [`Node`] is one server's part in a replicated log. It carries bytes and knows nothing of what they mean: committed
//! entries go to a [`Machine`] that the layer above brings along, and everything outside (disk, network, clock, threads,
//! randomness) comes through [`seams::Seams`]. Nothing of openraft appears in the public interface, so that the layer
//! above depends on these words alone.
//!
//! What is acknowledged is on the synced disks of a majority. Nothing here may acknowledge sooner, apply what is not
//! committed, or read a wall clock for anything but to steer the log's clock.

// The tests' machine is written for users of this crate, and serves the unit tests too.
#[cfg(test)]
extern crate self as raft;

mod append;
mod clock;
mod codec;
mod commits;
mod durations;
mod election;
mod identity;
mod incoming;
mod log_store;
mod machine;
mod membership;
mod node;
mod offline;
mod publisher;
mod read;
mod rebuild;
mod runtime;
mod snapshot;
mod status;
mod timekeeper;
mod transport;
mod types;

pub use append::{APPENDS_BYTES_MAX, APPENDS_MAX, AppendError, ENTRY_BYTES_MAX};
pub use durations::{Counted, Durations};
pub use machine::{Applied, Committed, Machine, MachineError};
pub use membership::{ChangeError, LAG_MAX, MemberStanding, Standing};
pub use node::{Measured, Node, NodeConfig, StartError, Timings, TransferError};
pub use offline::{Offline, WhoseDisk, begin_alone};
pub use read::ReadError;
pub use rebuild::how_to_rebuild;
pub use status::{Role, Status};
pub use types::{Member, NodeId, Position};
