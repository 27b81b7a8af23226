//! How the inside of a server says no, in Kubernetes' words. One place, so that a cause has one code wherever it arises.

use crate::core::{ProposeError, TooLarge, Unavailable};
use eventstore::Rejection;
use eventstore_disk::{ReadError, StoreError};
use kinds::error::StatusError;

/// What a caller is told to wait before it asks a server again that has no leader.
const NO_LEADER_RETRY_S: u32 = 1;

pub(crate) fn propose(error: ProposeError) -> StatusError {
    match error {
        ProposeError::Rejected(rejection) => rejected(rejection),
        ProposeError::TooBusy { retry_after_s } => StatusError::too_many_requests(
            "too many proposals are waiting, please try again later",
            retry_after_s,
        ),
        ProposeError::TooLarge { bytes, most } => {
            StatusError::too_large(&format!("the change has {bytes} bytes, the most is {most}"))
        }
        ProposeError::NoRoom(why) => StatusError::insufficient_storage(why),
        ProposeError::Unavailable(why) => unavailable_for(&why),
        ProposeError::Unknown(id) => StatusError::timeout(
            &format!(
                "the outcome of this request is not known: it may have been done, or may still be; ask /reckon/v1/history?id={id} (Audit-Id {id})"
            ),
            0,
        ),
    }
}

/// A rejection that reading afresh does not cure.
fn rejected(rejection: Rejection) -> StatusError {
    match rejection {
        Rejection::TooOld { .. } => StatusError::timeout(
            "the request took so long that its outcome can no longer be told",
            0,
        ),
        rejection @ (Rejection::Expectation { .. }
        | Rejection::OtherTerm { .. }
        | Rejection::Fenced { .. }
        | Rejection::NotNow(_)) => unavailable_for(&rejection.to_string()),
    }
}

/// This server serves nobody: asking it again is of no use, and another will answer. `reckon` knows it by the cause's reason.
pub(crate) fn fenced(why: &str) -> StatusError {
    let mut error = StatusError::service_unavailable(why);
    error.details = serde_json::json!({"causes": [{"reason": "Diverged", "message": why}]});
    error
}

pub(crate) fn unavailable(error: &Unavailable) -> StatusError {
    unavailable_for(&error.to_string())
}

pub(crate) fn unavailable_for(why: &str) -> StatusError {
    let mut error = StatusError::service_unavailable(why);
    error.details = serde_json::json!({"retryAfterSeconds": NO_LEADER_RETRY_S});
    error
}

pub(crate) fn too_large(error: &TooLarge) -> StatusError {
    StatusError::too_large_resource_version(error.asked, error.current)
}

/// What a read of the past runs into.
pub(crate) fn past(error: ReadError) -> StatusError {
    match error {
        ReadError::Compacted { asked, horizon } => StatusError::expired(format!(
            "The resourceVersion for the provided request is too old: revision {asked} is before the horizon {horizon}"
        )),
        error @ ReadError::Lost { .. } => StatusError::expired(format!(
            "The resourceVersion for the provided request is too old: {error}"
        )),
        ReadError::FutureRevision { asked, current } => {
            StatusError::too_large_resource_version(asked, current)
        }
        ReadError::Store(error @ StoreError::TooMany { .. }) => {
            StatusError::too_many_requests(error.to_string(), NO_LEADER_RETRY_S)
        }
        // This disk's alone, so that another server is worth asking.
        ReadError::Store(error) if error.is_corrupt() => StatusError::internal(&format!(
            "{error}; 'reckon status' says what is to be done, and another server may have it whole"
        )),
        ReadError::Store(error) => StatusError::internal(&error.to_string()),
    }
}
