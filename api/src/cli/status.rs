//! `reckon status`: each server asked about itself, so that what one has not heard of another does not hide it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use serde_json::{Value, json};

use super::Connection;
use super::output::{self, table};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon status
  reckon status -o json
  reckon status --kubeconfig /srv/reckon/admin.kubeconfig

The exit code is not 0 when no server answers. Equal revisions must have equal digests.")]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
}

/// One that hangs is told as such, and not waited for as long as a write would be.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let asked = client.servers().iter().map(|server| async {
        let answer = server.get("/reckon/v1/status");
        let answer = tokio::time::timeout(ANSWER_LIMIT, answer).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(server.unreachable(
                true,
                format!("no answer within {} s", ANSWER_LIMIT.as_secs()),
            ))
        });
        match answer {
            Ok(mut status) => {
                // Who is a member is what this command asks all of them for.
                if let Some(fields) = status.as_object_mut() {
                    fields.shift_remove("members");
                }
                (status, true)
            }
            Err(failure) => (
                json!({ "name": server.name, "url": server.url(), "error": failure.to_string() }),
                false,
            ),
        }
    });
    let (mut members, answered): (Vec<Value>, Vec<bool>) =
        join_all(asked).await.into_iter().unzip();
    // And not the kubeconfig's current context first.
    members.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    let status = summary(members);
    output::print(args.connection.output, &status, || text(&status))?;
    Ok(if answered.contains(&true) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The leader is whom the members of the latest term name.
fn summary(members: Vec<Value>) -> Value {
    let latest = members
        .iter()
        .filter(|member| !member["leader"].is_null())
        .max_by_key(|member| member["term"].as_u64());
    let term = members
        .iter()
        .filter_map(|member| member["term"].as_u64())
        .max();
    json!({
        "leader": latest.filter(|member| member["term"].as_u64() == term).map(|member| &member["leader"]),
        "term": term,
        "members": members,
    })
}

fn text(status: &Value) -> String {
    let leader = status["leader"].as_str();
    let rows = status["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|member| row(member, leader))
        .collect();
    let mut text = table(
        &["NAME", "ROLE", "TERM", "REVISION", "APPLIED", "DIGEST"],
        rows,
    );
    if leader.is_none() {
        text.push_str("\nNo leader: writes wait until a majority of the servers is up.\n");
    } else if !majority(status) {
        // Whoever led when the others went still says so.
        text.push_str("\nNo majority of the servers answers: writes wait until one does.\n");
    }
    if let Some(reach) = reach(status) {
        text.push_str(&format!("\n{reach}\n"));
    }
    for member in status["members"].as_array().into_iter().flatten() {
        if let Some(error) = member["error"].as_str() {
            text.push_str(&format!("\n{error}\n"));
        }
        if let Some(fault) = member["fault"].as_str() {
            text.push_str(&format!(
                "\n{} does not serve: {fault}\n",
                shown(&member["name"])
            ));
        }
        for warning in member["warnings"].as_array().into_iter().flatten() {
            text.push_str(&format!("\n{}\n", shown(warning)));
        }
    }
    text
}

/// How far back history can be read, where that is not to the beginning: as the server says that is furthest.
fn reach(status: &Value) -> Option<String> {
    let members = status["members"].as_array()?.iter();
    let furthest = members.max_by_key(|member| member["revision"].as_u64())?;
    let horizon = furthest["horizon"].as_u64().unwrap_or_default();
    let own = furthest["horizons"].as_object().into_iter().flatten();
    let own = own.map(|(resource, at)| format!("of {resource} from {at} on"));
    let all = (horizon > 0).then(|| format!("from revision {horizon} on"));
    let reaches: Vec<String> = all.into_iter().chain(own).collect();
    (!reaches.is_empty()).then(|| format!("History is kept {}.", reaches.join(", ")))
}

fn majority(status: &Value) -> bool {
    let members = status["members"].as_array().map_or(&[][..], Vec::as_slice);
    let answering = members.iter().filter(|member| member["error"].is_null());
    answering.count() * 2 > members.len()
}

fn row(member: &Value, leader: Option<&str>) -> Vec<String> {
    let name = shown(&member["name"]);
    let role = match (member["error"].is_null(), leader == Some(name.as_str())) {
        (false, _) => "unreachable",
        (true, _) if member["fenced"] == true => "fenced",
        (true, true) => "leader",
        (true, false) => "follower",
    };
    let mut digest = shown(&member["digest"]);
    digest.truncate(16);
    vec![
        name,
        role.to_string(),
        shown(&member["term"]),
        shown(&member["revision"]),
        shown(&member["applied"]),
        digest,
    ]
}

/// A value as a table's cell shows it; `-` for none.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_alone_is_not_enough() {
        let check = |errors: &[bool], expected: bool| {
            let members: Vec<Value> = errors
                .iter()
                .map(|error| json!({ "name": "s", "term": 1, "leader": "s", "error": error.then_some("refused") }))
                .collect();
            let said = text(&summary(members)).contains("No majority");
            assert_eq!(said, expected, "{errors:?}");
        };
        check(&[false], false);
        check(&[false, true], true);
        check(&[false, false, true], false);
        check(&[false, true, true], true);
    }

    #[test]
    fn how_far_back_history_reaches() {
        let check = |furthest: Value, expected: &str| {
            let behind =
                json!({ "name": "a", "revision": 1, "horizon": 9, "horizons": { "events": 9 } });
            let said = text(&summary(vec![behind, furthest]));
            let said = said.lines().find(|line| line.starts_with("History"));
            assert_eq!(said.unwrap_or_default(), expected);
        };
        let member = |horizon: u64, own: Value| json!({ "name": "b", "revision": 2, "horizon": horizon, "horizons": own });
        check(member(0, json!({})), "");
        check(
            member(300, json!({})),
            "History is kept from revision 300 on.",
        );
        check(
            member(0, json!({ "events": 500 })),
            "History is kept of events from 500 on.",
        );
        check(
            member(
                300,
                json!({ "coordination.k8s.io/leases": 400, "events": 500 }),
            ),
            "History is kept from revision 300 on, of coordination.k8s.io/leases from 400 on, of events from 500 on.",
        );
    }

    #[test]
    fn the_latest_term_names_the_leader() {
        let check = |members: Value, leader: Value, term: Value| {
            let status = summary(members.as_array().cloned().unwrap());
            assert_eq!(
                (&status["leader"], &status["term"]),
                (&leader, &term),
                "{members}"
            );
        };
        let member = |name: &str, term: u64, leader: Option<&str>| json!({ "name": name, "term": term, "leader": leader });
        let down = json!({ "name": "server-3", "error": "refused" });
        check(
            json!([member("a", 2, Some("a")), member("b", 2, Some("a"))]),
            json!("a"),
            json!(2),
        );
        check(
            json!([member("a", 2, Some("a")), member("b", 3, Some("b"))]),
            json!("b"),
            json!(3),
        );
        check(
            json!([member("a", 2, Some("a")), member("b", 3, None)]),
            json!(null),
            json!(3),
        );
        check(
            json!([member("a", 2, Some("a")), down]),
            json!("a"),
            json!(2),
        );
        check(json!([down]), json!(null), json!(null));
    }
}
