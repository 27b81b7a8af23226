//! Restores on one server without sockets, its reconcilers running.

use crate::core::Draft;
use crate::http::tests::{Server, server};
use eventstore::{Act, Actor, Cause, Intent};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
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
async fn what_waits_for_its_owner_is_said() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let owner = put(&server, path, map("owner", "1")).await;
    let mut owned = map("owned", "1");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"],
    }]);
    put(&server, path, owned).await;
    let at = newest(&server).await;
    let (code, _) = server
        .json("DELETE", &format!("{path}/owner"), json!({}))
        .await;
    assert_eq!(code, 200);
    gone(&server, &format!("{path}/owned")).await;
    let one = |name: &str, dry_run: bool| json!({"at": at.to_string(), "namespace": "default", "resource": "configmaps", "name": name, "dryRun": dry_run});
    for dry_run in [true, false] {
        let done = restore(&server, one("owned", dry_run)).await;
        let why = "its owner configmaps/default/owner is not there: restore it again once that is";
        assert_eq!(
            (&done["items"], &done["left"]),
            (
                &json!([]),
                &json!([{"key": "configmaps/default/owned", "why": why}])
            ),
        );
    }
    for name in ["owner", "owned"] {
        let done = restore(&server, one(name, false)).await;
        assert_eq!(
            items(&done),
            [format!("created configmaps/{name}")],
            "{done}"
        );
    }
}

/// 4 MiB of changes at most go into one event.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_one_event_is_a_sequence_that_says_so() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let names: Vec<String> = (0..11).map(|number| format!("m{number:02}")).collect();
    for name in &names {
        let text = "x".repeat(900_000);
        let object = json!({"metadata": {"name": name}, "data": {"text": text}});
        put(&server, path, object).await;
    }
    let at = newest(&server).await;
    for name in &names {
        let (code, _) = server
            .json("DELETE", &format!("{path}/{name}"), json!({}))
            .await;
        assert_eq!(code, 200);
    }
    let asked =
        |dry_run: bool| json!({"at": at.to_string(), "namespace": "default", "dryRun": dry_run});
    let shown = restore(&server, asked(true)).await;
    let mut ids = BTreeSet::new();
    for again in [false, true] {
        let done = restore(&server, asked(false)).await;
        assert_eq!(items(&done), items(&shown));
        let all: Vec<String> = names
            .iter()
            .map(|name| format!("created configmaps/{name}"))
            .collect();
        assert_eq!((items(&done), &done["left"]), (all, &json!([])));
        let revisions = done["revisions"].as_array().unwrap().clone();
        assert_eq!(revisions.len(), 3, "{revisions:?}");
        let mut said = Vec::new();
        for revision in &revisions {
            let path = format!("/reckon/v1/events?from={revision}&to={revision}&limit=1");
            let (_, events) = server.get(&path).await;
            let event = &events["items"][0];
            assert_eq!(event["revision"], *revision, "{event}");
            let restore = &event["restore"];
            said.push((restore["continues"].clone(), restore["continuedIn"].clone()));
            ids.insert(event["id"].as_str().unwrap().to_owned());
        }
        let [one, two, three] = &revisions[..] else {
            unreachable!("they were counted");
        };
        let expected = [
            (Value::Null, two.clone()),
            (one.clone(), three.clone()),
            (two.clone(), Value::Null),
        ];
        assert_eq!(said, expected);
        if again {
            break;
        }
        for name in &names {
            let (code, _) = server
                .json("DELETE", &format!("{path}/{name}"), json!({}))
                .await;
            assert_eq!(code, 200);
        }
    }
    assert_eq!(
        ids.len(),
        2,
        "each of the two restores has an id of its own"
    );
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
    there(&server, &format!("{SHOP}/serviceaccounts/default")).await;
    let at = newest(&server).await;
    let (code, _) = server.json("DELETE", SHOP, json!({})).await;
    assert_eq!(code, 200);
    gone(&server, SHOP).await;

    let shown = restore(&server, json!({"at": at.to_string(), "dryRun": true})).await;
    let all = [
        "created apps/deployments/web",
        "created configmaps/kube-root-ca.crt",
        "created configmaps/owned",
        "created configmaps/owner",
        "created namespaces/shop",
        "created serviceaccounts/default",
    ];
    assert_eq!(items(&shown), all, "{shown}");
    assert_eq!(
        (&shown["left"], &shown["revisions"]),
        (&json!([]), &json!([])),
        "{shown}"
    );
    let fields: BTreeMap<String, Value> = shown["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["key"]["name"] == "owned")
        .unwrap()["diff"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            assert_eq!(line["from"], Value::Null, "{line}");
            let path = line["path"].as_str().unwrap().to_owned();
            (path, line["to"].clone())
        })
        .collect();
    assert_eq!(fields["data"], json!({"text": "1"}), "{shown}");
    assert_eq!(fields["kind"], json!("ConfigMap"), "{shown}");
    assert_eq!(server.get(SHOP).await.0, 404, "a dry run changes nothing");
    let before = newest(&server).await;

    let done = restore(&server, json!({"at": at.to_string()})).await;
    assert_eq!(items(&done), all, "{done}");
    assert_eq!(done["left"], json!([]), "{done}");
    // One event, and one more for what is owned: its owner's uid is the log's to give.
    let revisions = done["revisions"].as_array().unwrap();
    assert_eq!(revisions.len(), 2, "{done}");
    assert!(revisions[0].as_u64() > Some(before), "{done}");
    let of = async |name: &str| {
        let path = "/reckon/v1/history?resource=configmaps&namespace=shop&limit=1&name=";
        let (_, history) = server.get(&format!("{path}{name}")).await;
        history["items"][0].clone()
    };
    let (first, second) = (of("owner").await, of("owned").await);
    assert_eq!(
        (&first["restore"], &second["restore"]),
        (
            &json!({"at": at, "continues": null, "continuedIn": revisions[1]}),
            &json!({"at": at, "continues": revisions[0], "continuedIn": null}),
        )
    );
    assert_eq!(
        first["intentText"],
        json!(format!(
            "Restore as of revision {at}, continued in revision {}",
            revisions[1]
        ))
    );
    assert_eq!(first["id"], second["id"], "one request");
    let id = first["id"].as_str().unwrap();
    let (_, outcome) = server.get(&format!("/reckon/v1/history?id={id}")).await;
    assert_eq!(outcome["revisions"], done["revisions"], "{outcome}");
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

