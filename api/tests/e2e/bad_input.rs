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
    let stale =
        create(&api, CONFIG_MAPS, &config_map("held"))["metadata"]["resourceVersion"].clone();
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

    let check = |what: &str,
                 method: Method,
                 path: &str,
                 content_type: &str,
                 body: String,
                 code: u16,
                 reason: &str,
                 message: &str| {
        for server in 1..=3 {
            let (answered, status) = send(
                &cluster.api(server),
                method.clone(),
                path,
                content_type,
                &body,
            );
            assert_eq!(
                (answered, &status["reason"]),
                (code, &json!(reason)),
                "{what}, server-{server}: {status}"
            );
            assert_eq!(
                (&status["kind"], &status["status"], &status["code"]),
                (&json!("Status"), &json!("Failure"), &json!(code)),
                "{what}: {status}"
            );
            assert!(
                status["message"]
                    .as_str()
                    .is_some_and(|text| text.contains(message)),
                "{what}: {message:?} is not in {status}"
            );
        }
    };
    let post = |what: &str,
                path: &str,
                content_type: &str,
                body: &str,
                code: u16,
                reason: &str,
                message: &str| {
        check(
            what,
            Method::POST,
            path,
            content_type,
            body.to_string(),
            code,
            reason,
            message,
        );
    };

    post(
        "malformed JSON",
        CONFIG_MAPS,
        JSON,
        r#"{"apiVersion": "v1", "#,
        400,
        "BadRequest",
        "",
    );
    post(
        "no JSON at all",
        CONFIG_MAPS,
        JSON,
        "hello",
        400,
        "BadRequest",
        "",
    );
    post(
        "malformed YAML",
        CONFIG_MAPS,
        YAML,
        "apiVersion: v1\nkind: [ConfigMap",
        400,
        "BadRequest",
        "",
    );
    post(
        "an unknown resource",
        "/api/v1/namespaces/default/widgets",
        JSON,
        "{}",
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    post(
        "an unknown group",
        "/apis/example.com/v1/widgets",
        JSON,
        "{}",
        404,
        "NotFound",
        "",
    );
    let widget =
        json!({ "apiVersion": "v1", "kind": "Widget", "metadata": { "name": "x" } }).to_string();
    post(
        "an unknown kind",
        CONFIG_MAPS,
        JSON,
        &widget,
        400,
        "BadRequest",
        "Widget",
    );
    let other_kind =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "x" } }).to_string();
    post(
        "another kind than the path's",
        CONFIG_MAPS,
        JSON,
        &other_kind,
        400,
        "BadRequest",
        "",
    );
    let words = deployment("words", 0)
        .to_string()
        .replace("\"replicas\":0", "\"replicas\":\"three\"");
    post(
        "text for a number",
        DEPLOYMENTS,
        JSON,
        &words,
        400,
        "BadRequest",
        "replicas",
    );
    let list = config_map("x")
        .to_string()
        .replace("{\"n\":\"1\"}", "[\"n\"]");
    post(
        "a list for a map",
        CONFIG_MAPS,
        JSON,
        &list,
        400,
        "BadRequest",
        "data",
    );
    let large = config_map("large")
        .to_string()
        .replace("\"1\"", &format!("\"{}\"", "x".repeat(OVERSIZED_BYTES)));
    post(
        "an oversized body",
        CONFIG_MAPS,
        JSON,
        &large,
        413,
        "RequestEntityTooLarge",
        "",
    );
    post(
        "an unknown media type",
        CONFIG_MAPS,
        "text/plain",
        "x",
        415,
        "UnsupportedMediaType",
        "",
    );

    post(
        "a namespace that is not there",
        "/api/v1/namespaces/none/configmaps",
        JSON,
        &config_map("x").to_string(),
        404,
        "NotFound",
        "namespaces \"none\" not found",
    );
    let elsewhere = config_map("x")
        .to_string()
        .replace("\"name\":\"x\"", "\"name\":\"x\",\"namespace\":\"other\"");
    post(
        "another namespace than the path's",
        CONFIG_MAPS,
        JSON,
        &elsewhere,
        400,
        "BadRequest",
        "namespace",
    );
    post(
        "a name that is taken",
        CONFIG_MAPS,
        JSON,
        &config_map("held").to_string(),
        409,
        "AlreadyExists",
        "configmaps \"held\" already exists",
    );
    post(
        "a bad name",
        CONFIG_MAPS,
        JSON,
        &config_map("Bad_Name").to_string(),
        422,
        "Invalid",
        "Bad_Name",
    );
    let nameless = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {} }).to_string();
    post(
        "no name",
        CONFIG_MAPS,
        JSON,
        &nameless,
        422,
        "Invalid",
        "name or generateName is required",
    );
    let negative = deployment("negative", -1).to_string();
    post(
        "a negative count",
        DEPLOYMENTS,
        JSON,
        &negative,
        422,
        "Invalid",
        "spec.replicas",
    );
    let apart =
        deployment("apart", 0)
            .to_string()
            .replacen("\"app\":\"apart\"", "\"app\":\"other\"", 1);
    post(
        "a selector that selects something else",
        DEPLOYMENTS,
        JSON,
        &apart,
        422,
        "Invalid",
        "selector",
    );

    let mut held = config_map("held");
    held["metadata"]["resourceVersion"] = stale;
    check(
        "a stale resourceVersion",
        Method::PUT,
        &format!("{CONFIG_MAPS}/held"),
        JSON,
        held.to_string(),
        409,
        "Conflict",
        "the object has been modified",
    );
    let renamed = config_map("renamed").to_string();
    check(
        "another name than the path's",
        Method::PUT,
        &format!("{CONFIG_MAPS}/held"),
        JSON,
        renamed,
        400,
        "BadRequest",
        "name",
    );
    let moved = deployment("web", 0)
        .to_string()
        .replace("\"app\":\"web\"", "\"app\":\"other\"");
    check(
        "an immutable field",
        Method::PUT,
        &format!("{DEPLOYMENTS}/web"),
        JSON,
        moved,
        422,
        "Invalid",
        "field is immutable",
    );

    let held = format!("{CONFIG_MAPS}/held");
    check(
        "a patch that is no JSON",
        Method::PATCH,
        &held,
        MERGE,
        "{".into(),
        400,
        "BadRequest",
        "",
    );
    let test = r#"[{"op":"test","path":"/data/n","value":"no"}]"#;
    check(
        "a patch whose test fails",
        Method::PATCH,
        &held,
        PATCH,
        test.into(),
        422,
        "Invalid",
        "",
    );
    check(
        "an unknown kind of patch",
        Method::PATCH,
        &held,
        JSON,
        "{}".into(),
        415,
        "UnsupportedMediaType",
        "",
    );
    check(
        "a patch of what is not there",
        Method::PATCH,
        &format!("{CONFIG_MAPS}/none"),
        MERGE,
        "{}".into(),
        404,
        "NotFound",
        "configmaps \"none\" not found",
    );
    check(
        "a deletion of what is not there",
        Method::DELETE,
        &format!("{CONFIG_MAPS}/none"),
        JSON,
        String::new(),
        404,
        "NotFound",
        "configmaps \"none\" not found",
    );
    check(
        "a bad label selector",
        Method::GET,
        &format!("{CONFIG_MAPS}?labelSelector=a%3D%3Db%3D%3Dc"),
        JSON,
        String::new(),
        400,
        "BadRequest",
        "",
    );
    check(
        "an unknown field selector",
        Method::GET,
        &format!("{CONFIG_MAPS}?fieldSelector=data.n%3D1"),
        JSON,
        String::new(),
        400,
        "BadRequest",
        "field label not supported",
    );
    check(
        "a resourceVersion that is no number",
        Method::GET,
        &format!("{CONFIG_MAPS}?resourceVersion=abc"),
        JSON,
        String::new(),
        400,
        "BadRequest",
        "",
    );
    check(
        "a verb that a resource has not",
        Method::POST,
        &held,
        JSON,
        "{}".into(),
        405,
        "MethodNotAllowed",
        "",
    );

    assert_eq!(
        settled_revision(&cluster),
        quiet,
        "what was refused left an event"
    );
    cluster.stop();
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
