//! Why a call of the log failed, as gRPC's codes. One place, as `http::errors` is for the API.

use crate::core::{ProposeError, Unavailable};
use eventstore::{Expected, Rejection};
use kinds::error::StatusError;
use tonic::Status;
use tonic::metadata::MetadataValue;
use uuid::Uuid;

/// Where a caller finds the id under which its request may have been done.
const AUDIT_ID: &str = "audit-id";

pub(super) fn no_such_key(key: &str) -> Status {
    Status::not_found(format!("there is no key {key:?}"))
}

/// Who may not call.
pub(super) fn refused(error: &StatusError) -> Status {
    match error.code {
        401 => {
            Status::unauthenticated("a client certificate of the group system:masters is needed")
        }
        400 => Status::invalid_argument(error.message.clone()),
        _ => Status::permission_denied(error.message.clone()),
    }
}

pub(super) fn unavailable(error: &Unavailable) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn propose(error: ProposeError, id: Uuid, key: &str) -> Status {
    let mut status = match error {
        // Only a deletion expects anything.
        ProposeError::Rejected(Rejection::Expectation {
            expected: Expected::Living,
            ..
        }) => no_such_key(key),
        ProposeError::Rejected(Rejection::TooOld { .. }) => Status::deadline_exceeded(
            "the request took so long that its outcome can no longer be told",
        ),
        ProposeError::Rejected(rejection) => Status::unavailable(rejection.to_string()),
        ProposeError::TooBusy { .. } => Status::resource_exhausted(
            "too many proposals are waiting and nothing was done; try again later",
        ),
        ProposeError::NoRoom(why) => Status::resource_exhausted(why),
        ProposeError::TooLarge { bytes, most } => {
            Status::invalid_argument(format!("the change has {bytes} bytes, the most is {most}"))
        }
        ProposeError::Unavailable(why) => Status::unavailable(why),
        ProposeError::Unknown(id) => Status::deadline_exceeded(format!(
            "the outcome of this request is not known: it may have been done, or may still be; ask /reckon/v1/history?id={id} (Audit-Id {id})"
        )),
    };
    if let Ok(text) = MetadataValue::try_from(id.to_string()) {
        status.metadata_mut().insert(AUDIT_ID, text);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn each_cause_has_its_code_and_names_the_request() {
        let id = Uuid::from_u128(7);
        let rejected = |expected| {
            ProposeError::Rejected(Rejection::Expectation {
                key: super::super::key("a"),
                expected,
                current: None,
            })
        };
        for (error, code, says) in [
            (
                ProposeError::TooBusy { retry_after_s: 1 },
                Code::ResourceExhausted,
                "nothing was done",
            ),
            (
                ProposeError::NoRoom("the disks are full".into()),
                Code::ResourceExhausted,
                "the disks are full",
            ),
            (
                ProposeError::Unavailable("no leader".into()),
                Code::Unavailable,
                "no leader",
            ),
            (
                ProposeError::Unknown(id),
                Code::DeadlineExceeded,
                "00000000-0000-0000-0000-000000000007",
            ),
            (
                ProposeError::TooLarge { bytes: 9, most: 8 },
                Code::InvalidArgument,
                "9 bytes",
            ),
            (rejected(Expected::Living), Code::NotFound, "no key \"a\""),
            (
                ProposeError::Rejected(Rejection::TooOld { first_sent: 1 }),
                Code::DeadlineExceeded,
                "so long",
            ),
            (
                ProposeError::Rejected(Rejection::NotNow("not founded".into())),
                Code::Unavailable,
                "not founded",
            ),
        ] {
            let status = propose(error, id, "a");
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(says), "{status}");
            let named = status.metadata().get(AUDIT_ID);
            assert_eq!(
                named.and_then(|id| id.to_str().ok()),
                Some("00000000-0000-0000-0000-000000000007")
            );
        }
    }
}
