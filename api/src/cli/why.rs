//! `reckon why`: the chain of causes, from an object back to the act that began it. The server walks it; here it is put in words.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::Value;

use super::history::{actor, changes, intent, time};
use super::resource::Target;
use super::{Connection, output};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon why pod/web-5d4f9c-abcde
  reckon why deployment/web -n shop
  reckon why pod/web-1 --revision 1203
  reckon why pod/web-1 -o json

The chain begins with the object's creation, or with the change that --revision names, and ends with what no event caused.")]
pub struct Args {
    /// KIND/NAME, the kind as kubectl takes it
    #[arg(value_name = "KIND/NAME")]
    object: String,
    /// The namespace [default: the kubeconfig's context's, else 'default']
    #[arg(short, long)]
    namespace: Option<String>,
    /// Why this change of it came, instead of its creation
    #[arg(long)]
    revision: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let target = Target::resolve(&client, &args.object, args.namespace.as_deref()).await?;
    let mut path = format!("/reckon/v1/why?{}", target.query());
    if let Some(revision) = args.revision {
        path.push_str(&format!("&revision={revision}"));
    }
    let answer = client.get(&path).await?;
    let chain = answer["chain"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if chain.is_empty() {
        bail!("the history knows no cause of {target}");
    }
    output::print(args.connection.output, &answer, || text(&target, chain))?;
    Ok(ExitCode::SUCCESS)
}

fn text(target: &Target, chain: &[Value]) -> String {
    let mut text = format!("{target}\n");
    for (depth, event) in chain.iter().enumerate() {
        let because = if depth == 0 { "" } else { "because " };
        text.push_str(&format!(
            "\n{because}revision {} at {}: {}\n",
            event["revision"],
            time(event),
            actor(&event["actor"])
        ));
        text.push_str(&format!(
            "    {}    {}\n",
            intent(event),
            key(&event["key"])
        ));
        if event["change"] == "updated" {
            text.push_str(&format!("    {}\n", changes(event)));
        }
    }
    text
}

/// `pods/default/web-1`; nothing for an event that is about no object.
fn key(key: &Value) -> String {
    let parts =
        ["resource", "namespace", "name"].map(|part| key[part].as_str().unwrap_or_default());
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}
