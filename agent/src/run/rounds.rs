//! What goes on beside the main loop, each in a task of its own since each may have to wait: looking at the runtime (and starting
//! containerd again), importing archives, rotating logs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::containerd::Containerd;
use crate::logs;
use crate::plan::State;
use crate::runtime::Held;
use crate::worker::NodeContext;

/// How often the runtime is looked at for what changed by itself.
const LIST_INTERVAL: Duration = Duration::from_secs(1);
const ROTATE_INTERVAL: Duration = Duration::from_secs(10);
const IMPORT_INTERVAL: Duration = Duration::from_secs(2);

/// What the runtime shows, or why it shows nothing.
pub(super) type Look = Result<BTreeMap<String, Held>, String>;

/// Until nobody looks any more.
pub(super) async fn list(
    context: Arc<NodeContext>,
    containerd: Arc<Containerd>,
    looks: mpsc::Sender<Look>,
) {
    loop {
        let look = match containerd.ensure_running().await {
            Ok(()) => context
                .runtime
                .list()
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if looks.send(look).await.is_err() {
            return;
        }
        sleep(LIST_INTERVAL).await;
    }
}

/// Imports archives as they appear.
pub(super) async fn import(context: Arc<NodeContext>) {
    loop {
        sleep(IMPORT_INTERVAL).await;
        context.archives.lock().await.scan().await;
    }
}

/// Rotates the logs of running containers that have grown too large.
pub(super) async fn rotate_logs(context: Arc<NodeContext>) {
    loop {
        sleep(ROTATE_INTERVAL).await;
        let views: Vec<_> = {
            let views = context
                .views
                .lock()
                .expect("no holder of this lock can panic: it only moves values");
            views.values().cloned().collect()
        };
        for view in views {
            let meta = &view.pod.metadata;
            let dir = logs::pod_dir(&context.logs_dir, &meta.namespace, &meta.name, &meta.uid);
            for container in view
                .observed
                .containers
                .iter()
                .filter(|one| one.state == State::Running)
            {
                let file = logs::file(&dir, &container.name, container.attempt);
                match logs::rotate::rotate(&file, context.now(), logs::rotate::MAX_FILE_BYTES) {
                    Ok(false) => {}
                    Ok(true) => {
                        if let Err(error) = context.runtime.reopen_log(&container.id).await {
                            tracing::warn!(pod = view.pod.path(), %error, "a log was not reopened");
                        }
                    }
                    Err(error) => {
                        tracing::warn!(file = %file.display(), %error, "a log was not rotated")
                    }
                }
            }
        }
    }
}
