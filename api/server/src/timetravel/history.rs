//! `GET /reckon/v1/history`: an object's changes, newest first; or what came of a request by its Audit-Id. `…/events`: all events.

use super::item::{self, Restores};
use super::{named, number};
use crate::http::{Call, Reply, past_error, unavailable};
use eventstore::{Envelope, Happened, Key, Outcome, ProposalId};
use kinds::error::StatusError;
use serde_json::{Value, json};
use uuid::Uuid;

const LIMIT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;

/// `?resource=&namespace=&name=[&limit=&before=]`, or `?id=`.
pub(super) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    call.core()
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    let id = call.query.text("id");
    if !id.is_empty() {
        return outcome(call, id);
    }
    let (_, key) = named(call)?;
    of_key(call, &key)
}

/// An object's changes.
pub(crate) fn of_key(call: &Call, key: &Key) -> Result<Reply, StatusError> {
    let limit = limit(call)?;
    let versions = call
        .core()
        .store()
        .history(key, number(call, "before")?, limit)
        .map_err(past_error)?;
    let envelopes = versions.iter().map(|version| &version.event.envelope);
    let restores = restores(call, envelopes)?;
    let items: Vec<Value> = versions
        .iter()
        .map(|version| {
            item::with_change(
                restores.item(&version.event.envelope),
                key,
                version.revision,
                version.before.as_deref(),
                version.after.as_deref(),
            )
        })
        .collect();
    Ok(Reply::json(200, &json!({"items": items})))
}

/// `?from=&to=&limit=`: events in order, each with the keys it changed.
pub(super) async fn events(call: &Call) -> Result<Reply, StatusError> {
    let view = call
        .core()
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    let from = number(call, "from")?
        .unwrap_or(1)
        .max(call.core().store().horizon());
    let to = number(call, "to")?.unwrap_or(view.revision);
    let recorded = call
        .core()
        .store()
        .recorded(from..=to, limit(call)?)
        .map_err(past_error)?;
    let restores = restores(call, recorded.iter().map(|event| &event.envelope))?;
    let items: Vec<Value> = recorded
        .iter()
        .map(|event| {
            let mut item = restores.item(&event.envelope);
            item.insert("digest".into(), json!(event.digest.to_string()));
            if let Happened::Objects(records) = &event.envelope.happened {
                let keys: Vec<String> = records
                    .iter()
                    .filter(|record| !record.key.hidden())
                    .map(|record| record.key.to_string())
                    .collect();
                item.insert("keys".into(), json!(keys));
            }
            Value::Object(item)
        })
        .collect();
    Ok(Reply::json(
        200,
        &json!({"items": items, "revision": view.revision}),
    ))
}

fn restores<'a>(
    call: &Call,
    envelopes: impl Iterator<Item = &'a Envelope>,
) -> Result<Restores, StatusError> {
    let store = call.core().store();
    Restores::among(store, envelopes).map_err(|error| past_error(error.into()))
}

fn limit(call: &Call) -> Result<usize, StatusError> {
    Ok(number(call, "limit")?.unwrap_or(LIMIT).clamp(1, LIMIT_MAX) as usize)
}

/// What came of the last try of a request that is still known.
fn outcome(call: &Call, id: &str) -> Result<Reply, StatusError> {
    let uuid = Uuid::parse_str(id)
        .map_err(|_| StatusError::bad_request(format!("{id:?} is no Audit-Id")))?;
    // The event is not read: it may be past the horizon, and the outcome is known all the same.
    let known = call.core().store().outcomes_of(&[uuid].into(), 0);
    let known = known.map_err(|error| past_error(error.into()))?;
    // A restore may have made several events.
    let revisions: Vec<u64> = known
        .values()
        .filter_map(|outcome| match outcome {
            Outcome::Accepted { last, .. } => Some(*last),
            Outcome::Rejected(_) => None,
        })
        .collect();
    let last = known.into_iter().next_back();
    let (ProposalId { attempt, .. }, outcome) = last.ok_or_else(|| {
        StatusError::new(404, "NotFound", format!("nothing is known of request {id}: it changed nothing, or was longer ago than outcomes are kept"), Value::Null)
    })?;
    let mut told = match outcome {
        Outcome::Accepted { first, last } => {
            json!({"id": id, "attempt": attempt, "outcome": "accepted", "first": first, "revision": last})
        }
        Outcome::Rejected(rejection) => {
            json!({"id": id, "attempt": attempt, "outcome": "rejected", "why": rejection.to_string()})
        }
    };
    told["revisions"] = json!(revisions);
    Ok(Reply::json(200, &told))
}
