//! The seams: everything a server touches outside its own memory, as traits, with their real sides.
//!
//! A simulation runs the production code on other sides of the same traits: an ordered map in place of RocksDB, queues
//! in place of sockets, a counter in place of the wall clock. That only works if no code above goes round them, so a
//! server is started with one [`Seams`] and gets the outside from nowhere else. Tasks, sleep and monotonic time are
//! tokio's own: a paused clock and a seeded current-thread runtime make them repeatable already.
//!
//! A trait is added here only if the simulation must stand in for what it hides.

mod clock;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
mod damage;
mod directory;
mod disk;
mod entropy;
mod journal;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod network;
mod rocks;
mod runtime;
mod strand;
mod tonic;

pub use clock::{Clock, SystemClock};
pub use damage::{Damages, noting};
pub use directory::FileDirectory;
pub use disk::{
    Batch, Directory, Disk, DiskError, DiskOptions, FileInfo, Operation, Order, Pair, Pairs, Range,
    Reader, Room, Statistics, Synced,
};
pub use entropy::{Entropy, SystemEntropy};
#[cfg(any(test, feature = "testing"))]
pub use memory::{MemoryHub, MemoryNetwork};
pub use network::{
    ByteStream, Handler, MESSAGE_BYTES_MAX, Network, NetworkError, Peer, PeerIdentity, Refusal,
    RefusalCode,
};
pub use runtime::{
    Job, Runtime, ThreadRuntime, WORKER_JOBS_MAX, Worker, WorkerError, blocking, run,
};
pub use strand::{Joined, Strand, TaskError, spawn};
pub use tonic::{PEER_PATH_PREFIX, PeerService, PeerTls, TonicNetwork};

use std::sync::Arc;

/// All that a server gets from outside.
#[derive(Clone)]
pub struct Seams {
    pub directory: Arc<dyn Directory>,
    pub network: Arc<dyn Network>,
    pub clock: Arc<dyn Clock>,
    pub runtime: Arc<dyn Runtime>,
    pub entropy: Arc<dyn Entropy>,
    /// Where the log's tasks run.
    pub strand: Strand,
}
