//! The one loop that every change goes through: read, plan, propose, and again when the log says that something moved.
//!
//! A plan is made from a view and names the revisions it read as expectations. A rejection means that this server's own fold is
//! already past it (the answer came from there), so reading afresh is reading the view again. What ends without a proposal (not found,
//! already exists, nothing to change) has nothing that the log could check: it is confirmed once by a linearizable view first, or a server that
//! lags would answer for a moment that is over.

use super::Call;
use super::call::Target;
use super::errors;
use super::negotiate::{Encoding, body_encoding, is_protobuf};
use super::respond::Shown;
use crate::core::{Draft, ProposeError};
use eventstore::{Body, Event, Expectation, Expected, Key, Rejection, View};
use kinds::error::StatusError;
use kinds::kind::Kind;
use kinds::schema::decode::{self, FieldValidation};
use kinds::schema::{Schema, defaults};
use serde_json::{Value, json};
use std::sync::Arc;

#[cfg(test)]
mod at_once;

/// Repetitions of one request: each is a proposal that somebody else's was accepted before.
const ATTEMPTS_MAX: u32 = 200;

/// What is to be done, found from one view.
pub(crate) enum Plan<T> {
    /// Nothing to propose: a dry run, or no change.
    Done(T),
    Propose(Draft, T),
}

/// Makes plans until one is accepted, nothing is left to do, or time is up. Gives the event, if there is one, and what the plan carries.
pub(crate) async fn settle<T>(
    call: &Call,
    mut plan: impl FnMut(&View) -> Result<Plan<T>, StatusError>,
) -> Result<(Option<Arc<Event>>, T), StatusError> {
    let core = call.core();
    let mut view = core.view();
    let mut confirmed = false;
    for _ in 0..ATTEMPTS_MAX {
        let (draft, carried) = match plan(&view) {
            Ok(Plan::Propose(draft, carried)) => (draft, carried),
            ended => {
                if !confirmed && depends_on_state(&ended) {
                    confirmed = true;
                    let fresh = core
                        .linearizable(call.deadline)
                        .await
                        .map_err(|error| errors::unavailable(&error))?;
                    if fresh.revision != view.revision {
                        view = fresh;
                        continue;
                    }
                }
                return match ended? {
                    Plan::Done(carried) => Ok((None, carried)),
                    Plan::Propose(..) => unreachable!("a plan to propose was taken above"),
                };
            }
        };
        let mut request = call.request();
        let proposed = core.propose(&mut request, draft, call.deadline).await;
        call.put_request(request);
        match proposed {
            Ok(event) => return Ok((Some(event), carried)),
            Err(ProposeError::Rejected(Rejection::Expectation { .. })) => view = core.view(),
            Err(error) => return Err(errors::propose(error)),
        }
    }
    Err(StatusError::too_many_requests(
        "the object changes faster than this request could be applied, please try again",
        1,
    ))
}

/// What a body alone decides needs no confirmation.
fn depends_on_state<T>(ended: &Result<Plan<T>, StatusError>) -> bool {
    !matches!(ended, Err(error) if matches!(error.code, 400 | 406 | 413 | 415))
}

/// The version of a key that an event left.
pub(crate) fn after(event: &Event, key: &Key) -> Option<Shown> {
    event
        .objects
        .iter()
        .rev()
        .find(|folded| folded.key == *key)?
        .after
        .clone()
        .map(Shown::Stored)
}

/// A request's body as an object of the kind, in canonical form, and the warnings.
pub(crate) fn decode_body(
    call: &Call,
    schema: &'static Schema,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), StatusError> {
    let content_type = call.content_type();
    if is_protobuf(&content_type) {
        return decode::decode(schema, decode::Body::Protobuf(&call.body), validation);
    }
    let body = match body_encoding(&content_type)? {
        Encoding::Json => decode::Body::Json(&call.body),
        Encoding::Yaml => decode::Body::Yaml(&call.body),
    };
    decode::decode(schema, body, validation)
}

/// The schema of a kind's objects.
pub(crate) fn schema_of(kind: &Kind) -> &'static Schema {
    Schema::of(kind.schema).expect(
        "every row of the table of kinds names a schema that there is: a test of the table says so",
    )
}

/// What Kubernetes fills in on every decode.
pub(crate) fn default(kind: &Kind, object: &mut Value) {
    defaults::default(schema_of(kind), object);
    (kind.hooks.default)(object);
}

/// The body's namespace is the path's, or becomes it.
pub(crate) fn put_in_namespace(target: &Target, object: &mut Value) -> Result<(), StatusError> {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    if !target.kind.namespaced {
        metadata.shift_remove("namespace");
        return Ok(());
    }
    let own = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !own.is_empty() && own != target.namespace {
        return Err(StatusError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata.insert("namespace".into(), json!(target.namespace));
    Ok(())
}

/// The body's name is the path's.
pub(crate) fn check_name(target: &Target, object: &Value) -> Result<(), StatusError> {
    match object["metadata"]["name"].as_str().unwrap_or_default() {
        "" => Err(StatusError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            target.name
        ))),
        name if name != target.name => Err(StatusError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        ))),
        _ => Ok(()),
    }
}

/// The object as it goes into the log.
pub(crate) fn cut(object: &Value) -> Result<Body, StatusError> {
    Body::cut(object).map_err(|error| StatusError::internal(&error.to_string()))
}

pub(crate) fn expect(key: Key, is: Expected) -> Expectation {
    Expectation { key, is }
}

/// What a dry run shows of an object that would be made: stamped, but without a revision.
pub(crate) fn as_if_made(call: &Call, mut object: Value) -> Shown {
    let (uid, now) = (call.core().draw().uuid(), call.core().now());
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("resourceVersion");
        metadata.insert("uid".into(), json!(uid));
        metadata.insert("creationTimestamp".into(), json!(now.to_string()));
    }
    Shown::Made(object)
}
