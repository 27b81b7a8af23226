//! `reckon diff`: an object at two moments, as a unified diff of its YAML. Each side is one read through `/at/…`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use similar::{ChangeTag, TextDiff};

use super::resource::{Target, escape};
use super::{Client, Connection, output};

/// Lines shown around a change.
const CONTEXT_LINES: usize = 3;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  reckon diff deployment/web --from 1042 --to 1100
  reckon diff deployment/web --from 2026-11-21T09:00:00Z
  reckon diff pod/web-1 -n shop --from 1042 --to 1100 --show-managed-fields

Where the object did not exist, that side is empty. The exit code is 0 whether or not there is a difference.")]
pub struct Args {
    /// KIND/NAME, the kind as kubectl takes it
    #[arg(value_name = "KIND/NAME")]
    object: String,
    /// The namespace [default: the kubeconfig's context's, else 'default']
    #[arg(short, long)]
    namespace: Option<String>,
    /// The earlier moment: a revision or an RFC 3339 time
    #[arg(long, value_name = "REVISION|TIME")]
    from: String,
    /// The later moment [default: now]
    #[arg(long, value_name = "REVISION|TIME")]
    to: Option<String>,
    /// With metadata.managedFields
    #[arg(long)]
    show_managed_fields: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let target = Target::resolve(&client, &args.object, args.namespace.as_deref()).await?;
    let from = read(&client, &target, Some(&args.from), args.show_managed_fields).await?;
    let mut to = read(
        &client,
        &target,
        args.to.as_deref(),
        args.show_managed_fields,
    )
    .await?;
    if let (Some(from), Some(to)) = (&from, &mut to) {
        order_like(from, to);
    }
    if from.is_none() && to.is_none() {
        bail!(
            "{target} existed at neither moment; 'reckon history {}' lists its changes",
            args.object
        );
    }
    let names = [
        label(&args.object, Some(&args.from)),
        label(&args.object, args.to.as_deref()),
    ];
    let unified = unified(&side(&from)?, &side(&to)?, &names);
    let value = json!({ "from": { "at": args.from, "object": from }, "to": { "at": args.to, "object": to }, "diff": unified });
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    output::print(args.connection.output, &value, || {
        if colour {
            coloured(&unified)
        } else {
            unified.clone()
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn read(
    client: &Client,
    target: &Target,
    at: Option<&str>,
    managed_fields: bool,
) -> Result<Option<Value>> {
    let path = match at {
        Some(at) => format!("/at/{}{}", escape(at), target.path()),
        None => target.path(),
    };
    let mut object = client
        .find(&path)
        .await
        .with_context(|| format!("cannot read {target} at {}", at.unwrap_or("now")))?;
    if let Some(metadata) = object
        .as_mut()
        .and_then(|object| object["metadata"].as_object_mut())
        .filter(|_| !managed_fields)
    {
        metadata.shift_remove("managedFields");
    }
    Ok(object)
}

/// Puts fields that both have in the first one's order: where a field stands says nothing, and would be shown as a change.
fn order_like(first: &Value, second: &mut Value) {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            let mut rest = std::mem::take(second);
            let mut ordered = Map::new();
            for (name, before) in first {
                if let Some(mut now) = rest.shift_remove(name) {
                    order_like(before, &mut now);
                    ordered.insert(name.clone(), now);
                }
            }
            ordered.extend(rest);
            *second = ordered;
        }
        (Value::Array(first), Value::Array(second)) => {
            for (before, now) in first.iter().zip(second) {
                order_like(before, now);
            }
        }
        _ => {}
    }
}

fn label(object: &str, at: Option<&str>) -> String {
    format!("{object} at {}", at.unwrap_or("now"))
}

fn side(object: &Option<Value>) -> Result<String> {
    object
        .as_ref()
        .map_or_else(|| Ok(String::new()), output::yaml)
}

fn unified(from: &str, to: &str, names: &[String; 2]) -> String {
    TextDiff::from_lines(from, to)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&names[0], &names[1])
        .to_string()
}

/// As `git diff` colours it.
fn coloured(unified: &str) -> String {
    let mut text = String::with_capacity(unified.len());
    for line in unified.lines() {
        let tag = match line.as_bytes().first() {
            Some(b'-') if !line.starts_with("--- ") => Some(ChangeTag::Delete),
            Some(b'+') if !line.starts_with("+++ ") => Some(ChangeTag::Insert),
            _ => None,
        };
        match tag {
            Some(ChangeTag::Delete) => text.push_str(&format!("\x1b[31m{line}\x1b[0m\n")),
            Some(ChangeTag::Insert) => text.push_str(&format!("\x1b[32m{line}\x1b[0m\n")),
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_no_difference() {
        let first = json!({"a": 1, "b": {"c": 1, "d": [{"e": 1, "f": 2}]}});
        let mut second = json!({"b": {"d": [{"f": 2, "e": 1}], "new": 3, "c": 1}, "a": 1});
        order_like(&first, &mut second);
        assert_eq!(
            second.to_string(),
            r#"{"a":1,"b":{"c":1,"d":[{"e":1,"f":2}],"new":3}}"#
        );
    }

    #[test]
    fn sides() {
        let check = |from: Option<Value>, to: Option<Value>, expected: &str| {
            let names = ["a".to_string(), "b".to_string()];
            assert_eq!(
                unified(&side(&from).unwrap(), &side(&to).unwrap(), &names),
                expected
            );
        };
        let object = |replicas: u32| Some(json!({ "kind": "X", "spec": { "replicas": replicas } }));
        check(object(1), object(1), "");
        check(
            object(1),
            object(2),
            "--- a\n+++ b\n@@ -1,3 +1,3 @@\n kind: X\n spec:\n-  replicas: 1\n+  replicas: 2\n",
        );
        check(
            None,
            object(2),
            "--- a\n+++ b\n@@ -0,0 +1,3 @@\n+kind: X\n+spec:\n+  replicas: 2\n",
        );
    }
}
