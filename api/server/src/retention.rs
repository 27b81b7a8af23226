//! What history is kept: the leader moves the horizons as its flags say, and every server removes what lies before them.
//!
//! Where the horizons stand is in the log, so that all servers refuse the same reads. Removing is each server's own, a little at a time,
//! on a thread of its own.

use crate::config::{HistoryRetention, Retain};
use crate::core::{Core, Draft};
use eventstore::{Act, Actor, Cause, Horizons, Intent, Text};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What may be kept for a shorter time than the rest: observed, many, and read for what is now.
const EPHEMERAL: [&str; 2] = ["events", "coordination.k8s.io/leases"];

const LOOK_EVERY: Duration = Duration::from_secs(10);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A horizon moves by so many revisions at the least: moving it is an event too.
const STEP_REVISIONS: u64 = 100;

/// Events that one step of pruning looks at, and the pause between two: at most 2,560 events a second.
const PRUNE_EVENTS: usize = 256;
const PRUNE_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks when there was nothing to prune.
const PRUNE_REST: Duration = Duration::from_secs(2);

/// Moves the horizons while this server leads. Never returns.
pub(crate) async fn run(core: Core, retention: HistoryRetention) {
    loop {
        sleep(LOOK_EVERY).await;
        if core.view().level < Act::Prune(Horizons::default()).level()
            || !core.node().status().leads()
        {
            continue;
        }
        if let Some(horizons) = due(&core, &retention) {
            propose(&core, horizons).await;
        }
    }
}

/// Removes what lies before the horizons. Returns when the disk fails, which the log notices too.
pub(crate) async fn prune(core: Core) -> Result<(), seams::WorkerError> {
    let worker = core.seams().runtime.worker("prune")?;
    loop {
        let store = core.store().clone();
        let pruned = seams::run(&*worker, move || store.prune(PRUNE_EVENTS)).await?;
        match pruned {
            Ok(pruned) if pruned.more => sleep(PRUNE_PAUSE).await,
            Ok(_) => sleep(PRUNE_REST).await,
            Err(error) => {
                tracing::error!(%error, "history is not pruned any more");
                return Ok(());
            }
        }
    }
}

/// Where the horizons are to go, if it is worth an event.
fn due(core: &Core, keep: &HistoryRetention) -> Option<Horizons> {
    let view = core.view();
    let retention = &view.retention;
    let (floor, most) = (
        retention.floor(),
        retention.floor().unwrap_or(view.revision),
    );
    // The last step, up to what is held, may be a short one: there is none after it.
    let last = |from: u64, to: u64| floor.is_some_and(|floor| from < floor && floor <= to);
    let far = |from: u64, to: u64| {
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
            core.store().revision_at(then).ok().flatten()
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
