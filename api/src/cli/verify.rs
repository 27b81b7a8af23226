//! `reckon verify`: every digest of the history computed anew. Each server checks its own copy, and at equal revisions they must agree.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, bail};
use http::Method;
use http_body_util::BodyExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::{Failure, Server};
use super::{Connection, output};

/// A line of the answer's stream.
const MAX_LINE_BYTES: usize = 1 << 20;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon verify
  reckon verify -o json

The exit code is 0 only when every server that could be reached found every digest right, and one at least was reached.")]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let mut results = Vec::new();
    for server in client.servers() {
        results.push(match verify(server).await {
            Ok(found) => found,
            Err(failure @ Failure::Unreachable { .. }) => {
                json!({ "server": server.name, "error": failure.to_string() })
            }
            Err(failure) => {
                json!({ "server": server.name, "ok": false, "error": failure.to_string() })
            }
        });
    }
    let reached: Vec<&Value> = results
        .iter()
        .filter(|result| !result["ok"].is_null())
        .collect();
    if reached.is_empty() {
        bail!(
            "no server could be reached: {}",
            results[0]["error"].as_str().unwrap_or_default()
        );
    }
    let ok = reached.iter().all(|result| result["ok"] == true);
    output::print(
        args.connection.output,
        &json!({ "ok": ok, "servers": results }),
        || results.iter().map(text).collect(),
    )?;
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The server's last line, which tells how it ended, with the server's name.
async fn verify(server: &Server) -> Result<Value, Failure> {
    let bar = ProgressBar::hidden();
    if std::io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        bar.set_style(
            ProgressStyle::with_template("{msg} {bar:40} {pos}/{len}")
                .unwrap_or(ProgressStyle::default_bar()),
        );
        bar.set_message(server.name.clone());
    }
    let mut body = server
        .send(Method::GET, "/reckon/v1/verify")
        .await?
        .into_body();
    let mut buffer = Vec::new();
    let mut last = Value::Null;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| server.unreadable(error))?;
        buffer.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            last = serde_json::from_slice(&line).map_err(|error| server.unreadable(error))?;
            if let (Some(done), Some(of)) = (last["revision"].as_u64(), last["of"].as_u64()) {
                bar.set_length(of);
                bar.set_position(done);
            }
        }
        if buffer.len() > MAX_LINE_BYTES {
            return Err(server.unreadable("a line without end"));
        }
    }
    bar.finish_and_clear();
    if last["ok"].is_null() {
        return Err(server.unreadable("the check broke off before its end"));
    }
    last["server"] = json!(server.name);
    Ok(last)
}

fn text(result: &Value) -> String {
    let server = result["server"].as_str().unwrap_or("-");
    if result["ok"] == true {
        return format!(
            "{server}: all digests hold: {} events, {} versions of objects, up to revision {}, digest {}\n",
            result["events"],
            result["versions"],
            result["revision"],
            result["digest"].as_str().unwrap_or("-")
        );
    }
    let what = result["error"]
        .as_str()
        .or(result["what"].as_str())
        .unwrap_or("the digests do not hold");
    match result["revision"].as_u64() {
        Some(revision) => format!("{server}: wrong at revision {revision}: {what}\n"),
        None => format!("{server}: {what}\n"),
    }
}
