//! Backups: history as files. A segment holds events with their bodies, in order; a base holds what lived where the segments begin, if
//! that is not the cluster's founding. Together they make a database again (`Loader`), event by event, each checked.
//!
//! These are bytes; where they lie is for others. A file carries a checksum of all of it, and its head says which events it has and the
//! chain's digest before and after them, so that files can be put in a row, and checked, without being read whole.

mod base;
mod file;
mod load;
mod segment;

pub use base::{Base, BaseHead, Continue};
pub use file::FileError;
pub use load::{LoadError, Loader};
pub use segment::{Segment, SegmentHead};
