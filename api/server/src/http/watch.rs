//! Watch: the changes of a resource as they happen, from any revision on.
//!
//! Served bytes are the stored ones. A selector turns changes into what its watcher sees: what begins to match is ADDED, what ceases to is
//! DELETED as it was last seen, at the revision of the change. A slow client is waited for: it holds one batch, and reads on from history.

use super::call::{Call, Target};
use super::errors;
use super::metrics::OpenWatch;
use super::negotiate::{Accept, Form};
use super::query::options_invalid;
use super::read;
use super::respond::{Reply, full};
use super::selection::Selection;
use crate::core::Core;
use bytes::{Bytes, BytesMut};
use eventstore::{Object, View};
use eventstore_disk::{Change, ReadError, Watch, WatchRequest};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinds::error::{FieldError, StatusError};
use kinds::table::{self, IncludeObject};
use serde_json::{Value, json};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

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
    let namespace = namespace.map(str::to_owned);
    let namespace = namespace.as_deref();
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
    let body = match call.core().store().watch(request) {
        Ok(watch) => {
            let until = Instant::now() + Duration::from_secs(timeout_s);
            let initial = plan
                .initial
                .then(|| what_there_is(&view, target, namespace));
            let feed = Feed {
                watch,
                selection,
                printer,
                initial: initial.unwrap_or_default().into_iter(),
                initial_ends: plan.marks_end.then_some(view.revision),
                taken: Vec::new().into_iter(),
                bookmark: plan.bookmarks.then(|| Box::pin(sleep(BOOKMARK_EVERY))),
                ends: Box::pin(ends(call.core().clone(), until)),
                over: false,
                core: call.core().clone(),
                _open: call.api.metrics().watch_opened(),
            };
            StreamBody::new(stream::unfold(feed, Feed::next)).boxed_unsync()
        }
        // Kubernetes says this inside the stream, and clients wait for it there.
        Err(error @ (ReadError::Compacted { .. } | ReadError::Lost { .. })) => {
            full(error_frame(&expired(&error, from)))
        }
        Err(error) => return Err(errors::past(error)),
    };
    Ok(Reply::stream("application/json", body))
}

/// What a watch begins with, if it begins with what there is.
fn what_there_is(view: &View, target: &Target, namespace: Option<&str>) -> Vec<Arc<Object>> {
    view.list(&target.kind.resource(), namespace)
        .cloned()
        .collect()
}

/// A watch's time is up, or this server serves nobody any more.
async fn ends(core: Core, until: Instant) {
    tokio::select! {
        () = sleep_until(until) => {}
        () = core.fence().stands() => {}
    }
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
    // What a watch needs to begin.
    let needs = match error {
        ReadError::Compacted { horizon, .. } => horizon.to_string(),
        other => other.to_string(),
    };
    StatusError::expired(format!("too old resource version: {from} ({needs})"))
}

/// What one watcher is sent, made as its connection asks for it: without a task or a queue of its own, a thousand of them cost little.
struct Feed {
    watch: Watch,
    selection: Selection,
    printer: Printer,
    /// What there is, to be sent as ADDED before anything else.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// The revision that a bookmark names behind it.
    initial_ends: Option<u64>,
    /// Taken from the store, and not yet sent.
    taken: std::vec::IntoIter<Arc<Change>>,
    /// When the next bookmark is due, for those who want them.
    bookmark: Option<Pin<Box<Sleep>>>,
    ends: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Its last word is said.
    over: bool,
    core: Core,
    _open: OpenWatch,
}

impl Feed {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        let bytes = self.bytes().await?;
        Some((Ok(Frame::data(bytes)), self))
    }

    /// What to send next; None when it is over.
    async fn bytes(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        loop {
            let bytes = self.pending();
            if !bytes.is_empty() {
                return Some(bytes);
            }
            tokio::select! {
                biased;
                () = &mut self.ends => return None,
                batch = self.watch.next_batch(BATCH_CHANGES) => match batch {
                    Ok(batch) => self.taken = batch.changes.into_iter(),
                    Err(error) => {
                        self.over = true;
                        return Some(error_frame(&match &error {
                            ReadError::Compacted { .. } => expired(&error, self.watch.cursor()),
                            _ => errors::past(error),
                        }));
                    }
                },
                () = due(&mut self.bookmark) => {
                    self.bookmark = Some(Box::pin(sleep(BOOKMARK_EVERY)));
                    if let Some(revision) = self.watch.bookmark() {
                        return Some(self.printer.bookmark(revision, false));
                    }
                }
            }
        }
    }

    /// A frame of what is there to be sent; empty when nothing is.
    fn pending(&mut self) -> Bytes {
        let mut pending = BytesMut::new();
        while pending.len() < FRAME_BYTES {
            if let Some(object) = self.initial.next() {
                if self.selection.matches(&object) {
                    self.printer
                        .event(&mut pending, "ADDED", &object, &self.core);
                }
            } else if let Some(revision) = self.initial_ends.take() {
                pending.extend_from_slice(&self.printer.bookmark(revision, true));
            } else if let Some(change) = self.taken.next() {
                if let Some((what, object)) = seen(&self.selection, &change) {
                    self.printer.event(&mut pending, what, &object, &self.core);
                }
            } else {
                break;
            }
        }
        pending.freeze()
    }
}

/// Waits for a bookmark's time; for ever where none is wanted.
async fn due(bookmark: &mut Option<Pin<Box<Sleep>>>) {
    match bookmark {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

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
    fn event(&mut self, into: &mut BytesMut, what: &str, object: &Object, core: &Core) {
        let kind = self.target.kind;
        match self.accept.form {
            Form::Whole => frame(into, what, &object.bytes),
            Form::Partial => {
                let value = object.to_value();
                let partial = table::partial(&value);
                frame(into, what, partial.to_string().as_bytes());
            }
            Form::Table => {
                let value = object.to_value();
                let columns = std::mem::take(&mut self.with_columns);
                let table = table::table(
                    kind,
                    [&value],
                    table::single_metadata(&value),
                    self.include,
                    columns,
                    core.now().ms(),
                );
                frame(into, what, table.to_string().as_bytes());
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
        one("BOOKMARK", &object)
    }
}

fn error_frame(error: &StatusError) -> Bytes {
    one("ERROR", &error.to_value())
}

/// A frame that is sent alone.
fn one(what: &str, object: &Value) -> Bytes {
    let mut bytes = BytesMut::new();
    frame(&mut bytes, what, object.to_string().as_bytes());
    bytes.freeze()
}

/// `{"type":"ADDED","object":{…}}` and a line's end.
fn frame(into: &mut BytesMut, what: &str, object: &[u8]) {
    into.reserve(object.len() + 32);
    into.extend_from_slice(b"{\"type\":\"");
    into.extend_from_slice(what.as_bytes());
    into.extend_from_slice(b"\",\"object\":");
    into.extend_from_slice(object);
    into.extend_from_slice(b"}\n");
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
