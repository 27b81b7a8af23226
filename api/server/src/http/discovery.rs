//! What is no resource: discovery, OpenAPI, version, health, metrics.

use super::call::Call;
use super::negotiate::Accept;
use super::request_info::ResourcePath;
use super::respond::Reply;
use bytes::Bytes;
use kinds::discovery::{self, version};
use kinds::error::StatusError;
use kinds::resources::{self, KINDS};
use kinds::schema::openapi;
use serde_json::Value;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::time::Instant;

/// Rendered once: they are the same for the same table of kinds.
static OPENAPI_INDEX: LazyLock<Bytes> = LazyLock::new(|| openapi::index(KINDS).to_string().into());
static OPENAPI_V2: LazyLock<Bytes> = LazyLock::new(|| openapi::swagger(KINDS).to_string().into());

/// Less than those who probe wait for an answer.
const READY_WAIT: Duration = Duration::from_secs(2);
const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) async fn serve(call: &Call) -> Result<Reply, StatusError> {
    let path = call.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let known = matches!(
        parts.as_slice(),
        [
            "api" | "apis" | "openapi" | "version" | "healthz" | "livez" | "readyz" | "metrics",
            ..
        ]
    );
    if call.info.verb != "get" && known {
        return Err(StatusError::method_not_allowed());
    }
    match parts.as_slice() {
        ["api"] => Ok(match Accept::aggregated(&call.accept_header()) {
            Some(form) => aggregated(&discovery::aggregated_core(form), &form.content_type()),
            None => document(
                call,
                &discovery::core_versions(&call.api.settings().advertise),
            )?,
        }),
        ["apis"] => Ok(match Accept::aggregated(&call.accept_header()) {
            Some(form) => aggregated(&discovery::aggregated_groups(form), &form.content_type()),
            None => document(call, &discovery::groups())?,
        }),
        ["api", version] => found(call, discovery::resources("", version)),
        ["apis", group] => discovery::group(group)
            .map_or_else(|| Ok(not_found_page()), |group| document(call, &group)),
        ["apis", group, version] if discovery::group(group).is_some() => {
            found(call, discovery::resources(group, version))
        }
        ["openapi", "v3"] => Ok(Reply::new(200, TEXT, OPENAPI_INDEX.clone())),
        ["openapi", "v3", rest @ ..] => {
            found(call, openapi::document_by_name(KINDS, &rest.join("/")))
        }
        ["openapi", "v2"] => Ok(Reply::new(200, "application/json", OPENAPI_V2.clone())),
        ["version"] => document(
            call,
            &version::document(env!("CARGO_PKG_VERSION"), &platform()),
        ),
        ["healthz" | "livez" | "readyz", check @ ..] => Ok(health(call, parts[0], check).await),
        ["metrics"] => Ok(Reply::new(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            call.api.metrics().print(),
        )),
        _ => Ok(not_found_page()),
    }
}

/// A resource's path that the table of kinds does not know.
pub(crate) fn unknown(path: &ResourcePath) -> Result<Reply, StatusError> {
    let group_known = path.group.is_empty() || discovery::group(&path.group).is_some();
    if group_known && (resources::is_served(&path.group, &path.version) || !path.group.is_empty()) {
        return Err(StatusError::no_such_path());
    }
    Ok(not_found_page())
}

fn not_found_page() -> Reply {
    Reply::text(404, "404 page not found\n")
}

fn found(call: &Call, document_found: Option<Value>) -> Result<Reply, StatusError> {
    document(call, &document_found.ok_or_else(StatusError::no_such_path)?)
}

/// These documents have one form; who asks for tables of them gets them as they are.
fn document(call: &Call, value: &Value) -> Result<Reply, StatusError> {
    let accept = call.accept().unwrap_or(Accept::JSON);
    Ok(Reply::value(accept, 200, value))
}

fn aggregated(value: &Value, content_type: &str) -> Reply {
    Reply::new(200, content_type, value.to_string())
}

fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}

/// `ok`, or what is wrong. Live: the process answers. Ready: its log is sound, and a majority confirms its leader.
async fn health(call: &Call, endpoint: &str, check: &[&str]) -> Reply {
    let leader = match endpoint {
        "readyz" => {
            let deadline = call.deadline.min(Instant::now() + READY_WAIT);
            let confirmed = call.core().linearizable(deadline).await;
            confirmed.err().map(|error| error.to_string())
        }
        _ => None,
    };
    let checks = [
        ("ping", None),
        ("log", call.core().node().status().failed),
        ("leader", leader),
    ];
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let checks: Vec<_> = checks
        .into_iter()
        .filter(|(name, _)| !excluded.contains(name))
        .collect();
    if let [one] = check {
        return match checks.iter().find(|(name, _)| name == one) {
            None => not_found_page(),
            Some((_, None)) => Reply::text(200, "ok"),
            Some((_, Some(fault))) => Reply::text(500, format!("internal server error: {fault}\n")),
        };
    }
    if !check.is_empty() {
        return not_found_page();
    }
    let failed = checks.iter().any(|(_, fault)| fault.is_some());
    if !failed && call.query.get("verbose").is_none() {
        return Reply::text(200, "ok");
    }
    let lines: String = checks
        .iter()
        .map(|(name, fault)| match fault {
            None => format!("[+]{name} ok\n"),
            Some(fault) => format!("[-]{name} failed: {fault}\n"),
        })
        .collect();
    let last = if failed { "failed" } else { "passed" };
    Reply::text(
        if failed { 500 } else { 200 },
        format!("{lines}{endpoint} check {last}\n"),
    )
}
