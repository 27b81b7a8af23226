//! How a server that was added comes in: it shows its token, or a certificate of this cluster's, and is told its id.
//!
//! With a token it also sends a request for a certificate, which only a server signs that was started with the authority's key. The
//! token is good for one key until it expires, so that a lost answer is asked again and a token that was overheard later is worth
//! nothing. An id whose disk has been seen is not given again: an empty disk under it would not know what it had promised.

use super::record::{self, Joined, Record};
use crate::authority::SERVERS_GROUP;
use crate::core::Core;
use crate::http::{Call, Reply};
use eventstore::{Actor, Cause, Digest, Intent, View};
use kinds::error::StatusError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout_at};

#[cfg(test)]
mod tests;

/// Between two looks at whether it has been taken in.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// Without one the certificate of the connection has to say who it is.
    token: Option<String>,
    /// PEM.
    #[serde(rename = "certificateRequest")]
    request: Option<String>,
}

/// What a newcomer shows.
enum Shown {
    Token { id: u64, digest: String },
    Certificate { name: String },
}

/// What a token is kept as.
pub(super) fn digest(secret: &str) -> String {
    Digest::of(&[b"join-token", secret.as_bytes()]).to_string()
}

/// `POST /reckon/v1/join`
pub(super) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    let body: Body = serde_json::from_slice(&call.body)
        .map_err(|error| StatusError::bad_request(format!("the request to join: {error}")))?;
    let shown = match &body.token {
        Some(token) => token_of(token)?,
        None if call.user.is_in(SERVERS_GROUP) => Shown::Certificate {
            name: call.user.name.clone(),
        },
        None => {
            return Err(no(format!(
                "to join takes a token of 'reckon member add', or a certificate with O={SERVERS_GROUP}"
            )));
        }
    };
    let core = call.core();
    let view = core
        .linearizable(call.deadline)
        .await
        .map_err(|error| crate::http::unavailable(&error))?;
    let found = invited(core, &view, &shown)?;
    let signed = match &body.request {
        Some(request) => Some(sign(call, request, &found)?),
        None => None,
    };
    let key = signed.as_ref().map(|signed| signed.key.to_string());
    let name = found.name.as_str().into();
    let mut request = core.request(Actor::Server { name }, Cause::default());
    let intent = Intent::Reconcile {
        what: format!("{} joins", found.name).into(),
    };
    record::write(core, &mut request, intent, call.deadline, |view| {
        let record = invited(core, view, &shown)?;
        match &record.joined {
            Some(joined) if joined.key == key => Ok(None),
            Some(_) => Err(no(format!(
                "{} has joined already with another key: 'reckon member remove {0}', and add it again",
                record.name
            ))),
            None => Ok(Some(Record {
                joined: Some(Joined { key: key.clone() }),
                ..record
            })),
        }
    })
    .await?;
    taken_in(call, found.id).await?;
    Ok(Reply::json(
        200,
        &json!({
            "id": found.id, "name": found.name, "address": found.address, "cluster": core.node().cluster(),
            "certificate": signed.map(|signed| signed.certificate_pem),
        }),
    ))
}

/// `4.SECRET.DIGEST`: the id, the secret, and the authority's digest, by which the newcomer has known us.
fn token_of(text: &str) -> Result<Shown, StatusError> {
    let mut parts = text.split('.');
    match (parts.next().map(str::parse), parts.next()) {
        (Some(Ok(id)), Some(secret)) => Ok(Shown::Token {
            id,
            digest: digest(secret),
        }),
        _ => Err(no("this is no token of 'reckon member add'".to_owned())),
    }
}

/// The record of who shows this, if it may come in.
fn invited(core: &Core, view: &View, shown: &Shown) -> Result<Record, StatusError> {
    let record = match shown {
        Shown::Token { id, digest } => {
            let record = record::get(view, *id).filter(Record::is_wanted);
            let record = record.filter(|record| {
                record
                    .invitation
                    .as_ref()
                    .is_some_and(|invitation| invitation.digest == *digest)
            });
            let record = record.ok_or_else(|| {
                no("the token is not, or no longer, good: 'reckon member list' shows who is invited".to_owned())
            })?;
            if record.expired(core.now()) {
                return Err(no(format!(
                    "the token of {} has expired: 'reckon member remove {}', and add it again",
                    record.name, record.name
                )));
            }
            record
        }
        Shown::Certificate { name } => {
            let mut records = record::all(view).into_iter();
            let record = records.find(|record| record.name == *name && record.is_wanted());
            match record.filter(|record| record.invitation.is_some()) {
                Some(record) => record,
                None => return Err(no(uninvited(core, name))),
            }
        }
    };
    if core.node().knows_disk(record.id) {
        return Err(no(format!(
            "server {} ({}) was here before with another disk: send it away with 'reckon member remove {1}', and add it again",
            record.id, record.name
        )));
    }
    Ok(record)
}

fn uninvited(core: &Core, name: &str) -> String {
    let members = core.node().status().members;
    match members.iter().find(|member| member.peer.name == name) {
        Some(member) => format!(
            "{name} is member {} already, with another disk: send it away with 'reckon member remove {name}', and take it in again \
             with 'reckon member add {name} {}'",
            member.peer.id, member.peer.address
        ),
        None => format!("{name} is not invited: 'reckon member add {name} HOST:PORT' first"),
    }
}

fn sign(
    call: &Call,
    request: &str,
    record: &Record,
) -> Result<crate::authority::Signed, StatusError> {
    let Some(authority) = &call.api.settings().authority else {
        return Err(StatusError::service_unavailable(format!(
            "{} can't sign certificates, for it was started without --ca-key: ask another server, or join with a certificate",
            call.core().name()
        )));
    };
    let (host, _) = record
        .address
        .rsplit_once(':')
        .unwrap_or((&record.address, ""));
    let host = host.trim_matches(['[', ']']);
    authority
        .sign(request, &record.name, host, call.core().now().s())
        .map_err(|error| StatusError::bad_request(format!("the certificate request: {error}")))
}

/// Waits until it is a member here: from then on the leader sends it the log.
async fn taken_in(call: &Call, id: u64) -> Result<(), StatusError> {
    let node = call.core().node();
    let there = async {
        while !node
            .status()
            .members
            .iter()
            .any(|member| member.peer.id == id)
        {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout_at(call.deadline, there)
        .await
        .map_err(|_| StatusError::timeout("the server was not taken in in time; ask again", 1))
}

/// Who may not come in is told why.
fn no(why: String) -> StatusError {
    StatusError::new(403, "Forbidden", why, Value::Null)
}
