//! `reckon restore`: the past written forward on a living cluster, by new events; or a new cluster made from a backup.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};
use server::archive::{Archive, restore};
use uuid::Uuid;

use super::backup::progress;
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
  reckon restore --from s3://backups/reckon --at 2026-11-21T08:00:00Z --data-dir ./new/server-1

What was changed since is put back, what was deleted is made again, what is new is deleted. Status, nodes, leases and events are left as they
are, and what a controller made is left to it. It is a change like any other: 'reckon history' shows it with who did it, and restoring the
revision before it undoes it.

It is one atomic event where it fits (4 MiB, 900 changes). The rest follows in further events under the same id, each of which names the one
before; so does what belongs to an object that has to come back first, for only then is its owner's new uid known.

With --from a directory is made for the first server of a new cluster, which has all of the old one's history (where the backup has gaps:
that between two of them, see 'reckon backup list') and goes on from the moment asked for: what was desired then; no pods of controllers, no
nodes, leases or status. Its revisions go on above all that the old one may have given out (--revision-gap): clients that stand between list
anew. Start it alone, and let others join it ('reckon member
add'); on one machine: reckon up --data-dir ./new --servers 1, and later with --servers 3.")]
pub struct Args {
    /// KIND/NAME of one object [default: all of the namespace, else of the cluster]
    #[arg(value_name = "KIND/NAME")]
    object: Option<String>,
    /// All of this namespace; with an object: where it lives
    #[arg(short, long)]
    namespace: Option<String>,
    /// To which moment: a revision or an RFC 3339 time [with --from the default is the end of the backup]
    #[arg(long, value_name = "REVISION|TIME", required_unless_present = "from")]
    at: Option<String>,
    /// Make a new cluster from the backup at this URL
    #[arg(long, value_name = "URL", requires = "data_dir", conflicts_with_all = ["object", "namespace", "dry_run"])]
    from: Option<String>,
    /// With --from: the directory of the new cluster's first server, which is made
    #[arg(long, value_name = "DIR", requires = "from")]
    data_dir: Option<PathBuf>,
    /// With --from: of which cluster, where there are several
    #[arg(long, value_name = "ID", requires = "from")]
    cluster: Option<Uuid>,
    /// With --from: how many revisions to pass over, for the old cluster may have given out more than was backed up
    #[arg(long, value_name = "REVISIONS", default_value_t = REVISION_GAP)]
    revision_gap: u64,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Far more than a cluster writes between two looks of the archive.
const REVISION_GAP: u64 = 1_000_000;

pub async fn run(args: Args) -> Result<ExitCode> {
    if let (Some(from), Some(data_dir)) = (&args.from, &args.data_dir) {
        return from_backup(&args, from, data_dir).await;
    }
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

async fn from_backup(args: &Args, from: &str, data_dir: &Path) -> Result<ExitCode> {
    let archive = Archive::open(from)?;
    let bar = progress(0);
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let user = user
        .ok()
        .flatten()
        .map_or_else(|| "unknown".to_owned(), |user| user.name);
    let asked = restore::Asked {
        cluster: args.cluster,
        at: args.at.clone(),
        gap: args.revision_gap,
        user,
    };
    let made = restore::restore(&archive, data_dir, &asked, |revision, last| {
        bar.set_length(last);
        bar.set_position(revision);
    })
    .await;
    bar.finish_and_clear();
    let made = made?;
    let ends = match (made.before_revision, made.archive_revision) {
        (loaded, reaches) if loaded < reaches => format!(
            "whose history is loaded up to revision {loaded}, where that stretch of its backup ends; the backup reaches {reaches}"
        ),
        (loaded, _) => format!("whose backup ends at revision {loaded}"),
    };
    output::print(args.connection.output, &made, || {
        format!(
            "Restored {} objects as of revision {} ({}) of cluster {}, {}.\n{} revisions behind that are passed \
             over, for the old cluster may have given them out.\nThe new cluster is {}; it begins at revision {}, and its history goes back into \
             the old one's.\n\nStart its first server alone, with the name and address it is to have:\n  \
             reckon server --data-dir {} --name NAME --initial-cluster NAME=HOST:PORT --ca … --cert … --key …\nor, if that directory is \
             DIR/server-1, on this machine: reckon up --data-dir DIR --servers 1\n",
            made.objects,
            made.at,
            made.at_time,
            made.before,
            ends,
            made.gap,
            made.cluster,
            made.revision,
            data_dir.display()
        )
    })?;
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
        if answer["dryRun"] == true {
            text.push_str(&whole(item));
        } else if item["change"] == "updated" {
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

/// Every field that would change: one behind the colon, more of them below it.
fn whole(item: &Value) -> String {
    if item["diffLeftOut"] == true {
        return " (too much to show: restore it alone with --dry-run to see it)".to_owned();
    }
    let lines = item["diff"].as_array().map_or(&[][..], Vec::as_slice);
    let lines: Vec<String> = lines
        .iter()
        .map(|line| {
            let path = line["path"].as_str().unwrap_or_default();
            let value = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
            match (&line["from"], &line["to"], item["change"] == "updated") {
                (Value::Null, to, false) => format!("+ {path}: {}", value(to)),
                (from, Value::Null, false) => format!("- {path}: {}", value(from)),
                (Value::Null, to, true) => format!("{path}: (none) → {}", value(to)),
                (from, Value::Null, true) => format!("{path}: {} → (none)", value(from)),
                (from, to, _) => format!("{path}: {} → {}", value(from), value(to)),
            }
        })
        .collect();
    match (&lines[..], item["change"] == "updated") {
        ([], _) => String::new(),
        ([one], true) => format!(": {one}"),
        (many, _) => format!(":\n  {}", many.join("\n  ")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_in_words() {
        let key = |name: &str| json!({"resource": "configmaps", "namespace": "shop", "name": name});
        let long = "x".repeat(100);
        let many: Vec<Value> = (0..5)
            .map(|n| json!({"path": format!("data.f{n}"), "from": n, "to": null}))
            .collect();
        let answer = json!({"at": 120, "dryRun": true, "revisions": [], "left": [{"key": "configmaps/shop/e", "why": "its owner is not there"}], "items": [
            {"key": key("a"), "change": "updated", "diff": [{"path": "data.colour", "from": "blue", "to": "red"}]},
            {"key": key("b"), "change": "updated", "diff": many},
            {"key": key("c"), "change": "created", "diff": [
                {"path": "kind", "from": null, "to": "ConfigMap"}, {"path": "data", "from": null, "to": {"text": long}},
            ]},
            {"key": key("d"), "change": "deleted", "diff": [{"path": "data", "from": {"a": "1"}, "to": null}]},
            {"key": key("f"), "change": "created", "diff": [], "diffLeftOut": true},
        ]});
        let expected = format!(
            "configmaps/shop/a would be put back: data.colour: blue → red\n\
             configmaps/shop/b would be put back:\n  data.f0: 0 → (none)\n  data.f1: 1 → (none)\n  data.f2: 2 → (none)\n  \
             data.f3: 3 → (none)\n  data.f4: 4 → (none)\n\
             configmaps/shop/c would be made again:\n  + kind: ConfigMap\n  + data: {{\"text\":\"{long}\"}}\n\
             configmaps/shop/d would be deleted:\n  - data: {{\"a\":\"1\"}}\n\
             configmaps/shop/f would be made again (too much to show: restore it alone with --dry-run to see it)\n\
             configmaps/shop/e is left: its owner is not there\n"
        );
        assert_eq!(text(&answer), expected);
    }
}
