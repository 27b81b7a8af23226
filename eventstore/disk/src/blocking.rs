//! Reads of the disk from async code.
//!
//! A seek takes microseconds from the cache and milliseconds from the disk, and a list of the past takes thousands of them. On a
//! runtime of many threads the others' tasks are moved away first; on the simulation's single thread the work runs where it is.

use tokio::runtime::{Handle, RuntimeFlavor};

pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        Ok(_) | Err(_) => work(),
    }
}
