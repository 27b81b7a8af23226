//! Watch: the changes of a resource as they happen, from any revision on.
//!
//! Served bytes are the stored ones. A selector turns changes into what its watcher sees: what begins to match is ADDED, what ceases to is
//! DELETED as it was last seen, at the revision of the change. A slow client is waited for: it holds one batch, and reads on from history.

use super::call::{Call, Target};
use super::errors;
use super::negotiate::{Accept, Form};
use super::query::options_invalid;
use super::read;
use super::respond::{Reply, in_form};
use super::selection::Selection;
use bytes::{Bytes, BytesMut};
use eventstore::{Object, View};
use eventstore_disk::{Change, ReadError, Watch, WatchRequest};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinds::error::{FieldError, StatusError};
use kinds::table::{self, IncludeObject};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

#[cfg(test)]
mod slow_watchers;

/// A watch that names no end is ended after this long, and up to as long again (Kubernetes: `min-request-timeout`), so that clients spread.
const TIMEOUT_S: u64 = 1_800;
/// Between two bookmarks for those who want them.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Changes taken from the store at once.
const BATCH_CHANGES: usize = 256;
/// A frame is sent when it has grown to this.
const FRAME_BYTES: usize = 64 << 10;
/// Frames that may wait for the client.
const FRAMES_MAX: usize = 4;

pub(crate) async fn serve(call: &Call, target: &Target) -> Result<Reply, StatusError> {
    let accept = call.accept()?;
    let include = call.include()?;
    let selection = Selection::read(&call.query, target)?;
    let plan = Plan::read(call)?;
    let timeout_s = match call.query.integer("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => seconds.unsigned_abs(),
        _ => TIMEOUT_S + call.core().draw().below(TIMEOUT_S),
    };
    let view = read::view(call, plan.revision).await?;
    let from = if plan.initial {
        view.revision
    } else {
        plan.revision
            .filter(|revision| *revision > 0)
            .unwrap_or(view.revision)
    };
    let namespace = match target.namespace.as_str() {
        "" => selection.namespace(),
        namespace => Some(namespace),
    };
    let request = WatchRequest {
        resource: target.kind.resource().into(),
        namespace: namespace.filter(|_| target.kind.namespaced).map(Into::into),
        name: selection.name().map(Into::into),
        from,
    };
    let printer = Printer {
        accept,
        target: target.clone(),
        include,
        with_columns: true,
    };
    let (sender, receiver) = mpsc::channel(FRAMES_MAX);
    let until = Instant::now() + Duration::from_secs(timeout_s);
    match call.core().store().watch(request) {
        Ok(watch) => {
            let initial = plan.initial.then_some(view);
            let feed = Feed {
                watch,
                selection,
                printer,
                sender,
                until,
                bookmarks: plan.bookmarks,
                marks_end: plan.marks_end,
                core: call.core().clone(),
            };
            let open = call.api.metrics().watch_opened();
            tokio::spawn(async move {
                feed.run(initial).await;
                drop(open);
            });
        }
        Err(error @ ReadError::Compacted { .. }) => {
            // Kubernetes says this inside the stream, and clients wait for it there.
            let frame = frame(
                "ERROR",
                &expired(&error, from).to_value().to_string().into(),
            );
            drop(sender.try_send(frame));
        }
        Err(error) => return Err(errors::past(error)),
    }
    let frames = futures::StreamExt::map(ReceiverStream::new(receiver), |bytes| {
        Ok(Frame::data(bytes))
    });
    Ok(Reply::stream(
        "application/json",
        StreamBody::new(frames).boxed_unsync(),
    ))
}

/// Where a watch begins.
struct Plan {
    /// None: everything acknowledged so far.
    revision: Option<u64>,
    /// It begins with what there is.
    initial: bool,
    bookmarks: bool,
    /// A bookmark says where what there is ends.
    marks_end: bool,
}

impl Plan {
    fn read(call: &Call) -> Result<Self, StatusError> {
        let asked = call
            .query
            .get("sendInitialEvents")
            .map(|_| call.query.flag("sendInitialEvents"));
        check_match(asked.is_some(), call.query.text("resourceVersionMatch"))?;
        let revision = read::revision(call)?;
        let initial = asked.unwrap_or(matches!(revision, None | Some(0)));
        let bookmarks = call.query.flag("allowWatchBookmarks");
        Ok(Self {
            revision,
            initial,
            bookmarks,
            marks_end: asked == Some(true) && bookmarks,
        })
    }
}

