//! `reckon history`: what happened to an object, from its events.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Connection;
use super::output::{self, table};
use super::resource::{Target, escape};

/// Changes shown of one event before the rest is counted: a rollout's status touches a dozen fields.
const SHOWN_CHANGES: usize = 3;
/// Characters of a value in the table.
const SHOWN_VALUE: usize = 40;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon history deployment/web
  reckon history pod/web-1 -n shop --limit 20
  reckon history deployments.apps/web -o json
  reckon history node/agent-1

Newest last. An object that was deleted still has its history.")]
pub struct Args {
    /// KIND/NAME, the kind as kubectl takes it
    #[arg(value_name = "KIND/NAME", required_unless_present = "id")]
    object: Option<String>,
    /// The namespace [default: the kubeconfig's context's, else 'default']
    #[arg(short, long)]
    namespace: Option<String>,
    /// What one request did: the Audit-Id of its answer
    #[arg(long, value_name = "AUDIT-ID", conflicts_with = "object")]
    id: Option<String>,
    /// At most this many, the newest
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Only what is older than this revision
    #[arg(long, value_name = "REVISION")]
    before: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    if let Some(id) = &args.id {
        let outcome = client
            .get(&format!("/reckon/v1/history?id={}", escape(id)))
            .await?;
        output::print(args.connection.output, &outcome, || outcome_text(&outcome))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(object) = &args.object else {
        bail!("name an object, KIND/NAME, or a request with --id")
    };
    let target = Target::resolve(&client, object, args.namespace.as_deref()).await?;
    let mut path = format!("/reckon/v1/history?{}", target.query());
    if let Some(limit) = args.limit {
        path.push_str(&format!("&limit={limit}"));
    }
    if let Some(before) = args.before {
        path.push_str(&format!("&before={before}"));
    }
    let answer = client.get(&path).await?;
    let mut items = answer["items"].as_array().cloned().unwrap_or_default();
    items.sort_by_key(|item| item["revision"].as_u64());
    if items.is_empty() {
        bail!("there is no history of {target}");
    }
    output::print(args.connection.output, &json!({ "items": items }), || {
        text(&items)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What became of one request.
fn outcome_text(outcome: &Value) -> String {
    let revisions = outcome["revisions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let all: Vec<String> = revisions.iter().map(Value::to_string).collect();
    // A restore may have taken several events.
    match (outcome["why"].as_str(), &all[..]) {
        (Some(why), []) => format!("rejected: {why}\n"),
        (Some(why), some) => format!(
            "accepted in part, as revision {}; then rejected: {why}\n",
            some.join(", ")
        ),
        (None, [] | [_]) => format!("accepted as revision {}\n", outcome["revision"]),
        (None, many) => format!("accepted as revisions {}\n", many.join(", ")),
    }
}

/// One line an event.
pub fn text(items: &[Value]) -> String {
    let rows = items
        .iter()
        .map(|item| {
            vec![
                item["revision"].to_string(),
                time(item),
                actor(&item["actor"]),
                intent(item),
                changes(item),
            ]
        })
        .collect();
    table(&["REVISION", "TIME", "ACTOR", "INTENT", "CHANGE"], rows)
}

/// To the second; the whole is in `-o json`.
pub fn time(item: &Value) -> String {
    let time = item["time"].as_str().unwrap_or("-");
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_string(),
    }
}

/// `admin by kubectl`, `reconciler deployment`, `agent agent-1`.
pub fn actor(actor: &Value) -> String {
    let text = |field: &str| actor[field].as_str().unwrap_or_default();
    let name = text("name");
    match (text("kind"), text("client")) {
        ("user", "") => name.to_string(),
        // `kubectl/v1.32.4 (linux/amd64) kubernetes/…`: the program is what comes first.
        ("user", client) => format!(
            "{name} by {}",
            client.split(['/', ' ']).next().unwrap_or(client)
        ),
        (kind, _) => format!("{kind} {name}"),
    }
}

pub fn intent(item: &Value) -> String {
    item["intentText"]
        .as_str()
        .or(item["intent"].as_str())
        .unwrap_or("-")
        .to_string()
}

/// `created`, `deleted`, or the fields that changed.
pub fn changes(item: &Value) -> String {
    let change = item["change"].as_str().unwrap_or("updated");
    let diff = item["diff"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if change != "updated" || diff.is_empty() {
        return change.to_string();
    }
    let mut shown: Vec<String> = diff.iter().take(SHOWN_CHANGES).map(field).collect();
    if diff.len() > SHOWN_CHANGES {
        shown.push(format!("and {} more", diff.len() - SHOWN_CHANGES));
    }
    shown.join("; ")
}

/// `spec.replicas: 3 → 10`
fn field(change: &Value) -> String {
    let value = |value: &Value| {
        let text = match value {
            Value::Null => "(none)".to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match text.char_indices().nth(SHOWN_VALUE) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    };
    format!(
        "{}: {} → {}",
        change["path"].as_str().unwrap_or("?"),
        value(&change["from"]),
        value(&change["to"])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_in_words() {
        let check = |item: Value, expected: [&str; 4]| {
            assert_eq!(
                [
                    time(&item),
                    actor(&item["actor"]),
                    intent(&item),
                    changes(&item)
                ],
                expected,
                "{item}"
            );
        };
        check(
            json!({ "time": "2026-11-21T09:12:03.123Z", "actor": { "kind": "user", "name": "admin", "client": "kubectl/v1.32.4 (linux/amd64)" },
                "intent": "Scale", "intentText": "Scale 3 → 10", "change": "updated", "diff": [{ "path": "spec.replicas", "from": 3, "to": 10 }] }),
            [
                "2026-11-21T09:12:03Z",
                "admin by kubectl",
                "Scale 3 → 10",
                "spec.replicas: 3 → 10",
            ],
        );
        check(
            json!({ "time": "2026-11-21T09:12:03Z", "actor": { "kind": "reconciler", "name": "deployment" }, "intent": "Create", "change": "created" }),
            [
                "2026-11-21T09:12:03Z",
                "reconciler deployment",
                "Create",
                "created",
            ],
        );
        let many: Vec<Value> = (0..5)
            .map(|n| json!({ "path": format!("f{n}"), "to": "x" }))
            .collect();
        check(
            json!({ "actor": { "kind": "user", "name": "eve" }, "change": "updated", "diff": many }),
            [
                "-",
                "eve",
                "-",
                "f0: (none) → x; f1: (none) → x; f2: (none) → x; and 2 more",
            ],
        );
        let long = json!({ "actor": { "kind": "agent", "name": "agent-1" }, "change": "updated", "diff": [{ "path": "p", "from": "a".repeat(50), "to": null }] });
        check(
            long,
            [
                "-",
                "agent agent-1",
                "-",
                &format!("p: {}… → (none)", "a".repeat(40)),
            ],
        );
    }
}
