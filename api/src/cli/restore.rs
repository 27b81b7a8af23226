//! `reckon restore`: the past written forward on a living cluster, by new events.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use super::history::changes;
use super::resource::Target;
use super::{Connection, output};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon restore configmap/a --at 120 --dry-run
  reckon restore configmap/a --at 120
  reckon restore --namespace shop --at 2026-11-21T08:00:00Z
  reckon restore --at 1042                   everything that is desired state

What was changed since is put back, what was deleted is made again, what is new is deleted. Status, nodes, leases and events are left as they
are, and what a controller made is left to it. It is a change like any other: 'reckon history' shows it with who did it, and restoring the
revision before it undoes it.")]
pub struct Args {
    /// KIND/NAME of one object [default: all of the namespace, else of the cluster]
    #[arg(value_name = "KIND/NAME")]
    object: Option<String>,
    /// All of this namespace; with an object: where it lives
    #[arg(short, long)]
    namespace: Option<String>,
    /// To which moment: a revision or an RFC 3339 time
    #[arg(long, value_name = "REVISION|TIME")]
    at: String,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let mut asked = json!({ "at": args.at, "dryRun": args.dry_run });
    match &args.object {
        Some(object) => {
            let target = Target::resolve(&client, object, args.namespace.as_deref()).await?;
            target.name_in(&mut asked);
        }
        None => asked["namespace"] = json!(args.namespace),
    }
    let answer = client
        .ask(Method::POST, "/reckon/v1/restore", &asked)
        .await?;
    output::print(args.connection.output, &answer, || text(&answer))?;
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Value) -> String {
    let mut text = String::new();
    let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
    for item in items {
        let verb = match (item["change"].as_str(), answer["dryRun"] == true) {
            (Some("created"), false) => "made again",
            (Some("created"), true) => "would be made again",
            (Some("deleted"), false) => "deleted",
            (Some("deleted"), true) => "would be deleted",
            (_, false) => "put back",
            (_, true) => "would be put back",
        };
        text.push_str(&format!("{} {verb}", key(&item["key"])));
        if item["change"] == "updated" {
            text.push_str(&format!(": {}", changes(item)));
        }
        text.push('\n');
    }
    for left in answer["left"].as_array().into_iter().flatten() {
        let part = |field: &str| left[field].as_str().unwrap_or_default();
        text.push_str(&format!("{} is left: {}\n", part("key"), part("why")));
    }
    if items.is_empty() {
        text.push_str(&format!(
            "Nothing to restore: it is as it was at revision {}.\n",
            answer["at"]
        ));
    } else if answer["dryRun"] != true {
        let revisions: Vec<String> = answer["revisions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(Value::to_string)
            .collect();
        text.push_str(&format!(
            "Restored as of revision {}; revision {}.\n",
            answer["at"],
            revisions.join(", ")
        ));
    }
    text
}

fn key(key: &Value) -> String {
    let parts =
        ["resource", "namespace", "name"].map(|part| key[part].as_str().unwrap_or_default());
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}
