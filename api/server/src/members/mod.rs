//! `/reckon/v1/members`: who is a member, and the acts of those who may change that.
//!
//! An act is looked at against what the leader knows (would a majority still answer? has it caught up?), written as a record by who
//! asked for it, and answered once the leader's `keep` has carried it out. So the history says who did it, and an act that its server
//! did not live to see the end of is ended by the next leader.

mod join;
mod keep;
mod record;

use crate::authority;
use crate::core::Core;
use crate::http::{Call, Reply, unavailable};
use crate::timetravel;
use eventstore::{Intent, View};
use kinds::error::StatusError;
use raft::Standing;
pub(crate) use record::is_record;
use record::{Invitation, Lead, Record, Wanted};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{sleep, timeout_at};

pub(crate) use keep::run as keep;

/// Members at most: a majority of more is slow, and nobody needs it.
const VOTERS_MAX: usize = 9;
/// How long a token is good, unless said otherwise (kubeadm: a day).
const TOKEN_S: u64 = 86_400;
const TOKEN_S_MAX: u64 = 30 * 86_400;
/// Between two looks at whether an act has been carried out.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether `serve` answers this path.
pub(crate) fn answers(path: &str) -> bool {
    matches!(path, "/reckon/v1/ca" | "/reckon/v1/join")
        || path
            .strip_prefix("/reckon/v1/members")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(crate) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    let path = call.info.path.trim_start_matches("/reckon/v1/");
    let parts: Vec<&str> = path.split('/').collect();
    match (call.info.verb, parts.as_slice()) {
        ("get", ["ca"]) => Ok(Reply::json(
            200,
            &json!({"certificate": call.api.settings().ca_pem}),
        )),
        ("create", ["join"]) => join::serve(call).await,
        ("get", ["members"]) => list(call).await,
        ("create", ["members"]) => add(call).await,
        ("create", ["members", "transfer-leader"]) => transfer(call).await,
        ("get", ["members", name, "history"]) => history(call, name).await,
        ("create", ["members", name, "promote"]) => promote(call, name).await,
        ("create", ["members", name, "remove"]) => remove(call, name).await,
        (_, ["ca" | "join" | "members"]) => Err(StatusError::method_not_allowed()),
        _ => Err(StatusError::no_such_path()),
    }
}

/// A server as acts name it: by its name, or by its id.
struct Named {
    record: Record,
    /// It is in Raft's membership, and not merely invited.
    member: bool,
}

fn named(core: &Core, view: &View, text: &str) -> Result<Named, StatusError> {
    let members = core.node().status().members;
    let is = |id: u64, name: &str| name == text || text.parse() == Ok(id);
    let records = record::all(view);
    // Of several that had the name in turn, the one that is there now.
    let record = records
        .iter()
        .rev()
        .find(|record| {
            let there = members.iter().any(|member| member.peer.id == record.id);
            is(record.id, &record.name) && (record.is_wanted() || there)
        })
        .cloned();
    let first = members
        .iter()
        .find(|member| is(member.peer.id, &member.peer.name))
        .map(record::of_member);
    let record = record.or(first).ok_or_else(|| {
        StatusError::new(
            404,
            "NotFound",
            format!("{text} is no member: 'reckon member list' shows who is"),
            Value::Null,
        )
    })?;
    let member = members.iter().any(|member| member.peer.id == record.id);
    Ok(Named { record, member })
}

/// By all that was acknowledged before this call: that a server is no member is not said by one that has not heard of it yet.
async fn found(call: &Call, text: &str) -> Result<Named, StatusError> {
    let core = call.core();
    let view = core
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    named(core, &view, text)
}

async fn list(call: &Call) -> Result<Reply, StatusError> {
    let core = call.core();
    let standing = standing(call).await?;
    let view = core
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(listed(&standing, &view))
}

async fn standing(call: &Call) -> Result<Standing, StatusError> {
    let standing = call.core().standing(call.deadline).await;
    standing.map_err(|error| unavailable(&error))
}

/// The members as the leader knows them, and who is invited.
fn listed(standing: &Standing, view: &View) -> Reply {
    let records = record::all(view);
    let wanted = |id: u64| records.iter().find(|record| record.id == id);
    let mut items: Vec<Value> = standing
        .members
        .iter()
        .map(|member| {
            let leaving = wanted(member.id).is_some_and(|record| !record.is_wanted());
            let role = match (member.id == standing.leader, member.voter, leaving) {
                (_, _, true) => "leaving",
                (true, _, _) => "leader",
                (_, true, _) => "voter",
                _ => "learner",
            };
            json!({
                "id": member.id, "name": member.name, "address": member.address, "role": role,
                "answers": member.answers, "lag": member.lag(standing.last_log),
            })
        })
        .collect();
    let invited = records
        .iter()
        .filter(|record| record.is_wanted() && standing.member(record.id).is_none());
    items.extend(invited.map(|record| {
        let expires = record
            .invitation
            .as_ref()
            .map(|invitation| eventstore::Time::from_ms(invitation.expires_ms).to_string());
        json!({
            "id": record.id, "name": record.name, "address": record.address,
            "role": if record.joined.is_some() { "joining" } else { "invited" }, "expires": expires,
        })
    }));
    let leader = standing.member(standing.leader).map(|member| &member.name);
    Reply::json(200, &json!({"leader": leader, "members": items}))
}

