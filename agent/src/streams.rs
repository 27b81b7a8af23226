//! Streams that a server opens over the session: logs. Each is a task that reads, waits for credit, and sends; a slow reader at the far
//! end holds up its own stream and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::TimeDelta;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::logs::{self, Wanted};
use crate::plan::State;
use crate::proto::{Logs, StreamData};
use crate::session::StreamCommand;
use crate::worker::{NodeContext, View};

/// Streams open at once. Past it a new one is refused.
pub const MAX_STREAMS: usize = 256;
/// Chunks between a log's reader and its stream.
const CHUNK_QUEUE: usize = 4;

/// The open streams of a session.
pub struct Streams {
    context: Arc<NodeContext>,
    out: mpsc::Sender<StreamData>,
    open: BTreeMap<u64, (JoinHandle<()>, Option<Arc<Semaphore>>)>,
}

/// What the client is told instead of a log: Kubernetes' text and HTTP code.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    code: u32,
    message: String,
}

impl Streams {
    pub fn new(context: Arc<NodeContext>, out: mpsc::Sender<StreamData>) -> Self {
        Streams {
            context,
            out,
            open: BTreeMap::new(),
        }
    }

    pub fn obey(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Open {
                id,
                credit_bytes,
                logs,
            } => self.open(id, credit_bytes, logs),
            StreamCommand::Credit { id, bytes } => {
                if let Some((_, Some(credit))) = self.open.get(&id) {
                    let room = Semaphore::MAX_PERMITS.saturating_sub(credit.available_permits());
                    credit.add_permits(bytes.min(room as u64) as usize);
                }
            }
            StreamCommand::Close { id } => {
                if let Some((task, _)) = self.open.remove(&id) {
                    task.abort();
                }
            }
            StreamCommand::CloseAll => {
                for (task, _) in std::mem::take(&mut self.open).into_values() {
                    task.abort();
                }
            }
        }
    }

    fn open(&mut self, id: u64, credit_bytes: u64, logs: Logs) {
        self.open.retain(|_, (task, _)| !task.is_finished());
        let (context, out) = (self.context.clone(), self.out.clone());
        let full = self.open.len() >= MAX_STREAMS;
        let credit = (credit_bytes > 0).then(|| Arc::new(Semaphore::new(credit_bytes as usize)));
        let granted = credit.clone();
        let task = tokio::spawn(async move {
            let outcome = if full {
                Err(Refused {
                    code: 429,
                    message: format!("more than {MAX_STREAMS} streams are open on this node"),
                })
            } else {
                send_logs(&context, id, logs, granted, &out).await
            };
            let mut end = StreamData {
                id,
                end: true,
                ..Default::default()
            };
            if let Err(refused) = outcome {
                end.error = Some(refused.message);
                end.error_code = refused.code;
            }
            // Where the session has ended nobody waits for it.
            let _ = out.send(end).await;
        });
        self.open.insert(id, (task, credit));
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.obey(StreamCommand::CloseAll);
    }
}

