//! What can go wrong. `StoreError` is the server's: I/O, corruption, a log that must not be applied here. `ReadError` adds what is the
//! caller's own: a revision that is gone, or not there yet.

use eventstore::{CodecError, LevelTooHigh, Position};
use seams::DiskError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A record is not what was written. `what` names it: an object's key and revision, an event's revision.
    #[error("database {database}: {what}: corrupt: {detail}")]
    Corrupt {
        database: String,
        what: String,
        detail: String,
    },
    /// A committed entry that this program cannot read.
    #[error("entry {}.{}: {error}", position.term, position.index)]
    Entry {
        position: Position,
        error: CodecError,
    },
    #[error(transparent)]
    Level(#[from] LevelTooHigh),
    #[error("given position {}.{}, while {}.{} is applied", given.term, given.index, applied.term, applied.index)]
    OutOfOrder { applied: Position, given: Position },
    /// An earlier write failed or was cut short; whether it happened is open. The store reads on, and writes once it is opened again.
    #[error("an earlier write did not end well ({0}); the store must be opened again")]
    Broken(String),
    #[error("more than {limit} {what} wait already")]
    TooMany { what: &'static str, limit: usize },
}

impl StoreError {
    /// What was read is not what was written.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Disk(error) => error.is_corrupt(),
            Self::Entry { .. }
            | Self::Level(_)
            | Self::OutOfOrder { .. }
            | Self::Broken(_)
            | Self::TooMany { .. } => false,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// History before the horizon was removed: what is asked for would start with a change that is gone.
    #[error("revision {asked} is before the horizon {horizon}: its history was removed")]
    Compacted { asked: u64, horizon: u64 },
    /// A cluster that this one was made of may have given it out, for what its backup missed: what was so then is not known here.
    #[error(
        "revision {asked} is of what the cluster before may have had beyond its backup, which ends at revision {ends}: it is lost"
    )]
    Lost { asked: u64, ends: u64 },
    #[error("revision {asked} is in the future: this server is at {current}")]
    FutureRevision { asked: u64, current: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DiskError> for ReadError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.into())
    }
}
