//! `GET /reckon/v1/why`: the chain of causes behind an object, from its creation (or a given revision) back to somebody's act.
//!
//! A reconciler's event names the revision that woke it; the event that holds that revision is the link before. A user's act, an agent's
//! report or a server's own act has no cause and ends the chain; a restore's further events name the one before.

use super::item::{self, Restores};
use super::{named, number};
use crate::http::{Call, Reply, past_error, unavailable};
use eventstore::{Envelope, Event, Folded, Key};
use kinds::error::StatusError;
use serde_json::{Value, json};

/// Links shown at most.
const LINKS_MAX: usize = 64;
/// Versions read at once while the creation is looked for.
const VERSIONS: usize = 256;

/// `?resource=&namespace=&name=[&revision=]`
pub(super) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    call.core()
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    let (kind, key) = named(call)?;
    let start = match number(call, "revision")? {
        Some(revision) => Some(revision),
        None => created(call, &key)?,
    };
    let start = start.ok_or_else(|| StatusError::not_found(kind.group, kind.plural, &key.name))?;
    let mut events = Vec::new();
    let (mut revision, mut wanted) = (start, Some(key));
    let mut ended = false;
    while events.len() < LINKS_MAX {
        let Some(event) = call.core().store().event_at(revision).map_err(past_error)? else {
            break;
        };
        let Envelope { cause, first, .. } = event.envelope;
        let cause = cause.revision;
        events.push((event, revision, wanted));
        // A cause lies before what it caused: anything else would be no chain.
        if cause == 0 || cause >= first {
            ended = true;
            break;
        }
        (revision, wanted) = (cause, None);
    }
    let envelopes = events.iter().map(|(event, _, _)| &event.envelope);
    let restores = Restores::among(call.core().store(), envelopes);
    let restores = restores.map_err(|error| past_error(error.into()))?;
    let chain: Vec<Value> = events
        .iter()
        .map(|(event, revision, wanted)| link(&restores, event, *revision, wanted.as_ref()))
        .collect();
    Ok(Reply::json(
        200,
        &json!({"chain": chain, "complete": ended}),
    ))
}

/// The revision of the object's last creation; None: it was never there, as far as history reaches.
fn created(call: &Call, key: &Key) -> Result<Option<u64>, StatusError> {
    let mut before = None;
    let mut oldest = None;
    loop {
        let versions = call
            .core()
            .store()
            .history(key, before, VERSIONS)
            .map_err(past_error)?;
        for version in &versions {
            if version.after.is_some() && version.before.is_none() {
                return Ok(Some(version.revision));
            }
            oldest = Some(version.revision);
        }
        // Its creation is before the horizon: the chain begins with the oldest change that is known.
        if versions.len() < VERSIONS {
            return Ok(oldest);
        }
        before = oldest;
    }
}

/// The event, with the change that is meant: the key's, or the revision's, or the first that is not hidden.
fn link(restores: &Restores, event: &Event, revision: u64, wanted: Option<&Key>) -> Value {
    let own = restores.item(&event.envelope);
    let by = |meant: &dyn Fn(&Folded) -> bool| event.objects.iter().find(|folded| meant(folded));
    let meant = wanted
        .and_then(|key| by(&|folded| folded.key == *key))
        .or_else(|| by(&|folded| folded.revision == revision && !folded.key.hidden()))
        .or_else(|| by(&|folded| !folded.key.hidden()));
    match meant {
        Some(folded) => item::with_change(
            own,
            &folded.key,
            folded.revision,
            folded.before.as_deref(),
            folded.after.as_deref(),
        ),
        None => Value::Object(own),
    }
}
