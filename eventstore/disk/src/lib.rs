//! History on disk, watches, reads of the past: the event store of one server.
//!
//! `eventstore` is the fold; this crate keeps it. A `Store` applies groups of entries, writes each group as one batch together with the
//! position it brings the database to, and only then publishes what came of it: the new `View`, the outcomes to those who wait for
//! them, the events to watches. Nothing is seen that is not written, and nothing is half written.
//!
//! Current objects live in memory. What ever was lies in one ordered database (`layout` names the keys), so that an object as of any
//! revision is a seek and a watch can go on from any revision. The database has no log of its own: after a crash it is some earlier
//! moment, and the Raft log replays the rest.
//!
//! It must never read a clock, draw randomness, or serve a record whose checksum is wrong.

pub mod backup;
mod config;
mod current;
mod error;
mod history;
mod key_sets;
mod layout;
mod living;
mod open;
mod outcomes;
mod pace;
mod past;
mod prune;
mod publish;
mod record;
mod ring;
mod settle;
mod status;
mod store;
mod verify;
mod wait;
mod watch;
mod write;

pub use config::StoreConfig;
pub use error::{ReadError, StoreError};
pub use history::Recorded;
pub use past::{Page, Version};
pub use prune::Pruned;
pub use settle::{Expecting, Settled};
pub use status::Status;
pub use store::{Retired, Store};
pub use verify::{Verified, VerifyError};
pub use wait::Progress;
pub use watch::{Change, ChangeKind, Events, Watch, WatchBatch, WatchRequest};
