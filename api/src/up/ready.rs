//! When a cluster that comes up is there: every server serves, and every node that was asked for is Ready.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::cli::Client;

use super::progress::Progress;

const POLL: Duration = Duration::from_millis(150);

/// Returns once each of these answers that it is ready. The caller bounds it in time.
pub async fn servers(client: &Client, names: &[String], progress: &Progress) {
    let named = client.servers().iter();
    let mut waiting: Vec<_> = named
        .filter(|server| names.contains(&server.name))
        .collect();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for server in waiting {
            if server.is_ok("/readyz").await {
                progress.done(&format!("{} serves at {}", server.name, server.url()));
            } else {
                still.push(server);
            }
        }
        waiting = still;
        if !waiting.is_empty() {
            sleep(POLL).await;
        }
    }
}

/// Returns once the nodes of these names and as many simulated ones are Ready. The caller bounds it in time.
pub async fn nodes(client: &Client, names: &[String], simulated: u32, progress: &Progress) {
    let mut told = BTreeSet::new();
    loop {
        let list = client.get("/api/v1/nodes").await.unwrap_or_default();
        let ready: BTreeSet<String> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(ready_name)
            .collect();
        for name in names.iter().filter(|name| ready.contains(*name)) {
            if told.insert(name.clone()) {
                progress.done(&format!("node {name} is Ready"));
            }
        }
        let prefix = format!("{}-", super::SIMULATED_PREFIX);
        let simulated_ready = ready
            .iter()
            .filter(|name| name.starts_with(&prefix))
            .count();
        if told.len() == names.len() && simulated_ready >= simulated as usize {
            return;
        }
        sleep(POLL).await;
    }
}

fn ready_name(node: &Value) -> Option<String> {
    let conditions = node["status"]["conditions"].as_array()?;
    let ready = conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    ready.then(|| node["metadata"]["name"].as_str().map(str::to_string))?
}
