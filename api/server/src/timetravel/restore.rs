//! `POST /reckon/v1/restore`: makes desired state what it was at a moment, by events like any other; it can itself be undone the same way.
//!
//! What fits goes as one atomic event; the rest follows in events of its own, all of them marked as a restore of that moment. After each the
//! plan is made again, so that what depends on it (an owner's new uid, a namespace) is there.

use super::Moment;
use super::forward::{self, Left, Scope, Step};
use crate::core::{Draft, ProposeError};
use crate::http::{Call, Reply, propose_error, unavailable};
use eventstore::{Intent, Key, Proposal, Rejection, encode};
use kinds::error::StatusError;
use kinds::resources::by_resource;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Events of one restore, and plans that others' changes made useless.
const EVENTS_MAX: usize = 1_000;
const TRIES_MAX: usize = 50;
/// Changes of one event, and their bytes: far below what a proposal may have.
const CHANGES_MAX: usize = 900;
const BYTES_MAX: usize = Proposal::MOST_BYTES / 2;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    /// A revision or a time.
    at: String,
    #[serde(default)]
    namespace: Option<String>,
    /// `apps/deployments`
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    if call.info.verb != "create" {
        return Err(StatusError::method_not_allowed());
    }
    let asked: Asked = serde_json::from_slice(&call.body)
        .map_err(|error| StatusError::bad_request(format!("the body is no restore: {error}")))?;
    let scope = scope(&asked)?;
    let then = Moment::named(call.core(), &asked.at, call.deadline).await?;
    let at = then.revision();
    let mut done = Vec::new();
    let mut revisions = Vec::new();
    let mut restored = BTreeSet::new();
    let mut tries = 0;
    while revisions.len() < EVENTS_MAX {
        let view = call
            .core()
            .linearizable(call.deadline)
            .await
            .map_err(|error| unavailable(&error))?;
        let mut plan = forward::plan(call, &view, &then, &scope)?;
        // Whoever changes one of them again, a controller for one, has the last word.
        plan.steps.retain(|step| !restored.contains(&step.key));
        if asked.dry_run {
            return Ok(reply(
                at,
                true,
                forward::shown(&plan.steps),
                &revisions,
                &plan.left,
            ));
        }
        let Some(steps) = first(plan.steps) else {
            return Ok(reply(at, false, done, &revisions, &plan.left));
        };
        match propose(call, at, &steps).await {
            Ok(revision) => {
                revisions.push(revision);
                done.extend(forward::shown(&steps));
                restored.extend(steps.into_iter().map(|step| step.key));
            }
            // Somebody changed one of them meanwhile.
            Err(ProposeError::Rejected(Rejection::Expectation { .. })) if tries < TRIES_MAX => {
                tries += 1;
            }
            Err(ProposeError::Rejected(Rejection::NotNow(why))) => {
                return Err(StatusError::new(409, "Conflict", why, Value::Null));
            }
            Err(error) => return Err(propose_error(error)),
        }
    }
    Err(StatusError::internal(&format!(
        "the restore did not end in {EVENTS_MAX} events; what was done stands, ask again to go on"
    )))
}

fn scope(asked: &Asked) -> Result<Scope, StatusError> {
    let object = match (&asked.resource, &asked.name) {
        (None, None) => None,
        (Some(resource), Some(name)) => {
            let kind = by_resource(resource).ok_or_else(|| {
                StatusError::bad_request(format!("resource {resource:?} is not known"))
            })?;
            let namespace = match (kind.namespaced, asked.namespace.as_deref()) {
                (true, None) => {
                    return Err(StatusError::bad_request(format!(
                        "{resource} live in namespaces: name one"
                    )));
                }
                (true, Some(namespace)) => namespace,
                (false, _) => "",
            };
            Some((kind, Key::new(kind.resource(), namespace, name.as_str())))
        }
        _ => {
            return Err(StatusError::bad_request(
                "resource and name belong together",
            ));
        }
    };
    Ok(Scope {
        namespace: asked.namespace.clone().filter(|_| object.is_none()),
        object,
    })
}

/// As many steps as go into one event; None: there are none.
fn first(steps: Vec<Step>) -> Option<Vec<Step>> {
    let mut bytes = 0;
    let mut changes = 0;
    let mut taken = Vec::new();
    for step in steps {
        bytes += encode(&step.changes).len();
        changes += step.changes.len();
        if !taken.is_empty() && (bytes > BYTES_MAX || changes > CHANGES_MAX) {
            break;
        }
        taken.push(step);
    }
    (!taken.is_empty()).then_some(taken)
}

async fn propose(call: &Call, at: u64, steps: &[Step]) -> Result<u64, ProposeError> {
    let mut request = call.another().request();
    let draft = Draft::objects(
        Intent::Restore { at },
        steps
            .iter()
            .flat_map(|step| step.expectations.iter().cloned())
            .collect(),
        steps
            .iter()
            .flat_map(|step| step.changes.iter().cloned())
            .collect(),
    );
    let event = call
        .core()
        .propose(&mut request, draft, call.deadline)
        .await?;
    Ok(event.revision())
}

fn reply(at: u64, dry_run: bool, items: Vec<Value>, revisions: &[u64], left: &[Left]) -> Reply {
    let left: Vec<Value> = left
        .iter()
        .map(|left| json!({"key": left.key.to_string(), "why": left.why}))
        .collect();
    Reply::json(
        200,
        &json!({"at": at, "dryRun": dry_run, "items": items, "revisions": revisions, "left": left}),
    )
}
