//! What a caller asks of `Core`, and how it is told no.

use super::Core;
use eventstore::{Act, Actor, Cause, Change, Event, Expectation, Intent, Rejection};
use uuid::Uuid;

/// One request of a caller: who, why, and the id under which it is done once.
#[derive(Clone, Debug)]
pub struct Request {
    /// The `Audit-Id` that the caller is told, and the proposal's id.
    pub audit_id: Uuid,
    pub actor: Actor,
    pub cause: Cause,
    /// Which try: raised after each rejection, so that a repetition is a proposal of its own.
    pub(crate) attempt: u32,
    /// Whether this try was never sent.
    pub(crate) is_new: bool,
    /// The index that this server had applied when it first sent the id.
    pub(crate) first_sent: u64,
}

impl Request {
    /// Goes on, after an event of this request, to the next: under the same id, as a try that was never sent, and caused by the one before.
    pub(crate) fn follow(&mut self, event: &Event, core: &Core) {
        self.attempt += 1;
        self.is_new = true;
        self.first_sent = core.store().position().index;
        self.cause.revision = event.revision();
    }
}

/// What is proposed: all of a proposal but who and why.
#[derive(Clone, Debug)]
pub struct Draft {
    pub intent: Intent,
    pub expectations: Vec<Expectation>,
    pub act: Act,
}

impl Draft {
    pub fn objects(intent: Intent, expectations: Vec<Expectation>, changes: Vec<Change>) -> Self {
        Self {
            intent,
            expectations,
            act: Act::Objects(changes),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Nothing changed. On `Rejection::Expectation` wait for `current`, read afresh, repeat; 409 at once when the caller named a version.
    #[error("{0}")]
    Rejected(Rejection),
    /// The leader's queue is full: HTTP 429.
    #[error("too many proposals are waiting; try again in {retry_after_s} s")]
    TooBusy { retry_after_s: u32 },
    /// The leader keeps what room there is for what keeps the cluster going; nothing was done. HTTP 507.
    #[error("{0}")]
    NoRoom(String),
    /// HTTP 413.
    #[error("the proposal has {bytes} bytes, the most is {most}")]
    TooLarge { bytes: usize, most: usize },
    /// No leader took it before the deadline; nothing was done. HTTP 503.
    #[error("{0}")]
    Unavailable(String),
    /// It was sent, and the outcome is not known: HTTP 504 that says so.
    #[error("the outcome of {0} is not known: it may have been done, or may still be")]
    Unknown(Uuid),
}

/// A linearizable read could not be confirmed in time: HTTP 503.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// The revision named is beyond this server's fold (Kubernetes: "Too large resource version").
#[derive(Debug, thiserror::Error)]
#[error("Too large resource version: {asked}, current: {current}")]
pub struct TooLarge {
    pub asked: u64,
    pub current: u64,
}
