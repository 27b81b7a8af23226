//! Probes: one task for each running container that has any. Startup first; once that has passed, liveness and readiness side by side.
//! What they find goes to the pod's worker as a verdict; the planner decides what follows.
//!
//! Counting is pure (`Tally`), asking is not. A probe never kills or restarts anything.

mod ask;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::plan::Verdict;
use crate::pod::{Container, Probe};
use crate::runtime::ContainerRuntime;
pub use ask::{Answer, run_hook};

/// Verdicts that wait for a pod's worker. Past it the probes wait.
pub const VERDICT_QUEUE: usize = 16;

/// What a probing task needs to know of its container.
#[derive(Clone)]
pub struct Target {
    pub container_id: String,
    pub spec: Container,
    /// The pod's address.
    pub ip: String,
    pub runtime: Arc<dyn ContainerRuntime>,
}

/// What a task tells its pod's worker.
#[derive(Debug, Clone)]
pub struct Finding {
    pub container_id: String,
    pub verdict: Verdict,
    /// For an event: `Readiness probe failed: …`.
    pub complaint: Option<String>,
}

/// Whether the container has a probe at all.
pub fn has_any(spec: &Container) -> bool {
    spec.startup_probe.is_some() || spec.liveness_probe.is_some() || spec.readiness_probe.is_some()
}

/// The verdict before any probe has answered. An adopted container keeps what was reported of it, so that an agent's restart takes
/// no pod out of its Services.
pub fn initial(spec: &Container, was_started: bool, was_ready: bool) -> Verdict {
    let started = spec.startup_probe.is_none() || was_started;
    Verdict {
        started,
        ready: started && (spec.readiness_probe.is_none() || was_ready),
        failed: None,
    }
}

/// Probes until it is aborted, or the container is given up. `age` is how long the container has run.
pub async fn run(target: Target, from: Verdict, age: Duration, findings: mpsc::Sender<Finding>) {
    let begin = Instant::now();
    let delay = |probe: &Probe| {
        begin
            + Duration::from_secs(u64::from(probe.initial_delay_seconds.unwrap_or(0)))
                .saturating_sub(age)
    };
    let mut state = from;
    if let Some(probe) = target.spec.startup_probe.clone().filter(|_| !state.started) {
        sleep_until(delay(&probe)).await;
        let mut tally = Tally::new(&probe, None);
        loop {
            let answer = ask::ask(&target, &probe).await;
            let outcome = tally.count(answer.ok);
            let complaint = answer.complaint("Startup");
            match outcome {
                Some(true) => {
                    state.started = true;
                    state.ready = target.spec.readiness_probe.is_none();
                }
                Some(false) => state.failed = Some("startup"),
                None => {}
            }
            if !tell(&findings, &target, state, complaint).await || state.failed.is_some() {
                return;
            }
            if state.started {
                break;
            }
            sleep(period(&probe)).await;
        }
    }
    steady(&target, state, delay, &findings).await;
}

/// Liveness and readiness, each in its own rhythm.
async fn steady(
    target: &Target,
    mut state: Verdict,
    delay: impl Fn(&Probe) -> Instant,
    findings: &mpsc::Sender<Finding>,
) {
    let live = target.spec.liveness_probe.clone();
    let ready = target.spec.readiness_probe.clone();
    let mut live_tally = live.as_ref().map(|probe| Tally::new(probe, Some(true)));
    let mut ready_tally = ready
        .as_ref()
        .map(|probe| Tally::new(probe, Some(state.ready)));
    let mut live_at = live.as_ref().map(&delay);
    let mut ready_at = ready.as_ref().map(&delay);
    loop {
        let live_first = match (live_at, ready_at) {
            (None, None) => return,
            (Some(live), Some(ready)) => live <= ready,
            (live, _) => live.is_some(),
        };
        let (probe, tally, at, word) = if live_first {
            (&live, &mut live_tally, &mut live_at, "Liveness")
        } else {
            (&ready, &mut ready_tally, &mut ready_at, "Readiness")
        };
        let (Some(probe), Some(tally), Some(due)) = (probe, tally, at) else {
            return;
        };
        sleep_until(*due).await;
        let answer = ask::ask(target, probe).await;
        let outcome = tally.count(answer.ok);
        *due = (*due + period(probe)).max(Instant::now());
        match (live_first, outcome) {
            (true, Some(false)) => state.failed = Some("liveness"),
            (false, Some(ready)) => state.ready = ready,
            _ => {}
        }
        let complaint = answer.complaint(word);
        if outcome.is_none() && complaint.is_none() {
            continue;
        }
        if !tell(findings, target, state, complaint).await || state.failed.is_some() {
            return;
        }
    }
}

async fn tell(
    findings: &mpsc::Sender<Finding>,
    target: &Target,
    verdict: Verdict,
    complaint: Option<String>,
) -> bool {
    let finding = Finding {
        container_id: target.container_id.clone(),
        verdict,
        complaint,
    };
    findings.send(finding).await.is_ok()
}

fn period(probe: &Probe) -> Duration {
    Duration::from_secs(u64::from(probe.period_seconds.unwrap_or(10).max(1)))
}

/// Counts successes and failures in a row against the thresholds.
#[derive(Debug)]
struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    held: Option<bool>,
    last: Option<bool>,
    in_a_row: u32,
}

impl Tally {
    fn new(probe: &Probe, held: Option<bool>) -> Self {
        Tally {
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            held,
            last: None,
            in_a_row: 0,
        }
    }

    /// The result when it changes.
    fn count(&mut self, ok: bool) -> Option<bool> {
        self.in_a_row = if self.last == Some(ok) {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = Some(ok);
        let threshold = if ok {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.in_a_row < threshold || self.held == Some(ok) {
            return None;
        }
        self.held = Some(ok);
        Some(ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(success: u32, failure: u32, held: Option<bool>, answers: &str, expected: &str) {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Default::default()
        };
        let mut tally = Tally::new(&probe, held);
        let found: String = answers
            .chars()
            .map(|answer| match tally.count(answer == '+') {
                None => '.',
                Some(true) => 'Y',
                Some(false) => 'N',
            })
            .collect();
        assert_eq!(
            found, expected,
            "success {success} failure {failure} held {held:?} {answers}"
        );
    }

    #[test]
    fn thresholds() {
        check(1, 3, Some(false), "+", "Y");
        check(1, 3, Some(true), "+--+---", "......N");
        check(2, 1, Some(false), "+-++-", "...YN");
        check(1, 3, None, "--+", "..Y");
        check(1, 3, None, "---", "..N");
        check(3, 3, Some(false), "++-+++", ".....Y");
    }

    #[test]
    fn what_holds_before_the_first_answer() {
        let with = |startup: bool, readiness: bool| Container {
            startup_probe: startup.then(Probe::default),
            readiness_probe: readiness.then(Probe::default),
            ..Default::default()
        };
        for (startup, readiness, was_started, was_ready, expected) in [
            (false, false, false, false, (true, true)),
            (false, true, false, false, (true, false)),
            (false, true, true, true, (true, true)),
            (true, false, false, false, (false, false)),
            (true, true, true, true, (true, true)),
            (true, true, true, false, (true, false)),
        ] {
            let verdict = initial(&with(startup, readiness), was_started, was_ready);
            assert_eq!((verdict.started, verdict.ready), expected);
        }
    }
}
