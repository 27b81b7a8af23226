//! Reading the past: any read as of any moment (`/at/…`), what happened to an object, and why.
//!
//! `GET /reckon/v1/history|why|events|status|verify`, JSON, for `reckon` itself; `holds` keeps history from being pruned, `restore`
//! writes the past forward. What is before the horizon is refused, never answered wrong.

mod backup;
mod diff;
mod forward;
mod history;
mod holds;
mod item;
mod moment;
mod owners;
pub(crate) mod reborn;
mod restore;
#[cfg(test)]
mod tests;
mod verify;
mod why;

pub(crate) use history::of_key as history_of;
pub(crate) use moment::{Moment, Place};

use crate::http::{Call, Reply};
use eventstore::Key;
use kinds::error::StatusError;
use kinds::kind::Kind;
use kinds::resources;
use serde_json::json;

/// An archive that is behind by so much is late, though nothing has failed.
const LATE_S: u64 = 30;

/// Answers `/reckon/v1/…`.
pub(crate) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    let path = call.info.path.trim_start_matches("/reckon/v1/");
    match path.split_once('/') {
        None if path == "holds" => return holds::serve(call, None).await,
        None if path == "restore" => return restore::serve(call).await,
        Some(("holds", name)) => return holds::serve(call, Some(name)).await,
        _ => {}
    }
    if call.info.verb != "get" {
        return Err(StatusError::method_not_allowed());
    }
    if let Some(("backup", what)) = path.split_once('/') {
        return backup::serve(call, what).await;
    }
    match path {
        "history" => history::serve(call).await,
        "events" => history::events(call).await,
        "why" => why::serve(call).await,
        "status" => status(call),
        "verify" => verify::serve(call).await,
        _ => Err(StatusError::no_such_path()),
    }
}

/// This server's own state, as it stands: it answers though no leader is known.
fn status(call: &Call) -> Result<Reply, StatusError> {
    let core = call.core();
    let mut status = serde_json::to_value(core.status())
        .map_err(|error| StatusError::internal(&error.to_string()))?;
    status["clock"] = json!(core.now().milli());
    let view = core.view();
    status["horizon"] = json!(view.retention.horizon());
    let horizons = view.retention.resources();
    status["horizons"] = horizons
        .map(|(resource, at)| (resource.to_string(), json!(at)))
        .collect();
    status["level"] = json!(view.level);
    status["cluster"] = json!(view.cluster);
    if let Some(archive) = call.archiving() {
        let why = match &archive.error {
            Some(error) => Some(error.as_str()),
            None if archive.lag_s >= LATE_S => Some("what was begun does not come to an end"),
            None => None,
        };
        if let (Some(why), Some(warnings)) = (why, status["warnings"].as_array_mut()) {
            warnings.push(json!(format!(
                "history is not archived since {} s: {why}",
                archive.lag_s
            )));
        }
        status["archive"] = json!(archive);
    }
    Ok(Reply::json(200, &status))
}

/// The object that `resource`, `namespace` and `name` of the query name.
fn named(call: &Call) -> Result<(&'static Kind, Key), StatusError> {
    let resource = call.query.text("resource");
    let name = call.query.text("name");
    let kind = resources::by_resource(resource)
        .or_else(|| resources::by_word(resource))
        .ok_or_else(|| {
            StatusError::bad_request(format!(
                "resource {resource:?} is not known; name it as in apps/deployments"
            ))
        })?;
    if name.is_empty() {
        return Err(StatusError::bad_request(
            "name an object: resource=apps/deployments&namespace=default&name=web",
        ));
    }
    let namespace = match call.query.text("namespace") {
        _ if !kind.namespaced => "",
        "" => "default",
        namespace => namespace,
    };
    Ok((kind, Key::new(kind.resource(), namespace, name)))
}

/// A number of the query that is no sign and no fraction.
fn number(call: &Call, name: &str) -> Result<Option<u64>, StatusError> {
    match call.query.text(name) {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            StatusError::bad_request(format!("{name} must be a number, and is {text:?}"))
        }),
    }
}
