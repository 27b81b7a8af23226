//! `GET /reckon/v1/verify`: checks every digest of this server's history. JSON lines: progress, and at the end the finding.

use crate::http::{Call, Reply};
use bytes::Bytes;
use eventstore_disk::VerifyError;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinds::error::StatusError;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Between two lines of progress, in revisions.
const PROGRESS_REVISIONS: u64 = 1_000;
/// Lines that may wait for a slow reader; more are left out, but never the last.
const LINES_MAX: usize = 64;

pub(super) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    let store = call.core().store().clone();
    let (sender, receiver) = mpsc::channel::<Value>(LINES_MAX);
    tokio::spawn(async move {
        let (from, to) = (store.horizon().max(1), store.view().revision);
        let progress = sender.clone();
        let mut told = 0;
        let found = store.verify(from..=to, |revision| {
            if revision >= told + PROGRESS_REVISIONS {
                told = revision;
                // A reader that lags misses a line of progress and nothing else.
                drop(progress.try_send(json!({"revision": revision, "of": to})));
            }
        });
        let last = match found {
            Ok(verified) => {
                json!({"ok": true, "events": verified.events, "versions": verified.versions, "revision": verified.revision, "digest": verified.digest.to_string()})
            }
            Err(VerifyError::Wrong { revision, what }) => {
                json!({"ok": false, "revision": revision, "what": what})
            }
            Err(VerifyError::Store(error)) => {
                json!({"ok": false, "revision": null, "what": error.to_string()})
            }
        };
        // Whoever asked may have gone.
        drop(sender.send(last).await);
    });
    let lines = futures::StreamExt::map(ReceiverStream::new(receiver), |line| {
        Ok(Frame::data(Bytes::from(format!("{line}\n"))))
    });
    Ok(Reply::stream(
        "application/json",
        StreamBody::new(lines).boxed_unsync(),
    ))
}
