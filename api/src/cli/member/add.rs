//! `reckon member add`: invites a server, and says how to start it.

use std::process::ExitCode;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use super::super::duration;
use super::{Connection, output, why};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon member add server-4 10.0.0.4:6443 --promote
  reckon member add server-4 10.0.0.4:6443 --ttl 1h -o json

It prints the command to run on the new server's machine. The token in it is good for this one server, until it expires; it
is shown once. The new server receives the log as a learner; it votes once it was promoted.")]
pub struct Args {
    /// The new server's name
    name: String,
    /// Under which address the others reach it
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// Give it its vote as soon as it has caught up
    #[arg(long)]
    promote: bool,
    /// How long the token is good
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration::seconds)]
    ttl: u64,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let body = json!({
        "name": args.name, "address": args.address, "promote": args.promote, "ttlSeconds": args.ttl,
    });
    let client = args.connection.client()?;
    let added = client
        .ask(Method::POST, "/reckon/v1/members", &body)
        .await
        .map_err(why)?;
    output::print(args.connection.output, &added, || text(&added))?;
    Ok(ExitCode::SUCCESS)
}

fn text(added: &Value) -> String {
    let shown = |field: &str| added[field].as_str().unwrap_or("-").to_string();
    let servers: Vec<&str> = added["servers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let (name, address) = (shown("name"), shown("address"));
    let port = address.rsplit_once(':').map_or("6443", |(_, port)| port);
    let mut text = format!(
        "{name} is invited, with the id {}. On its machine, with an empty directory:\n\n  reckon server --data-dir \
         /var/lib/reckon --listen 0.0.0.0:{port} \\\n      --join {} \\\n      --token {}\n\nThe token is good until {}.",
        added["id"],
        servers.join(","),
        shown("token"),
        shown("expires"),
    );
    text.push_str(match added["promote"].as_bool() {
        Some(true) => " It votes once it has caught up.\n",
        _ => " Once it has caught up:\n\n  reckon member promote ",
    });
    if added["promote"] != true {
        text.push_str(&format!("{name}\n"));
    }
    if added["signs"] == false {
        text.push_str(
            "\nThe server that answered can't sign certificates (it has no --ca-key). Where no other has it either, make the new \
             server's own\n(CN its name, O system:reckon:servers, for its address) and give it --ca, --cert and --key in place of \
             --token.\n",
        );
    }
    text
}
