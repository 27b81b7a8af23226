//! The log's language and its fold. Pure: no clock, no randomness, no I/O, and in `apply` no JSON.
//!
//! `proposal` is what someone asks for; `entry` is what one Raft log entry carries; `apply` checks expectations, stamps, and
//! folds what it accepts into `state`; `event` is what came of it: a committed fact, chained by `digest`.
//! This crate knows objects as a key, stamps and bytes. It must never learn what a pod is.

mod act;
mod apply;
mod body;
mod codec;
mod digest;
mod entry;
mod event;
mod key;
mod object;
mod outcome;
mod proposal;
mod replay;
mod retention;
mod state;
mod time;

pub use act::{Act, Change, Round, What};
pub use apply::{Applied, LevelTooHigh, namespace_of};
pub use body::{Body, BodyError};
pub use codec::{CodecError, DECODE_LIMIT, decode, encode, encode_large};
pub use digest::{Digest, Salt};
pub use entry::{Entry, Position};
pub use event::{ChangeRecord, Envelope, Event, Fold, Folded, Happened};
pub use key::{Key, Text};
pub use object::{Deletion, Object, Stamps};
pub use outcome::{Forgotten, Kept, Outcome, Outcomes, Rejection};
pub use proposal::{Actor, Cause, Expectation, Expected, Intent, Proposal, ProposalId};
pub use replay::{Archived, Beginning, Bodies, ReplayError, bodies_of};
pub use retention::{Horizons, Retention};
pub use state::{LEVEL, Session, State, View};
pub use time::Time;
