//! `GET /reckon/v1/backup/base` and `/backup/events`: the files of a backup, for `reckon backup create` to put where its user keeps them.

use crate::archive::{SEGMENT_BYTES, pins};
use crate::http::{Call, Reply, past_error, unavailable};
use eventstore_disk::backup::Continue;
use kinds::error::StatusError;
use serde_json::json;

const FILE: &str = "application/octet-stream";

/// JSON says that there is nothing: no base is needed, no event is there yet.
pub(super) async fn serve(call: &Call, what: &str) -> Result<Reply, StatusError> {
    // All that was acknowledged before it was asked for is in the backup.
    call.core()
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    match what {
        "base" => {
            let from: Option<Continue> = match call.query.text("continue") {
                "" => None,
                text => Some(serde_json::from_str(text).map_err(|error| {
                    StatusError::bad_request(format!("continue names no page of a base: {error}"))
                })?),
            };
            Ok(
                match pins::base_page(call.core(), from)
                    .await
                    .map_err(past_error)?
                {
                    None => Reply::json(200, &json!({"needed": false})),
                    Some((_, page)) => Reply::new(200, FILE, page),
                },
            )
        }
        "events" => {
            let after = match call.query.text("after") {
                "" => 0,
                after => after.parse().map_err(|_| {
                    StatusError::bad_request(format!("after={after:?} is no revision"))
                })?,
            };
            let segment = pins::segment_after(call.core(), after, SEGMENT_BYTES);
            Ok(match segment.await.map_err(past_error)? {
                None => Reply::json(200, &json!({"after": after, "events": 0})),
                Some((_, file)) => Reply::new(200, FILE, file),
            })
        }
        _ => Err(StatusError::no_such_path()),
    }
}