/// What the old cluster gave out and its backup missed can't be watched from or read: whoever stands there lists anew.
#[tokio::test(flavor = "multi_thread")]
async fn revisions_that_were_passed_over_are_gone() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/configmaps";
    put(&server, path, map("before", "1")).await;
    let actor = Actor::Server {
        name: "test".into(),
    };
    let mut request = server.core().request(actor, Cause::default());
    let at = newest(&server).await;
    let draft = Draft {
        intent: Intent::Restore { at },
        expectations: Vec::new(),
        act: Act::Restored {
            cluster: uuid::Uuid::from_u128(99),
            gap: 1_000,
            at,
        },
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let restored = server.core().propose(&mut request, draft, deadline).await;
    let restored = restored.unwrap().envelope.clone();
    put(&server, path, map("behind", "1")).await;

    let ends = restored.first - 1;
    for (revision, is_gone) in [
        (ends, false),
        (ends + 1, true),
        (ends + 500, true),
        (restored.last - 1, true),
        (restored.last, false),
    ] {
        let watch = format!("{path}?watch=1&timeoutSeconds=1&resourceVersion={revision}");
        let (code, seen) = server.get(&watch).await;
        let seen = seen.to_string();
        assert_eq!(code, 200, "{seen}");
        assert_eq!(seen.contains("Expired"), is_gone, "{revision}: {seen}");
        assert_eq!(seen.contains("behind"), !is_gone, "{revision}: {seen}");
        let expected = if is_gone { 410 } else { 200 };
        for read in [
            format!("{path}?resourceVersion={revision}&resourceVersionMatch=Exact"),
            format!("/at/{revision}{path}"),
            format!("/at/{revision}{path}/before"),
        ] {
            let (code, answer) = server.get(&read).await;
            assert_eq!(code, expected, "{read}: {answer}");
        }
        // All that is newer does for this one.
        let (code, list) = server
            .get(&format!("{path}?resourceVersion={revision}"))
            .await;
        assert_eq!(code, 200, "{list}");
        assert!(list.to_string().contains("behind"), "{list}");
    }
    let (_, events) = server
        .get(&format!(
            "/reckon/v1/events?from={}&limit=1",
            restored.first
        ))
        .await;
    let happened = events["items"][0]["happened"].as_str().unwrap().to_owned();
    assert!(
        happened.contains("; 1000 revisions passed over"),
        "{happened}"
    );
}
