//! `reckon member`: who the servers are, and how they come and go. A command a file.

mod add;
mod history;
mod list;
mod promote;
mod remove;
mod transfer_leader;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use http::Method;
use serde_json::Value;

use super::Connection;
use super::client::Failure;
use super::output::{self, table};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon member list
  reckon member add server-4 10.0.0.4:6443 --promote
  reckon member remove server-2
  reckon member transfer-leader server-3

To replace a server that is dead: remove it, add one anew (the name may be the same, the id is another), and start that one with
an empty directory. When a majority is lost for good, see 'reckon server --help' about --recover-from-disk.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the members: role, address, how far each is behind the leader, who is invited
    List(list::Args),
    /// Invite a server, and print how to start it
    Add(add::Args),
    /// Give a server its vote that has caught up
    Promote(promote::Args),
    /// Send a server away, dead or alive
    Remove(remove::Args),
    /// List what was done to a server: when, by whom
    History(history::Args),
    /// Let another server lead
    TransferLeader(transfer_leader::Args),
}

pub async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::List(args) => list::run(args).await,
        Command::Add(args) => add::run(args).await,
        Command::Promote(args) => promote::run(args).await,
        Command::Remove(args) => remove::run(args).await,
        Command::History(args) => history::run(args).await,
        Command::TransferLeader(args) => transfer_leader::run(args).await,
    }
}

/// Has an act done, which is answered with the list of the members as it is then.
async fn act(connection: &Connection, path: &str, body: &Value, done: &str) -> Result<ExitCode> {
    let members = connection
        .client()?
        .ask(Method::POST, path, body)
        .await
        .map_err(why)?;
    output::print(connection.output, &members, || {
        format!("{done}\n\n{}", text(&members))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What a server refuses it explains by itself.
fn why(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Refused { message, .. } => anyhow::anyhow!(message),
        other => other.into(),
    }
}

fn text(answer: &Value) -> String {
    let rows = answer["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    table(
        &[
            "ID",
            "NAME",
            "ROLE",
            "ADDRESS",
            "ANSWERS",
            "LAG",
            "TOKEN UNTIL",
        ],
        rows,
    )
}

fn row(member: &Value) -> Vec<String> {
    let text = |field: &str| match &member[field] {
        Value::Null => "-".to_string(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ["id", "name", "role", "address", "answers", "lag", "expires"]
        .map(text)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_member_and_one_that_is_invited() {
        let check = |member: Value, expected: [&str; 7]| assert_eq!(row(&member), expected);
        check(
            json!({ "id": 1, "name": "server-1", "role": "leader", "address": "h:1", "answers": true, "lag": 0 }),
            ["1", "server-1", "leader", "h:1", "yes", "0", "-"],
        );
        check(
            json!({ "id": 4, "name": "server-4", "role": "invited", "address": "h:4", "expires": "2026-11-21T09:12:03Z" }),
            [
                "4",
                "server-4",
                "invited",
                "h:4",
                "-",
                "-",
                "2026-11-21T09:12:03Z",
            ],
        );
    }
}
