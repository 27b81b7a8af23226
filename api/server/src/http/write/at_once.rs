//! Many who write the same thing at once.

use crate::http::tests::{MAPS, Server, cluster};
use futures::future::join_all;
use serde_json::json;

const CLIENTS: usize = 64;
const ROUNDS: usize = 3;

/// A patch that names no version is applied to whatever is there: none is lost, and none is refused because of another.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_patch_one_object_all_succeed() {
    all_patch(&cluster(1).await).await;
}

/// The same where most of them ask a server that has not heard yet of what the others did.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_patch_one_object_through_all_servers_all_succeed() {
    all_patch(&cluster(3).await).await;
}

async fn all_patch(servers: &[Server]) {
    let map = json!({"metadata": {"name": "shared"}});
    assert_eq!(servers[0].json("POST", MAPS, map).await.0, 201);
    let path = format!("{MAPS}/shared");
    let clients = (0..CLIENTS).map(|client| {
        let (server, path) = (&servers[client % servers.len()], &path);
        async move {
            for round in 0..ROUNDS {
                let patch = json!({"data": {format!("{client}-{round}"): "there"}});
                let (code, answer) = server.json("PATCH", path, patch).await;
                assert_eq!(code, 200, "{answer}");
                assert_eq!(answer["data"][format!("{client}-{round}")], "there");
            }
        }
    });
    join_all(clients).await;
    for server in servers {
        let (_, object) = server.get(&path).await;
        let data = object["data"].as_object().unwrap();
        assert_eq!(data.len(), CLIENTS * ROUNDS, "{data:?}");
        // Each in an event of its own, done once.
        let (_, history) = server
            .get("/reckon/v1/history?resource=configmaps&namespace=default&name=shared&limit=1000")
            .await;
        let items = history["items"].as_array().unwrap();
        assert_eq!(items.len(), 1 + CLIENTS * ROUNDS);
    }
}
