//! What the log holds of a server besides Raft's own membership: who asked for it, by what token it may join, and what it is to be.
//!
//! A record is a hidden object, so every act on the members is an event that says who. Records stay when their servers go: an id is
//! never given twice. The leader's `keep` makes the membership follow the records; the records never follow the membership.

use crate::core::{Core, Draft, ProposeError, Request};
use crate::http::{propose_error, unavailable};
use eventstore::{
    Act, Body, Change, Event, Expectation, Expected, Intent, Key, Rejection, Time, View, What,
};
use kinds::error::StatusError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use tokio::time::Instant;

/// Hidden from the API.
const RESOURCE: &str = "~members";
/// Repetitions of one act: each is another act that was quicker.
const ATTEMPTS_MAX: u32 = 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub id: u64,
    pub name: String,
    /// `host:port`
    pub address: String,
    pub wanted: Wanted,
    /// By what it may join; None for a first member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invitation: Option<Invitation>,
    /// It came, by token or by certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined: Option<Joined>,
    /// When it was last asked to lead, or to let another lead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead: Option<Lead>,
}

/// What a server is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    Learner,
    /// As soon as it has caught up.
    Voter,
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Invitation {
    /// Of the token's secret, which is nowhere kept.
    pub digest: String,
    /// By the log's clock.
    pub expires_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Digest of the public key that was signed, which alone may come again with the token; None for a certificate of one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lead {
    /// It is to lead.
    Take { at: String },
    /// Another is to lead.
    Leave { at: String },
}

impl Record {
    pub fn is_wanted(&self) -> bool {
        self.wanted != Wanted::Gone
    }

    pub fn expired(&self, now: Time) -> bool {
        self.invitation
            .as_ref()
            .is_none_or(|invitation| invitation.expires_ms < now.ms())
    }
}

/// Of a first member that nobody has acted on before.
pub(crate) fn of_member(member: &raft::Member) -> Record {
    Record {
        id: member.peer.id,
        name: member.peer.name.clone(),
        address: member.peer.address.clone(),
        wanted: if member.voter {
            Wanted::Voter
        } else {
            Wanted::Learner
        },
        invitation: None,
        joined: Some(Joined { key: None }),
        lead: None,
    }
}

/// All records in the order of their ids.
pub(crate) fn all(view: &View) -> Vec<Record> {
    let mut records: Vec<Record> = view
        .list(RESOURCE, None)
        .filter_map(|object| serde_json::from_value(object.to_value()["spec"].clone()).ok())
        .collect();
    records.sort_by_key(|record| record.id);
    records
}

pub(crate) fn get(view: &View, id: u64) -> Option<Record> {
    let object = view.get(&key(id))?;
    serde_json::from_value(object.to_value()["spec"].clone()).ok()
}

pub(crate) fn is_record(key: &Key) -> bool {
    &*key.resource == RESOURCE
}

pub(crate) fn key(id: u64) -> Key {
    Key::new(RESOURCE, "", id.to_string())
}

/// Writes a record as `plan` makes it from a view that holds all that was acknowledged; again when somebody else's act came between.
/// None from `plan`: nothing is to be written.
pub(crate) async fn write(
    core: &Core,
    request: &mut Request,
    intent: Intent,
    deadline: Instant,
    mut plan: impl FnMut(&View) -> Result<Option<Record>, StatusError>,
) -> Result<Option<Arc<Event>>, StatusError> {
    for _ in 0..ATTEMPTS_MAX {
        let view = core
            .linearizable(deadline)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(record) = plan(&view)? else {
            return Ok(None);
        };
        match core
            .propose(request, draft(&view, intent.clone(), &record), deadline)
            .await
        {
            Ok(event) => return Ok(Some(event)),
            Err(ProposeError::Rejected(Rejection::Expectation { .. })) => {}
            Err(error) => return Err(propose_error(error)),
        }
    }
    Err(StatusError::too_many_requests(
        "others change the members all the time; try again",
        1,
    ))
}

fn draft(view: &View, intent: Intent, record: &Record) -> Draft {
    let key = key(record.id);
    let is = match view.get(&key) {
        Some(object) => Expected::Revision(object.revision()),
        None => Expected::Absent,
    };
    let object = json!({
        "apiVersion": "reckon.io/v1", "kind": "Member",
        "metadata": {"name": record.id.to_string()}, "spec": record,
    });
    let body = Body::cut(&object).expect("a record has a name");
    let change = Change {
        key: key.clone(),
        what: What::Put {
            body,
            delete_grace_s: None,
        },
    };
    Draft {
        intent,
        expectations: vec![Expectation { key, is }],
        act: Act::Objects(vec![change]),
    }
}
