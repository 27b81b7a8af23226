//! `/reckon/v1/holds`: who keeps history from being pruned, and from which revision on. GET lists, POST `{"name", "at"}` holds, DELETE
//! `…/NAME` releases.

use super::Moment;
use crate::core::{Draft, ProposeError};
use crate::http::{Call, Reply, propose_error, unavailable};
use eventstore::{Act, Intent, Rejection};
use kinds::error::StatusError;
use serde::Deserialize;
use serde_json::{Value, json};

/// A name is said in commands and messages.
const NAME_CHARS_MAX: usize = 253;

#[derive(Deserialize)]
struct Hold {
    name: String,
    /// A revision or a time; the newest revision when it is not said.
    at: Option<String>,
}

pub(super) async fn serve(call: &Call, name: Option<&str>) -> Result<Reply, StatusError> {
    match (call.info.verb, name) {
        ("get", None) => list(call).await,
        ("create", None) => hold(call).await,
        ("delete", Some(name)) => release(call, name).await,
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn list(call: &Call) -> Result<Reply, StatusError> {
    let view = call
        .core()
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    let holds: Vec<Value> = view
        .retention
        .holds()
        .map(|(name, revision)| json!({"name": &**name, "revision": revision}))
        .collect();
    Ok(Reply::json(
        200,
        &json!({"items": holds, "horizon": view.retention.horizon()}),
    ))
}

async fn hold(call: &Call) -> Result<Reply, StatusError> {
    let asked: Hold = serde_json::from_slice(&call.body).map_err(|error| {
        StatusError::bad_request(format!(
            "the body is to be {{\"name\": …, \"at\": …}}: {error}"
        ))
    })?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if asked.name.is_empty() || asked.name.len() > NAME_CHARS_MAX || !asked.name.chars().all(plain)
    {
        return Err(StatusError::bad_request(
            "a hold's name is made of letters, digits, '-', '.' and '_'",
        ));
    }
    let revision = match &asked.at {
        Some(at) => Moment::named(call.core(), at, call.deadline)
            .await?
            .revision(),
        None => {
            call.core()
                .linearizable(call.deadline)
                .await
                .map_err(|error| unavailable(&error))?
                .revision
        }
    };
    let act = Act::Hold {
        name: asked.name.as_str().into(),
        revision,
    };
    propose(call, Intent::Hold, act).await?;
    Ok(Reply::json(
        201,
        &json!({"name": asked.name, "revision": revision}),
    ))
}

async fn release(call: &Call, name: &str) -> Result<Reply, StatusError> {
    propose(call, Intent::Release, Act::Release { name: name.into() }).await?;
    Ok(Reply::json(200, &json!({"name": name})))
}

async fn propose(call: &Call, intent: Intent, act: Act) -> Result<(), StatusError> {
    let mut request = call.request();
    let draft = Draft {
        intent,
        expectations: Vec::new(),
        act,
    };
    let proposed = call
        .core()
        .propose(&mut request, draft, call.deadline)
        .await;
    call.put_request(request);
    match proposed {
        Ok(_) => Ok(()),
        // Its own words say what to do instead.
        Err(ProposeError::Rejected(Rejection::NotNow(why))) => {
            Err(StatusError::new(409, "Conflict", why, Value::Null))
        }
        Err(error) => Err(propose_error(error)),
    }
}