fn check_match(asks_for_initial: bool, matching: &str) -> Result<(), StatusError> {
    let path = "resourceVersionMatch";
    let error = match (asks_for_initial, matching) {
        (true, "NotOlderThan") | (false, "") => return Ok(()),
        (true, "" | "Exact") => FieldError::forbidden(
            path,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (true, other) => FieldError::not_supported(path, other, &["NotOlderThan"]),
        (false, _) => FieldError::forbidden(
            path,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    };
    Err(options_invalid("ListOptions", &[error]))
}

fn expired(error: &ReadError, from: u64) -> StatusError {
    let horizon = if let ReadError::Compacted { horizon, .. } = error {
        *horizon
    } else {
        0
    };
    StatusError::expired(format!("too old resource version: {from} ({horizon})"))
}

/// One watcher's task.
struct Feed {
    watch: Watch,
    selection: Selection,
    printer: Printer,
    sender: mpsc::Sender<Bytes>,
    until: Instant,
    bookmarks: bool,
    marks_end: bool,
    core: crate::core::Core,
}

impl Feed {
    async fn run(mut self, initial: Option<View>) {
        if let Some(view) = initial
            && self.send_initial(&view).await.is_err()
        {
            return;
        }
        let mut bookmark_at = Instant::now() + BOOKMARK_EVERY;
        loop {
            let sent = tokio::select! {
                biased;
                () = self.sender.closed() => return,
                () = sleep_until(self.until) => return,
                () = self.core.fence().stands() => return,
                batch = self.watch.next_batch(BATCH_CHANGES) => match batch {
                    Ok(batch) => self.send_changes(&batch.changes).await,
                    Err(error) => {
                        let status = match &error {
                            ReadError::Compacted { .. } => expired(&error, self.watch.cursor()),
                            _ => errors::past(error),
                        };
                        drop(self.sender.send(frame("ERROR", &status.to_value().to_string().into())).await);
                        return;
                    }
                },
                () = sleep_until(bookmark_at), if self.bookmarks => {
                    bookmark_at = Instant::now() + BOOKMARK_EVERY;
                    match self.watch.bookmark() {
                        Some(revision) => self.send(self.printer.bookmark(revision, false)).await,
                        None => Ok(()),
                    }
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// What there is, as ADDED.
    async fn send_initial(&mut self, view: &View) -> Result<(), Gone> {
        let namespace =
            Some(self.printer.target.namespace.clone()).filter(|namespace| !namespace.is_empty());
        let namespace = namespace.or_else(|| self.selection.namespace().map(str::to_owned));
        let mut pending = BytesMut::new();
        // The view is a value of its own: what changes meanwhile comes by the watch.
        for object in view.list(&self.printer.target.kind.resource(), namespace.as_deref()) {
            if self.selection.matches(object) {
                pending.extend_from_slice(&self.printer.event(
                    "ADDED",
                    object,
                    self.core.now().ms(),
                ));
            }
            if pending.len() >= FRAME_BYTES {
                self.send(pending.split().freeze()).await?;
            }
        }
        if self.marks_end {
            pending.extend_from_slice(&self.printer.bookmark(view.revision, true));
        }
        self.send(pending.freeze()).await
    }

    async fn send_changes(&mut self, changes: &[Arc<Change>]) -> Result<(), Gone> {
        let mut pending = BytesMut::new();
        for change in changes {
            if let Some((what, object)) = seen(&self.selection, change) {
                pending.extend_from_slice(&self.printer.event(what, &object, self.core.now().ms()));
            }
            if pending.len() >= FRAME_BYTES {
                self.send(pending.split().freeze()).await?;
            }
        }
        self.send(pending.freeze()).await
    }

    /// Waits until the client has room, or its time is up.
    async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        match tokio::time::timeout_at(self.until, self.sender.send(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// The client is, or its time is up.
struct Gone;

/// What a change looks like through a selection.
fn seen(selection: &Selection, change: &Change) -> Option<(&'static str, Arc<Object>)> {
    let matches = |version: &Option<Arc<Object>>| {
        version
            .as_ref()
            .filter(|object| selection.is_empty() || selection.matches(object))
            .cloned()
    };
    match (matches(&change.before), matches(&change.after)) {
        (None, Some(after)) => Some(("ADDED", after)),
        (Some(_), Some(after)) => Some(("MODIFIED", after)),
        // It went: all who watch share the one copy.
        (Some(_), None) if change.after.is_none() => Some(("DELETED", change.object().clone())),
        (Some(before), None) => Some(("DELETED", Arc::new(before.at_revision(change.revision)))),
        (None, None) => None,
    }
}

struct Printer {
    accept: Accept,
    target: Target,
    include: IncludeObject,
    /// The first table of a watch has the columns.
    with_columns: bool,
}

impl Printer {
    fn event(&mut self, what: &str, object: &Arc<Object>, now_ms: i64) -> Bytes {
        let kind = self.target.kind;
        match self.accept.form {
            Form::Whole => frame(what, &object.bytes),
            Form::Partial => frame(
                what,
                &in_form(
                    Form::Partial,
                    kind,
                    &object.to_value(),
                    self.include,
                    now_ms,
                )
                .to_string()
                .into(),
            ),
            Form::Table => {
                let value = object.to_value();
                let columns = std::mem::take(&mut self.with_columns);
                let table = table::table(
                    kind,
                    [&value],
                    table::single_metadata(&value),
                    self.include,
                    columns,
                    now_ms,
                );
                frame(what, &table.to_string().into())
            }
        }
    }

    fn bookmark(&self, revision: u64, ends_initial: bool) -> Bytes {
        let kind = self.target.kind;
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.accept.form {
            Form::Whole => {
                json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
            }
            Form::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": Value::Null, "rows": []})
            }
        };
        frame("BOOKMARK", &object.to_string().into())
    }
}

/// `{"type":"ADDED","object":{…}}` and a line's end.
fn frame(what: &str, object: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(object.len() + 32);
    bytes.extend_from_slice(b"{\"type\":\"");
    bytes.extend_from_slice(what.as_bytes());
    bytes.extend_from_slice(b"\",\"object\":");
    bytes.extend_from_slice(object);
    bytes.extend_from_slice(b"}\n");
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_events_need_a_match_and_a_match_needs_initial_events() {
        let rows = [
            (false, "", 0),
            (true, "NotOlderThan", 0),
            (true, "", 422),
            (true, "Exact", 422),
            (true, "Newer", 422),
            (false, "NotOlderThan", 422),
        ];
        for (asks, matching, code) in rows {
            assert_eq!(
                check_match(asks, matching).map_or_else(|error| error.code, |()| 0),
                code,
                "{asks} {matching}"
            );
        }
    }
}
