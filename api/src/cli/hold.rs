//! `reckon hold`: a floor below which retention does not prune, under a name, until it is released.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use super::output::{self, table};
use super::resource::escape;
use super::{Client, Connection};

const PATH: &str = "/reckon/v1/holds";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon hold audit-2026                     from now on
  reckon hold incident-7 --at 120400         from a revision on
  reckon hold incident-7 --at 2026-11-21T08:00:00Z
  reckon hold --list
  reckon hold incident-7 --release

History is pruned only when the servers run with --history-retention or --ephemeral-history-retention.")]
pub struct Args {
    /// Under which name; a hold of that name moves
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// From which moment on: a revision or an RFC 3339 time [default: now]
    #[arg(long, value_name = "REVISION|TIME", conflicts_with_all = ["list", "release"])]
    at: Option<String>,
    /// Let it go: what only it kept may be pruned
    #[arg(long)]
    release: bool,
    /// List what is held
    #[arg(long, conflicts_with_all = ["name", "release"])]
    list: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let format = args.connection.output;
    match args.name {
        None => {
            let answer = client.get(PATH).await?;
            output::print(format, &answer, || listed(&answer))?;
        }
        Some(name) if args.release => {
            let path = format!("{PATH}/{}", escape(&name));
            let answer = client.ask(Method::DELETE, &path, &Value::Null).await?;
            output::print(format, &answer, || {
                format!("{name} holds nothing any more\n")
            })?;
        }
        Some(name) => hold(&client, &name, args.at.as_deref(), format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn hold(
    client: &Client,
    name: &str,
    at: Option<&str>,
    format: Option<output::Format>,
) -> Result<()> {
    let asked = json!({ "name": name, "at": at });
    let answer = client.ask(Method::POST, PATH, &asked).await?;
    output::print(format, &answer, || {
        format!(
            "{name} holds history from revision {} on\n",
            answer["revision"]
        )
    })
}

fn listed(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|hold| {
            let name = hold["name"].as_str().unwrap_or_default();
            vec![name.to_owned(), hold["revision"].to_string()]
        })
        .collect();
    if rows.is_empty() {
        return "Nothing is held.\n".to_owned();
    }
    table(&["NAME", "FROM REVISION"], rows)
}