async fn send_logs(
    context: &Arc<NodeContext>,
    id: u64,
    asked: Logs,
    credit: Option<Arc<Semaphore>>,
    out: &mpsc::Sender<StreamData>,
) -> Result<(), Refused> {
    let view = view(context, &asked.uid).ok_or_else(|| Refused {
        code: 404,
        message: format!("pod \"{}\" not found on this node", asked.pod),
    })?;
    let attempt = attempt(context, &view, &asked)?;
    let wanted = wanted(context, &asked)?;
    let dir = logs::pod_dir(&context.logs_dir, &asked.namespace, &asked.pod, &asked.uid);
    let path = logs::file(&dir, &asked.container, attempt);
    let (sink, mut chunks) = mpsc::channel::<Bytes>(CHUNK_QUEUE);
    // A stream's task takes its reader along.
    let reader = {
        let (context, asked) = (context.clone(), asked.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let alive = || runs(&context, &asked, attempt);
            logs::read(&path, &wanted, alive, sink).await
        }))
    };
    while let Some(mut chunk) = chunks.recv().await {
        while !chunk.is_empty() {
            let piece = match &credit {
                None => chunk.split_to(chunk.len()),
                Some(credit) => {
                    // At least one byte's worth, then as much as there is.
                    let Ok(first) = credit.acquire().await else {
                        return Ok(());
                    };
                    first.forget();
                    let more = credit.available_permits().min(chunk.len() - 1);
                    let more = match credit.try_acquire_many(more as u32) {
                        Ok(permits) => {
                            permits.forget();
                            more
                        }
                        Err(_) => 0,
                    };
                    chunk.split_to(more + 1)
                }
            };
            if out
                .send(StreamData {
                    id,
                    data: piece.to_vec(),
                    ..Default::default()
                })
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    }
    match reader.await {
        Ok(Err(error)) => Err(Refused {
            code: 500,
            message: format!("failed to read the log: {error}"),
        }),
        _ => Ok(()),
    }
}

fn view(context: &NodeContext, uid: &str) -> Option<Arc<View>> {
    context
        .views
        .lock()
        .expect("no holder of this lock can panic: it only moves values")
        .get(uid)
        .cloned()
}

/// Whether the attempt may still write.
fn runs(context: &NodeContext, asked: &Logs, attempt: u32) -> bool {
    view(context, &asked.uid).is_some_and(|view| {
        view.observed.containers.iter().any(|container| {
            container.name == asked.container
                && container.attempt == attempt
                && container.state == State::Running
        })
    })
}

/// Which attempt's log is asked for.
fn attempt(context: &NodeContext, view: &View, asked: &Logs) -> Result<u32, Refused> {
    let refused = |message: String| Refused { code: 400, message };
    let dir = logs::pod_dir(&context.logs_dir, &asked.namespace, &asked.pod, &asked.uid);
    let attempts = logs::attempts(&dir, &asked.container);
    let latest = view
        .observed
        .containers
        .iter()
        .filter(|one| one.name == asked.container)
        .map(|one| one.attempt)
        .max();
    if asked.previous {
        let newest = latest.or(attempts.first().copied());
        return attempts
            .into_iter()
            .find(|attempt| newest.is_some_and(|newest| *attempt < newest))
            .ok_or_else(|| {
                refused(format!(
                    "previous terminated container \"{}\" in pod \"{}\" not found",
                    asked.container, asked.pod
                ))
            });
    }
    latest.or(attempts.first().copied()).ok_or_else(|| {
        refused(format!(
            "container \"{}\" in pod \"{}\" is waiting to start: {}",
            asked.container,
            asked.pod,
            waiting_reason(view, &asked.container)
        ))
    })
}

fn waiting_reason(view: &View, container: &str) -> String {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let statuses = lists
        .into_iter()
        .flat_map(|list| view.status[list].as_array().into_iter().flatten());
    let told = statuses
        .filter(|one| one["name"] == container)
        .find_map(|one| one["state"]["waiting"]["reason"].as_str());
    told.unwrap_or("ContainerCreating").to_owned()
}

fn wanted(context: &NodeContext, asked: &Logs) -> Result<Wanted, Refused> {
    let number = |value: Option<i64>| value.map(|value| value.max(0) as u64);
    let since = match (&asked.since_time, asked.since_seconds) {
        (Some(time), _) => Some(time.parse().map_err(|_| Refused {
            code: 400,
            message: format!("sinceTime: {time:?} is no time of RFC 3339"),
        })?),
        (None, Some(seconds)) => {
            Some(context.now() - TimeDelta::seconds(seconds.clamp(0, 1 << 32)))
        }
        (None, None) => None,
    };
    Ok(Wanted {
        follow: asked.follow,
        tail_lines: number(asked.tail_lines),
        since,
        timestamps: asked.timestamps,
        limit_bytes: number(asked.limit_bytes),
    })
}
