//! What is before the horizon goes, on every server, and nobody can read it; what is behind is whole.

use super::Violation;
use eventstore::Key;
use eventstore_disk::{ReadError, Store};
use std::fmt::Debug;

const INVARIANT: &str = "what is past goes, and is refused";

/// Why a server is not there yet. Asking removes one event's part itself, which is nothing beside what a server has to.
pub fn left(store: &Store) -> Result<Option<String>, Violation> {
    let left = store.prune(1);
    let left = left.map_err(|error| Violation::new(INVARIANT, error.to_string()))?;
    let unpruned = || format!("there is more to remove before {}", store.horizon());
    Ok((left.events > 0).then(unpruned))
}

/// The last revision before the horizon, and the one there.
pub fn check(store: &Store) -> Result<(), Violation> {
    let horizon = store.horizon();
    if horizon == 0 {
        return Ok(());
    }
    let key = Key::new("configmaps", "default", "any");
    let refused = |what: &str, read: Result<(), ReadError>| match read {
        Err(ReadError::Compacted { horizon: told, .. }) if told == horizon => Ok(()),
        other => Err(not(what, horizon - 1, &other)),
    };
    let (before, all) = (horizon - 1, usize::MAX);
    refused("an object", store.object_at(&key, before).map(drop))?;
    let list = store.list_at("configmaps", None, before, .., all);
    refused("a list", list.map(drop))?;
    refused("an event", store.recorded_at(before).map(drop))?;
    refused("events", store.events(before..=horizon, all).map(drop))?;

    let there = store.list_at("configmaps", None, horizon, .., all);
    let there = there.map(drop).and_then(|()| store.event_at(horizon));
    match there {
        Ok(Some(_)) => Ok(()),
        other => Err(not("what is kept", horizon, &other)),
    }
}

fn not(what: &str, revision: u64, read: &impl Debug) -> Violation {
    Violation::new(INVARIANT, format!("{what} at {revision}: {read:?}"))
}
