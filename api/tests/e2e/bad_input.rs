//! What is no good is refused with the Status that Kubernetes gives, and leaves no event. A row is a request and its answer.

use http::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cluster::Cluster;
use crate::wait;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
/// Larger than any request may be (3 MiB).
const OVERSIZED_BYTES: usize = 4 << 20;

#[test]
fn each_gets_its_status_and_leaves_no_event() {
    let mut cluster = Cluster::servers();
    let api = cluster.api(1);
    let held = create(&api, CONFIG_MAPS, &config_map("held"));
    create(&api, DEPLOYMENTS, &deployment("web", 0));
    let changed = send(
        &api,
        Method::PATCH,
        &format!("{CONFIG_MAPS}/held"),
        MERGE,
        r#"{"data":{"n":"2"}}"#,
    );
    assert_eq!(changed.0, 200, "{changed:?}");
    let quiet = settled_revision(&cluster);

    let rows = [bodies(), names(), updates(&held), patches_and_reads()].concat();
    let failed: Vec<String> = (1..=3)
        .flat_map(|server| {
            let api = cluster.api(server);
            rows.iter()
                .filter_map(move |row| {
                    check(&api, row)
                        .err()
                        .map(|why| format!("server-{server}, {why}"))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} answers:\n{}",
        failed.len(),
        rows.len() * 3,
        failed.join("\n")
    );
    assert_eq!(
        settled_revision(&cluster),
        quiet,
        "what was refused left an event"
    );
    cluster.stop();
}

/// A request, and the Status that it gets: code, reason, part of the message.
#[derive(Clone)]
struct Row {
    what: &'static str,
    method: Method,
    path: String,
    content_type: &'static str,
    body: String,
    status: (u16, &'static str, &'static str),
}

fn check(api: &Api, row: &Row) -> Result<(), String> {
    let (answered, status) = send(
        api,
        row.method.clone(),
        &row.path,
        row.content_type,
        &row.body,
    );
    let (code, reason, message) = row.status;
    let expected = json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason });
    let same = expected
        .as_object()
        .unwrap()
        .iter()
        .all(|(field, value)| status[field] == *value);
    if answered != code
        || !same
        || !status["message"]
            .as_str()
            .is_some_and(|text| text.contains(message))
    {
        return Err(format!(
            "{}: expected {code} {reason} {message:?}, got {answered} {status}",
            row.what
        ));
    }
    Ok(())
}

fn post(
    what: &'static str,
    path: &str,
    content_type: &'static str,
    body: impl ToString,
    status: (u16, &'static str, &'static str),
) -> Row {
    row(what, Method::POST, path, content_type, body, status)
}

fn row(
    what: &'static str,
    method: Method,
    path: &str,
    content_type: &'static str,
    body: impl ToString,
    status: (u16, &'static str, &'static str),
) -> Row {
    Row {
        what,
        method,
        path: path.to_string(),
        content_type,
        body: body.to_string(),
        status,
    }
}

/// What cannot be read as the object that it should be.
fn bodies() -> Vec<Row> {
    let widget = json!({ "apiVersion": "v1", "kind": "Widget", "metadata": { "name": "x" } });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "x" } });
    let words = deployment("words", 0)
        .to_string()
        .replace("\"replicas\":0", "\"replicas\":\"three\"");
    let list = config_map("x")
        .to_string()
        .replace("{\"n\":\"1\"}", "[\"n\"]");
    let large = config_map("large")
        .to_string()
        .replace("\"1\"", &format!("\"{}\"", "x".repeat(OVERSIZED_BYTES)));
    vec![
        post(
            "malformed JSON",
            CONFIG_MAPS,
            JSON,
            r#"{"apiVersion": "v1", "#,
            (400, "BadRequest", ""),
        ),
        post(
            "no JSON at all",
            CONFIG_MAPS,
            JSON,
            "hello",
            (400, "BadRequest", ""),
        ),
        post(
            "malformed YAML",
            CONFIG_MAPS,
            YAML,
            "apiVersion: v1\nkind: [ConfigMap",
            (400, "BadRequest", ""),
        ),
        post(
            "an unknown media type",
            CONFIG_MAPS,
            "text/plain",
            "x",
            (415, "UnsupportedMediaType", ""),
        ),
        post(
            "an unknown resource",
            "/api/v1/namespaces/default/widgets",
            JSON,
            "{}",
            (404, "NotFound", "could not find the requested resource"),
        ),
        post(
            "an unknown resource of a group",
            "/apis/apps/v1/namespaces/default/widgets",
            JSON,
            "{}",
            (404, "NotFound", "could not find"),
        ),
        post(
            "an unknown kind",
            CONFIG_MAPS,
            JSON,
            widget,
            (400, "BadRequest", "Widget"),
        ),
        post(
            "another kind than the path's",
            CONFIG_MAPS,
            JSON,
            secret,
            (400, "BadRequest", "Secret"),
        ),
        post(
            "text for a number",
            DEPLOYMENTS,
            JSON,
            words,
            (400, "BadRequest", "replicas"),
        ),
        post(
            "a list for a map",
            CONFIG_MAPS,
            JSON,
            list,
            (400, "BadRequest", "data"),
        ),
        post(
            "an oversized body",
            CONFIG_MAPS,
            JSON,
            large,
            (413, "RequestEntityTooLarge", ""),
        ),
    ]
}