/// What was done to a server, also to one that is gone: by its id, or the last that had the name.
async fn history(call: &Call, text: &str) -> Result<Reply, StatusError> {
    let core = call.core();
    let view = core
        .linearizable(call.deadline)
        .await
        .map_err(|error| unavailable(&error))?;
    let records = record::all(&view);
    let is = |record: &&Record| record.name == text || text.parse() == Ok(record.id);
    let id = match records.iter().rev().find(is) {
        Some(record) => record.id,
        // A first member that nobody has acted on has none.
        None => named(core, &view, text)?.record.id,
    };
    timetravel::history_of(call, &record::key(id))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Add {
    name: String,
    address: String,
    #[serde(default)]
    promote: bool,
    ttl_seconds: Option<u64>,
}

async fn add(call: &Call) -> Result<Reply, StatusError> {
    let asked: Add = body(call)?;
    well_named(&asked.name)?;
    well_placed(&asked.address)?;
    let ttl_s = asked.ttl_seconds.unwrap_or(TOKEN_S);
    if !(1..=TOKEN_S_MAX).contains(&ttl_s) {
        return Err(StatusError::bad_request(format!(
            "a token may be good for 1 to {TOKEN_S_MAX} seconds, not {ttl_s}"
        )));
    }
    let core = call.core();
    let secret = hex(&core.draw().salt().0);
    let expires_ms = core.now().ms() + ttl_s as i64 * 1_000;
    let mut made = None;
    let mut request = call.request();
    let written = record::write(core, &mut request, Intent::Create, call.deadline, |view| {
        free(core, view, &asked)?;
        let record = Record {
            id: next_id(core, view),
            name: asked.name.clone(),
            address: asked.address.clone(),
            wanted: if asked.promote {
                Wanted::Voter
            } else {
                Wanted::Learner
            },
            invitation: Some(Invitation {
                digest: join::digest(&secret),
                expires_ms,
            }),
            joined: None,
            lead: None,
        };
        made = Some(record.clone());
        Ok(Some(record))
    })
    .await;
    call.put_request(request);
    written?;
    let record = made.ok_or_else(|| StatusError::internal("nothing was written"))?;
    let settings = call.api.settings();
    let authority = authority::digest(&settings.ca_pem);
    let servers: Vec<String> = core
        .node()
        .status()
        .members
        .iter()
        .filter(|member| member.voter)
        .map(|member| format!("https://{}", member.peer.address))
        .collect();
    Ok(Reply::json(
        201,
        &json!({
            "id": record.id, "name": record.name, "address": record.address, "promote": asked.promote,
            "token": format!("{}.{secret}.{authority}", record.id),
            "expires": eventstore::Time::from_ms(expires_ms).to_string(),
            "servers": servers, "signs": settings.authority.is_some(),
        }),
    ))
}

/// Nobody who is there or invited has this name or this address.
fn free(core: &Core, view: &View, asked: &Add) -> Result<(), StatusError> {
    let conflict = |id: u64, name: &str, address: &str, what: &str| {
        Err(refused(format!(
            "{name} at {address} is {what} already (id {id}): to replace it, 'reckon member remove {id}' first"
        )))
    };
    let members = core.node().status().members;
    for member in &members {
        let peer = &member.peer;
        if peer.name == asked.name || peer.address == asked.address {
            return conflict(peer.id, &peer.name, &peer.address, "a member");
        }
    }
    let records = record::all(view);
    for record in records.iter().filter(|record| record.is_wanted()) {
        if record.name == asked.name || record.address == asked.address {
            return conflict(record.id, &record.name, &record.address, "invited");
        }
    }
    let wanted = records.iter().filter(|record| {
        record.is_wanted() && !members.iter().any(|member| member.peer.id == record.id)
    });
    if members.len() + wanted.count() >= VOTERS_MAX {
        return Err(refused(format!(
            "a cluster has {VOTERS_MAX} servers at most"
        )));
    }
    Ok(())
}

/// Above every id that was ever given: to first members, by a record, or to any server that was ever seen.
fn next_id(core: &Core, view: &View) -> u64 {
    let members = core.node().status().members;
    let members = members.iter().map(|member| member.peer.id);
    let records = record::all(view).into_iter().map(|record| record.id);
    let seen = core.node().last_known_id();
    members.chain(records).chain([seen]).max().unwrap_or(0) + 1
}

async fn promote(call: &Call, text: &str) -> Result<Reply, StatusError> {
    let core = call.core();
    act(
        call,
        text,
        |standing, named| standing.may_promote(named.record.id),
        |record| Record {
            wanted: Wanted::Voter,
            ..record
        },
    )
    .await?;
    let id = named(core, &core.view(), text)?.record.id;
    until(call, |standing| {
        standing.member(id).is_some_and(|member| member.voter)
    })
    .await
}

async fn remove(call: &Call, text: &str) -> Result<Reply, StatusError> {
    let id = found(call, text).await?.record.id;
    act(
        call,
        text,
        |standing, named| match named.member {
            true => standing.may_remove(named.record.id),
            false => Ok(()),
        },
        |record| Record {
            wanted: Wanted::Gone,
            ..record
        },
    )
    .await?;
    until(call, |standing| standing.member(id).is_none()).await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: Option<String>,
}

async fn transfer(call: &Call) -> Result<Reply, StatusError> {
    let core = call.core();
    let asked: Transfer = if call.body.is_empty() {
        Transfer::default()
    } else {
        body(call)?
    };
    let standing = standing(call).await?;
    let at = core.now().to_string();
    let (text, lead, to) = match &asked.to {
        Some(text) => {
            let named = found(call, text).await?;
            if named.record.id == standing.leader {
                return list(call).await;
            }
            let to = named.record.id;
            (text.clone(), Lead::Take { at }, Some(to))
        }
        None => {
            let others = standing.members.iter();
            let other = others
                .filter(|member| member.id != standing.leader)
                .any(|member| standing.may_lead(member.id).is_ok());
            if !other {
                return Err(refused(
                    "there is no other voting server that answers and could lead".to_owned(),
                ));
            }
            (standing.leader.to_string(), Lead::Leave { at }, None)
        }
    };
    act(
        call,
        &text,
        |standing, _| match to {
            Some(to) => standing.may_lead(to),
            None => Ok(()),
        },
        |record| Record {
            lead: Some(lead.clone()),
            ..record
        },
    )
    .await?;
    core.hand_over(standing.leader, to, call.deadline)
        .await
        .map_err(refused)?;
    let before = standing.leader;
    until(call, |standing| match to {
        Some(to) => standing.leader == to,
        None => standing.leader != before,
    })
    .await
}

/// Writes what is asked for into a server's record, if what the leader knows allows it.
async fn act(
    call: &Call,
    text: &str,
    may: impl Fn(&Standing, &Named) -> Result<(), String>,
    change: impl Fn(Record) -> Record,
) -> Result<(), StatusError> {
    let core = call.core();
    let standing = standing(call).await?;
    let mut request = call.request();
    let written = record::write(core, &mut request, Intent::Update, call.deadline, |view| {
        let named = named(core, view, text)?;
        may(&standing, &named).map_err(refused)?;
        let changed = change(named.record.clone());
        // Asked for before, and perhaps not carried out yet.
        Ok((record::get(view, changed.id).as_ref() != Some(&changed)).then_some(changed))
    })
    .await;
    call.put_request(request);
    written.map(drop)
}

/// Answers with the list of the members once it is so, as the leader says: a server that is removed hears of it last.
async fn until(call: &Call, done: impl Fn(&Standing) -> bool) -> Result<Reply, StatusError> {
    let waited = async {
        loop {
            let standing = standing(call).await?;
            if done(&standing) {
                return Ok(listed(&standing, &call.core().view()));
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout_at(call.deadline, waited).await.unwrap_or_else(|_| {
        Err(StatusError::timeout(
            "it is asked for and not done yet: 'reckon member list' shows how far it is",
            0,
        ))
    })
}

fn refused(why: String) -> StatusError {
    StatusError::new(409, "Conflict", why, Value::Null)
}

fn body<'a, T: Deserialize<'a>>(call: &'a Call) -> Result<T, StatusError> {
    serde_json::from_slice(&call.body)
        .map_err(|error| StatusError::bad_request(format!("the body: {error}")))
}

/// What a certificate can say and an act can tell from an id.
fn well_named(name: &str) -> Result<(), StatusError> {
    let fine = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.bytes().all(|byte| byte.is_ascii_digit());
    if fine {
        return Ok(());
    }
    Err(StatusError::bad_request(format!(
        "{name:?} is no name for a server: small letters, digits and '-', 63 at most, and not digits alone"
    )))
}

fn well_placed(address: &str) -> Result<(), StatusError> {
    let fine = address.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host.trim_matches(['[', ']']);
        let known = bare.parse::<IpAddr>().is_ok()
            || (!bare.is_empty()
                && bare
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')));
        known && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if fine {
        return Ok(());
    }
    Err(StatusError::bad_request(format!(
        "{address:?} is no HOST:PORT under which the others could reach the server"
    )))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
