//! What history is kept: the leader moves the horizons as its flags say, and every server removes what lies before them.
//!
//! Where the horizons stand is in the log, so that all servers refuse the same reads. Removing is each server's own, a little at a time,
//! on a thread of its own.

#[cfg(test)]
mod tests;

use crate::archive::pins;
use crate::config::{HistoryRetention, Retain};
use crate::core::{Core, Draft};
use eventstore::{Act, Actor, Cause, Horizons, Intent, Text};
use eventstore_disk::{Pruned, ReadError};
use seams::Worker;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What may be kept for a shorter time than the rest: observed, many, and read for what is now.
const EPHEMERAL: [&str; 2] = ["events", "coordination.k8s.io/leases"];

const LOOK_EVERY: Duration = Duration::from_secs(10);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A horizon moves by so many revisions at the least: moving it is an event too.
const STEP_REVISIONS: u64 = 100;

/// Events that one step of pruning looks at: some milliseconds.
const PRUNE_EVENTS: usize = 256;
/// Between two steps it rests so many times as long as the last one took, and this long at the least. With a pause of one length for all a
/// cluster that writes faster than that would never get rid of its past; a slow disk has more time for others.
const PRUNE_RESTS: u32 = 2;
const PRUNE_PAUSE: Duration = Duration::from_millis(10);
/// Between two looks when there was nothing to prune.
const PRUNE_REST: Duration = Duration::from_secs(2);
/// After a failure; twice as long after each further one, up to the most.
const PRUNE_RETRY: Duration = Duration::from_secs(1);
const PRUNE_RETRY_MAX: Duration = Duration::from_secs(60);

/// What removing has come to since this server's start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed {
    /// Events that were gone through.
    pub events: u64,
    pub failures: u64,
    /// What went wrong the last time, and since when it has gone wrong each time.
    failing: Option<(Instant, String)>,
}

#[derive(Clone, Default)]
pub(crate) struct Pruning(Arc<Mutex<Removed>>);

impl Pruning {
    pub fn read(&self) -> Removed {
        self.lock().clone()
    }

    /// For how many seconds it has failed now, and why.
    pub fn failing(&self) -> Option<(u64, String)> {
        let failing = self.lock().failing.clone();
        failing.map(|(since, error)| (since.elapsed().as_secs(), error))
    }

    fn removed(&self, pruned: Pruned) {
        let mut removed = self.lock();
        removed.events += pruned.events;
        removed.failing = None;
    }

    fn failed(&self, error: String) {
        let mut removed = self.lock();
        removed.failures += 1;
        let since = removed.failing.take().map(|(since, _)| since);
        removed.failing = Some((since.unwrap_or_else(Instant::now), error));
    }

    fn lock(&self) -> MutexGuard<'_, Removed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the horizons while this server leads. Never returns.
pub(crate) async fn run(core: Core, retention: HistoryRetention) {
    loop {
        sleep(LOOK_EVERY).await;
        if core.view().level < Act::Prune(Horizons::default()).level()
            || !core.node().status().leads()
        {
            continue;
        }
        look(&core, &retention).await;
    }
}

/// Moves the horizons as far as they are to go now.
pub(crate) async fn look(core: &Core, retention: &HistoryRetention) {
    let pins = core.pins().lock().await;
    if let Some(horizons) = due(core, retention, pins::floor(&pins)) {
        propose(core, horizons).await;
    }
}

/// Removes what lies before the horizons. What keeps it from that may pass, so it tries again, and says so meanwhile. Never returns.
pub(crate) async fn prune(core: Core) {
    let mut worker = None;
    let mut retry = PRUNE_RETRY;
    loop {
        let began = Instant::now();
        let pause = match prune_some(&core, &mut worker).await {
            Ok(pruned) => {
                core.pruning().removed(pruned);
                retry = PRUNE_RETRY;
                if pruned.more {
                    rest(began.elapsed())
                } else {
                    PRUNE_REST
                }
            }
            Err(error) => {
                tracing::error!(%error, again_s = retry.as_secs(), "what lies before the horizon is not removed");
                core.pruning().failed(error);
                let pause = retry;
                retry = (2 * retry).min(PRUNE_RETRY_MAX);
                pause
            }
        };
        sleep(pause).await;
    }
}

/// How long to rest after a step that took so long.
fn rest(took: Duration) -> Duration {
    (PRUNE_RESTS * took).clamp(PRUNE_PAUSE, PRUNE_REST)
}

/// One step. A thread that has ended is replaced by the next.
async fn prune_some(core: &Core, worker: &mut Option<Box<dyn Worker>>) -> Result<Pruned, String> {
    let thread = match worker.take() {
        Some(thread) => thread,
        None => {
            let started = core.seams().runtime.worker("prune");
            started.map_err(|error| error.to_string())?
        }
    };
    let store = core.store().clone();
    let pruned = seams::run(&*thread, move || store.prune(PRUNE_EVENTS)).await;
    let pruned = pruned.map_err(|error| error.to_string())?;
    *worker = Some(thread);
    pruned.map_err(|error| error.to_string())
}

/// Where the horizons are to go, if it is worth an event; not beyond what is read for a backup.
fn due(core: &Core, keep: &HistoryRetention, read: Option<u64>) -> Option<Horizons> {
    let view = core.view();
    let retention = &view.retention;
    let (floor, most) = (
        retention.floor(),
        retention.floor().unwrap_or(view.revision),
    );
    // The last step, up to what is held, may be a short one: there is none after it.
    let last = |from: u64, to: u64| floor.is_some_and(|floor| from < floor && floor <= to);
    let far = |from: u64, to: u64| {
        let to = read.map_or(to, |read| to.min(read));
        (to.min(most) >= from + STEP_REVISIONS || last(from, to)).then_some(to)
    };
    let all = target(core, keep.all).and_then(|to| far(retention.horizon(), to));
    let ephemeral = target(core, keep.ephemeral);
    let resources: Vec<(Text, u64)> = EPHEMERAL
        .iter()
        .filter_map(|resource| {
            let to = far(retention.horizon_of(resource), ephemeral?)?;
            Some(((*resource).into(), to))
        })
        .collect();
    let horizons = Horizons {
        all: all.unwrap_or_default(),
        resources,
    };
    (horizons != Horizons::default()).then_some(horizons)
}

/// The first revision to keep; None: all of them.
fn target(core: &Core, keep: Retain) -> Option<u64> {
    match keep {
        Retain::Forever => None,
        Retain::Revisions(revisions) => core.view().revision.checked_sub(revisions),
        // What is before the first event, or behind the horizon already, moves nothing.
        Retain::AgeS(age_s) => {
            let then = core.now().plus_ms(-(age_s as i64).saturating_mul(1_000));
            core.store().revision_at(then).unwrap_or_else(|error| {
                if !matches!(error, ReadError::Compacted { .. }) {
                    tracing::warn!(%error, "how far back history is to reach can't be read");
                }
                None
            })
        }
    }
}

async fn propose(core: &Core, horizons: Horizons) {
    let actor = Actor::Server {
        name: core.name().into(),
    };
    let draft = Draft {
        intent: Intent::Prune,
        expectations: Vec::new(),
        act: Act::Prune(horizons),
    };
    let mut request = core.request(actor, Cause::default());
    let deadline = Instant::now() + PROPOSE_TIMEOUT;
    if let Err(error) = core.propose(&mut request, draft, deadline).await {
        tracing::debug!(%error, "the horizon of history did not move");
    }
}
