//! Restores on one server without sockets, its reconcilers running.

use crate::http::tests::{Server, server};
use serde_json::{Value, json};
use std::time::Duration;

const NAMESPACES: &str = "/api/v1/namespaces";
const SHOP: &str = "/api/v1/namespaces/shop";

async fn put(server: &Server, path: &str, object: Value) -> Value {
    let (code, made) = server.json("POST", path, object).await;
    assert_eq!(code, 201, "{made}");
    made
}

async fn gone(server: &Server, path: &str) {
    for _ in 0..200 {
        if server.get(path).await.0 == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} does not go: {:?}", server.get(path).await);
}

async fn there(server: &Server, path: &str) {
    for _ in 0..200 {
        if server.get(path).await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} does not come");
}

async fn newest(server: &Server) -> u64 {
    let (_, list) = server.get(NAMESPACES).await;
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn map(name: &str, text: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"text": text}}, "data": {"text": text}})
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}})
}

async fn restore(server: &Server, asked: Value) -> Value {
    let (code, done) = server.json("POST", "/reckon/v1/restore", asked).await;
    assert_eq!(code, 200, "{done}");
    done
}

/// `made configmaps/shop/b`, in order.
fn items(done: &Value) -> Vec<String> {
    let mut items: Vec<String> = done["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let part = |field: &str| item["key"][field].as_str().unwrap().to_owned();
            let change = item["change"].as_str().unwrap();
            format!("{change} {}/{}", part("resource"), part("name"))
        })
        .collect();
    items.sort();
    items
}