/// What is an object, and may not be one.
fn names() -> Vec<Row> {
    let elsewhere = config_map("x")
        .to_string()
        .replace("\"name\":\"x\"", "\"name\":\"x\",\"namespace\":\"other\"");
    let nameless = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {} });
    let apart =
        deployment("apart", 0)
            .to_string()
            .replacen("\"app\":\"apart\"", "\"app\":\"other\"", 1);
    let nowhere = "/api/v1/namespaces/none/configmaps";
    vec![
        post(
            "a namespace that is not there",
            nowhere,
            JSON,
            config_map("x"),
            (404, "NotFound", "namespaces \"none\" not found"),
        ),
        post(
            "another namespace than the path's",
            CONFIG_MAPS,
            JSON,
            elsewhere,
            (400, "BadRequest", "namespace"),
        ),
        post(
            "a name that is taken",
            CONFIG_MAPS,
            JSON,
            config_map("held"),
            (409, "AlreadyExists", "configmaps \"held\" already exists"),
        ),
        post(
            "a bad name",
            CONFIG_MAPS,
            JSON,
            config_map("Bad_Name"),
            (422, "Invalid", "Bad_Name"),
        ),
        post(
            "no name",
            CONFIG_MAPS,
            JSON,
            nameless,
            (422, "Invalid", "name or generateName is required"),
        ),
        post(
            "a negative count",
            DEPLOYMENTS,
            JSON,
            deployment("negative", -1),
            (422, "Invalid", "spec.replicas"),
        ),
        post(
            "a selector of something else",
            DEPLOYMENTS,
            JSON,
            apart,
            (422, "Invalid", "selector"),
        ),
    ]
}

/// `held`: as it was before it was changed.
fn updates(held: &Value) -> Vec<Row> {
    let path = format!("{CONFIG_MAPS}/held");
    let mut stale = config_map("held");
    stale["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"].clone();
    let mut other_uid = config_map("held");
    other_uid["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let moved = deployment("web", 0)
        .to_string()
        .replace("\"app\":\"web\"", "\"app\":\"other\"");
    let put = Method::PUT;
    vec![
        row(
            "a stale resourceVersion",
            put.clone(),
            &path,
            JSON,
            stale,
            (409, "Conflict", "the object has been modified"),
        ),
        row(
            "another uid",
            put.clone(),
            &path,
            JSON,
            other_uid,
            (409, "Conflict", "UID"),
        ),
        row(
            "another name than the path's",
            put.clone(),
            &path,
            JSON,
            config_map("renamed"),
            (400, "BadRequest", "name"),
        ),
        row(
            "an immutable field",
            put,
            &format!("{DEPLOYMENTS}/web"),
            JSON,
            moved,
            (422, "Invalid", "field is immutable"),
        ),
    ]
}

fn patches_and_reads() -> Vec<Row> {
    let held = format!("{CONFIG_MAPS}/held");
    let none = format!("{CONFIG_MAPS}/none");
    let not_found = (404, "NotFound", "configmaps \"none\" not found");
    let test = r#"[{"op":"test","path":"/data/n","value":"no"}]"#;
    let query = |query: &str| format!("{CONFIG_MAPS}?{query}");
    vec![
        row(
            "a patch that is no JSON",
            Method::PATCH,
            &held,
            MERGE,
            "{",
            (400, "BadRequest", ""),
        ),
        row(
            "a patch whose test fails",
            Method::PATCH,
            &held,
            PATCH,
            test,
            (422, "Invalid", ""),
        ),
        row(
            "an unknown kind of patch",
            Method::PATCH,
            &held,
            JSON,
            "{}",
            (415, "UnsupportedMediaType", ""),
        ),
        row(
            "a patch of what is not there",
            Method::PATCH,
            &none,
            MERGE,
            "{}",
            not_found,
        ),
        row(
            "a deletion of what is not there",
            Method::DELETE,
            &none,
            JSON,
            "",
            not_found,
        ),
        row(
            "a bad label selector",
            Method::GET,
            &query("labelSelector=a%3D%3Db%3D%3Dc"),
            JSON,
            "",
            (400, "BadRequest", ""),
        ),
        row(
            "an unknown field selector",
            Method::GET,
            &query("fieldSelector=data.n%3D1"),
            JSON,
            "",
            (400, "BadRequest", "is not a known field selector"),
        ),
        row(
            "a resourceVersion that is no number",
            Method::GET,
            &query("resourceVersion=abc"),
            JSON,
            "",
            (400, "BadRequest", ""),
        ),
        row(
            "a verb that a resource has not",
            Method::POST,
            &held,
            JSON,
            "{}",
            (405, "MethodNotAllowed", ""),
        ),
    ]
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "n": "1" } })
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } },
        },
    })
}

fn create(api: &Api, path: &str, object: &Value) -> Value {
    let (code, body) = send(api, Method::POST, path, JSON, &object.to_string());
    assert_eq!(code, 201, "{body}");
    body
}

fn send(api: &Api, method: Method, path: &str, content_type: &str, body: &str) -> (u16, Value) {
    let answer = api
        .send(method, path, content_type, body.as_bytes().to_vec(), 30)
        .unwrap();
    (answer.code, answer.body)
}

/// Once the reconcilers have nothing more to do: the same over a second, on all servers.
fn settled_revision(cluster: &Cluster) -> u64 {
    let mut last = 0;
    wait::until("the revision to stand still", 60, || {
        let revision = cluster.wait_until_level()["members"][0]["revision"]
            .as_u64()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let still = revision == std::mem::replace(&mut last, revision);
        if still { Ok(revision) } else { Err(revision) }
    })
}
