//! `POST /reckon/v1/restore`: makes desired state what it was at a moment, by events like any other; it can itself be undone the same way.
//!
//! What fits goes as one atomic event; the rest follows in events of its own. They have one id, and each names the one before as its cause.
//! After each the plan is made again: an owner's new uid is the log's to give, so what it owns can't be in the event that brings it back.

use super::Moment;
use super::forward::{self, Left, Scope, Shown, Step};
use crate::core::{Draft, ProposeError, Request};
use crate::http::{Call, Reply, propose_error, unavailable};
use eventstore::{
    Entry, Intent, Key, Outcome, Outcomes, Position, Proposal, ProposalId, Rejection, Salt, State,
    View, encode,
};
use kinds::error::StatusError;
use kinds::resources::by_resource;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::time::Instant;

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
    let mut onto = match asked.dry_run {
        true => Onto::Picture(Box::new(picture(now(call).await?)), call.request()),
        false => Onto::Log(call.request()),
    };
    let mut done = Shown::default();
    let mut revisions = Vec::new();
    let mut restored = BTreeSet::new();
    let mut tries = 0;
    let mut events = 0;
    while events < EVENTS_MAX {
        let view = match &onto {
            Onto::Log(_) => now(call).await,
            Onto::Picture(state, _) => Ok(state.view().clone()),
        };
        let view = view.map_err(|error| partly(error, &revisions))?;
        let plan = forward::plan(call, &view, &then, &scope, &restored)?;
        let Some(steps) = first(plan.steps) else {
            let left: Vec<Left> = plan.left.into_iter().chain(plan.waiting).collect();
            return Ok(reply(at, asked.dry_run, done.items, &revisions, &left));
        };
        match onto.take(call, at, &steps).await {
            Ok(revision) => {
                events += 1;
                revisions.extend(revision);
                done.extend(&steps);
                restored.extend(steps.into_iter().map(|step| step.key));
            }
            // Somebody changed one of them meanwhile.
            Err(ProposeError::Rejected(Rejection::Expectation { .. })) if tries < TRIES_MAX => {
                tries += 1;
            }
            Err(ProposeError::Rejected(Rejection::NotNow(why))) => {
                let error = StatusError::new(409, "Conflict", why, Value::Null);
                return Err(partly(error, &revisions));
            }
            Err(error) => return Err(partly(propose_error(error), &revisions)),
        }
        if Instant::now() >= call.deadline {
            let error = StatusError::timeout("the restore did not end in time", 0);
            return Err(partly(error, &revisions));
        }
    }
    Err(StatusError::internal(&format!(
        "the restore did not end in {EVENTS_MAX} events; what was done stands, ask again to go on"
    )))
}

/// What went wrong, and what was done before.
fn partly(mut error: StatusError, revisions: &[u64]) -> StatusError {
    if !revisions.is_empty() {
        error.message += &format!(
            "; the restore is done in part, by revision {}: ask again to go on, or restore the moment before it",
            numbers(revisions)
        );
    }
    error
}

fn numbers(revisions: &[u64]) -> String {
    let revisions: Vec<String> = revisions.iter().map(u64::to_string).collect();
    revisions.join(", ")
}

async fn now(call: &Call) -> Result<View, StatusError> {
    let view = call.core().linearizable(call.deadline).await;
    view.map_err(|error| unavailable(&error))
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
    let mut keys = BTreeSet::new();
    let mut taken = Vec::new();
    for step in steps {
        bytes += encode(&step.changes).len();
        changes += step.changes.len();
        // Two that were given the same address or port: the second is given another once the first has it.
        let given_twice = step.changes.iter().any(|change| keys.contains(&change.key));
        if !taken.is_empty() && (given_twice || bytes > BYTES_MAX || changes > CHANGES_MAX) {
            break;
        }
        keys.extend(step.changes.iter().map(|change| change.key.clone()));
        taken.push(step);
    }
    (!taken.is_empty()).then_some(taken)
}

/// Where the events go.
enum Onto {
    /// All of a restore under one id.
    Log(Request),
    /// The state as it would be: a dry run is the same plans, folded by the same apply.
    Picture(Box<State>, Request),
}

impl Onto {
    /// The event's revision; None: there is no such event.
    async fn take(
        &mut self,
        call: &Call,
        at: u64,
        steps: &[Step],
    ) -> Result<Option<u64>, ProposeError> {
        let expectations = steps.iter().flat_map(|step| step.expectations.clone());
        let changes = steps.iter().flat_map(|step| step.changes.clone());
        let intent = Intent::Restore { at };
        let draft = Draft::objects(intent, expectations.collect(), changes.collect());
        match self {
            Self::Log(request) => {
                let event = call.core().propose(request, draft, call.deadline).await?;
                request.follow(&event, call.core());
                Ok(Some(event.revision()))
            }
            Self::Picture(state, request) => {
                fold(state, request, draft)?;
                request.attempt += 1;
                Ok(None)
            }
        }
    }
}

fn picture(view: View) -> State {
    State::restore(view, [], [], [], Outcomes::default())
}

fn fold(state: &mut State, request: &Request, draft: Draft) -> Result<(), ProposeError> {
    let Position { term, index } = state.view().position;
    let index = index + 1;
    let proposal = Proposal {
        id: ProposalId {
            uuid: request.audit_id,
            attempt: request.attempt,
        },
        actor: request.actor.clone(),
        cause: request.cause,
        intent: draft.intent,
        first_sent: index,
        salt: Salt::default(),
        expectations: draft.expectations,
        act: draft.act,
    };
    let entry = Entry {
        clock: state.view().clock,
        proposals: vec![proposal],
    };
    let applied = state.apply(Position { term, index }, &entry);
    match applied.outcomes.into_iter().next() {
        Some((_, Outcome::Rejected(rejection))) => Err(ProposeError::Rejected(*rejection)),
        Some((_, Outcome::Accepted { .. })) | None => Ok(()),
    }
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