/// Names to (uid, text) of a namespace's config maps.
async fn maps(server: &Server) -> Vec<(String, String, String)> {
    let (_, list) = server
        .get(&format!("{SHOP}/configmaps?labelSelector=text"))
        .await;
    let items = list["items"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items
        .iter()
        .map(|item| {
            (
                text(&item["metadata"]["name"]),
                text(&item["metadata"]["uid"]),
                text(&item["data"]["text"]),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_put_back_and_that_is_undone() {
    let server = server().await;
    put(&server, NAMESPACES, json!({"metadata": {"name": "shop"}})).await;
    there(&server, &format!("{SHOP}/configmaps/kube-root-ca.crt")).await;
    let path = format!("{SHOP}/configmaps");
    put(&server, &path, map("a", "1")).await;
    put(&server, &path, map("b", "1")).await;
    let web = put(&server, &format!("{SHOP}/services"), service("web")).await;
    let (before, at) = (maps(&server).await, newest(&server).await);

    let patch = json!({"data": {"text": "2", "more": "3"}, "metadata": {"labels": {"new": "yes"}}});
    assert_eq!(
        server.json("PATCH", &format!("{path}/a"), patch).await.0,
        200
    );
    for gone in ["configmaps/b", "services/web"] {
        let (code, answer) = server
            .json("DELETE", &format!("{SHOP}/{gone}"), json!({}))
            .await;
        assert_eq!(code, 200, "{answer}");
    }
    put(&server, &path, map("c", "1")).await;
    // Somebody else has the address now.
    let mut other = service("other");
    other["spec"]["clusterIP"] = web["spec"]["clusterIP"].clone();
    put(&server, "/api/v1/namespaces/default/services", other).await;
    let (changed, then) = (maps(&server).await, newest(&server).await);

    let asked = json!({"at": at.to_string(), "namespace": "shop", "dryRun": true});
    let shown = restore(&server, asked.clone()).await;
    let expected = [
        "created configmaps/b",
        "created services/web",
        "deleted configmaps/c",
        "updated configmaps/a",
    ];
    assert_eq!(items(&shown), expected, "{shown}");
    assert_eq!(maps(&server).await, changed, "a dry run changes nothing");

    let mut asked = asked;
    asked["dryRun"] = json!(false);
    let done = restore(&server, asked.clone()).await;
    assert_eq!(items(&done), expected, "{done}");
    assert_eq!(
        done["revisions"].as_array().unwrap().len(),
        1,
        "one event: {done}"
    );
    let restored = maps(&server).await;
    assert_eq!(restored[0], before[0], "it is the same object as it was");
    assert_eq!(
        (&restored[1].0, &restored[1].2, restored.len()),
        (&before[1].0, &before[1].2, 2)
    );
    assert_ne!(
        restored[1].1, before[1].1,
        "what had gone is another object"
    );
    let (_, again) = server.get(&format!("{SHOP}/services/web")).await;
    let address = |service: &Value| service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_ne!(
        address(&again),
        address(&web),
        "its address is somebody else's"
    );
    let (_, a) = server.get(&format!("{path}/a")).await;
    assert_eq!(a["metadata"]["labels"], json!({"text": "1"}));
    let nothing = restore(&server, asked).await;
    assert_eq!(items(&nothing), Vec::<String>::new(), "{nothing}");

    // Who did it, and what for, is in the history; and it is undone the same way.
    let (_, history) = server
        .get("/reckon/v1/history?resource=configmaps&namespace=shop&name=a&limit=1")
        .await;
    let last = &history["items"][0];
    assert_eq!(
        (&last["intent"], &last["actor"]["name"]),
        (&json!("Restore"), &json!("admin"))
    );
    let undo = json!({"at": then.to_string(), "namespace": "shop"});
    let undone = restore(&server, undo).await;
    assert_eq!(undone["left"], json!([]), "{undone}");
    let texts = |maps: &[(String, String, String)]| -> Vec<(String, String)> {
        maps.iter()
            .map(|(name, _, text)| (name.clone(), text.clone()))
            .collect()
    };
    assert_eq!(texts(&maps(&server).await), texts(&changed));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_and_its_limits() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/configmaps";
    put(&server, path, map("a", "1")).await;
    put(&server, path, map("b", "1")).await;
    let at = newest(&server).await;
    for name in ["a", "b"] {
        let patch = json!({"data": {"text": "2"}});
        server.json("PATCH", &format!("{path}/{name}"), patch).await;
    }
    let asked = json!({"at": at.to_string(), "namespace": "default", "resource": "configmaps", "name": "a"});
    assert_eq!(
        items(&restore(&server, asked).await),
        ["updated configmaps/a"]
    );
    let text = |object: (u16, Value)| object.1["data"]["text"].clone();
    assert_eq!(text(server.get(&format!("{path}/a")).await), json!("1"));
    assert_eq!(text(server.get(&format!("{path}/b")).await), json!("2"));

    for (asked, code) in [
        (json!({}), 400),
        (json!({"at": "soon"}), 400),
        (json!({"at": "999999", "namespace": "default"}), 504),
        (json!({"at": "1", "resource": "widgets", "name": "a"}), 400),
        (
            json!({"at": "1", "resource": "configmaps", "name": "a"}),
            400,
        ),
        (json!({"at": "1", "resource": "configmaps"}), 400),
        (json!({"at": "1", "more": 1}), 400),
    ] {
        let answer = server
            .json("POST", "/reckon/v1/restore", asked.clone())
            .await;
        assert_eq!(answer.0, code, "{asked}: {}", answer.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_went_comes_back_with_what_was_in_it() {
    let server = server().await;
    put(&server, NAMESPACES, json!({"metadata": {"name": "shop"}})).await;
    there(&server, &format!("{SHOP}/configmaps/kube-root-ca.crt")).await;
    let path = format!("{SHOP}/configmaps");
    let owner = put(&server, &path, map("owner", "1")).await;
    let mut owned = map("owned", "1");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"],
    }]);
    put(&server, &path, owned).await;
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }});
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    put(&server, deployments, deployment).await;
    let at = newest(&server).await;
    let (code, _) = server.json("DELETE", SHOP, json!({})).await;
    assert_eq!(code, 200);
    gone(&server, SHOP).await;

    let done = restore(&server, json!({"at": at.to_string()})).await;
    assert_eq!(done["left"], json!([]), "{done}");
    let (_, owner) = server.get(&format!("{path}/owner")).await;
    let (_, owned) = server.get(&format!("{path}/owned")).await;
    assert_eq!(
        owned["metadata"]["ownerReferences"][0]["uid"], owner["metadata"]["uid"],
        "{owned}"
    );
    let (code, web) = server.get(&format!("{deployments}/web")).await;
    assert_eq!((code, &web["spec"]["replicas"]), (200, &json!(2)), "{web}");
    // Its pods are its controllers' to make again.
    for _ in 0..200 {
        let (_, pods) = server.get(&format!("{SHOP}/pods")).await;
        if pods["items"].as_array().unwrap().len() == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no pods: {:?}", server.get(&format!("{SHOP}/pods")).await);
}
