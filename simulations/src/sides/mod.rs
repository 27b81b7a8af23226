//! The simulated sides of the seams: a disk, a network, a clock, a runtime and randomness that one seed determines.

mod chance;
mod clock;
mod disk;
mod network;
mod runtime;

pub use chance::Chance;
pub use clock::{EPOCH_MS, SimClock};
pub use disk::{DiskCounts, DiskFaults, EMPTY, SimDisks};
pub use network::{Fate, NetCounts, SimNet, SimPlug, Weather};
pub use runtime::SimRuntime;
