//! What is called in or of a container: probes and lifecycle hooks.

use crate::resources::checks::{Findings, POSITIVE, items, range, text};
use crate::resources::names;
use serde_json::Value;

pub fn probe(probe: &Value, path: &str, found: &mut Findings) {
    handler(
        probe,
        path,
        &["exec", "httpGet", "tcpSocket", "grpc"],
        found,
    );
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        found.not_negative(format!("{path}.{key}"), &probe[key]);
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    if grace.as_i64().is_some_and(|seconds| seconds <= 0) {
        found.invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            grace.clone(),
            POSITIVE,
        );
    }
}

pub fn lifecycle(hook: &Value, path: &str, found: &mut Findings) {
    handler(
        hook,
        path,
        &["exec", "httpGet", "tcpSocket", "sleep"],
        found,
    );
}

fn handler(handler: &Value, path: &str, kinds: &[&str], found: &mut Findings) {
    let mut count = 0;
    for kind in kinds {
        let (action, at) = (&handler[*kind], format!("{path}.{kind}"));
        if action.is_null() {
            continue;
        }
        count += 1;
        if count > 1 {
            found.forbidden(at, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" => {
                if items(&action["command"]).is_empty() {
                    found.required(format!("{at}.command"), "");
                }
            }
            "httpGet" => http_get(action, &at, found),
            "tcpSocket" => port(&action["port"], &format!("{at}.port"), found),
            "grpc" => number(&action["port"], &format!("{at}.port"), found),
            _ => found.not_negative(format!("{at}.seconds"), &action["seconds"]),
        }
    }
    if count == 0 {
        found.required(path, "must specify a handler type");
    }
}

fn http_get(get: &Value, path: &str, found: &mut Findings) {
    if text(&get["path"]).is_empty() {
        found.required(format!("{path}.path"), "");
    }
    port(&get["port"], &format!("{path}.port"), found);
    if !matches!(text(&get["scheme"]), "HTTP" | "HTTPS") {
        found.not_supported(
            format!("{path}.scheme"),
            get["scheme"].clone(),
            &["HTTP", "HTTPS"],
        );
    }
    for header in items(&get["httpHeaders"]) {
        let name = text(&header["name"]);
        found.all(
            &format!("{path}.httpHeaders"),
            name,
            names::http_header_name(name),
        );
    }
}

fn port(port: &Value, path: &str, found: &mut Findings) {
    match port {
        Value::String(name) => found.all(path, name, names::port_name(name)),
        _ => number(port, path, found),
    }
}

fn number(port: &Value, path: &str, found: &mut Findings) {
    let number = port.as_i64().unwrap_or_default();
    if !(1..=65535).contains(&number) {
        found.invalid(path, number, range(1, 65535));
    }
}
