//! One seed, from beginning to end: start, let clients and faults loose, heal, wait until it converges, check the whole history.

use crate::agents;
use crate::cluster::SimCluster;
use crate::faults::{FaultCounts, Faults};
use crate::history::Historian;
use crate::invariants::digests::Digests;
use crate::invariants::freed::Lives;
use crate::invariants::one_leader::OneLeader;
use crate::invariants::{Violation, converged, restored, unfenced};
use crate::members::Operator;
use crate::planted::Planted;
use crate::sides::Chance;
use crate::workload::{Answer, Client, Told, ask, prepare};
use eventstore::View;
use http::Method;
use serde_json::json;
use std::time::Duration;
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::time::{Instant, sleep};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Each is a second of virtual time in which faults may strike.
    pub steps: u64,
    pub servers: usize,
    pub nodes: u32,
    pub clients: u64,
    /// How long a client waits between two requests: between the one and the other, in ms.
    pub pause_ms: (u64, u64),
    pub planted: Option<Planted>,
    /// Between how many servers an operator lets the cluster grow and shrink; None, or with a planted bug: nobody comes or goes.
    pub sizes: Option<(usize, usize)>,
}

impl Options {
    /// Ten virtual minutes.
    pub const STEPS: u64 = 600;
    /// Some 500 writes in ten minutes: what more of them would find, more seeds find sooner.
    pub const PAUSE_MS: (u64, u64) = (400, 5_000);

    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: Self::STEPS,
            servers: 3,
            nodes: 4,
            clients: 4,
            pause_ms: Self::PAUSE_MS,
            planted: None,
            sizes: Some((3, 5)),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub virtual_s: u64,
    pub writes: u64,
    pub refused: u64,
    pub unknown: u64,
    pub terms: usize,
    pub revision: u64,
    pub digest: String,
    pub faults: FaultCounts,
}

/// A run that broke an invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, step {step}: {violation}")]
pub struct Failure {
    pub seed: u64,
    /// How many steps show it: run again with that many.
    pub step: u64,
    pub violation: Violation,
}

/// How often the servers are looked at within a step.
const LOOKS: u32 = 10;
const STEP: Duration = Duration::from_secs(1);
/// How long a healed cluster may take to converge.
const CONVERGE_S: u64 = 180;
const NODE_GRACE_S: u64 = 8;

/// One thread, paused clock, seeded choices.
pub(crate) fn runtime(seed: u64) -> Runtime {
    let seed = RngSeed::from_bytes(&seed.to_le_bytes());
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(seed)
        .build();
    runtime.expect("a runtime of one thread, without I/O, has nothing that can be missing")
}

/// Runs one seed on a runtime of its own.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let runtime = runtime(options.seed);
    let lives = Lives::default();
    let report = runtime.block_on(whole(options, &lives));
    // What still runs is dropped with it.
    runtime.shutdown_background();
    let report = report?;
    lives
        .all_let_go()
        .map_err(fails(options.seed, options.steps))?;
    Ok(report)
}

fn fails(seed: u64, step: u64) -> impl Fn(Violation) -> Failure {
    move |violation| Failure {
        seed,
        step,
        violation,
    }
}

/// What is looked at as the cluster goes.
#[derive(Default)]
struct Watcher {
    historian: Historian,
    leaders: OneLeader,
    digests: Digests,
    /// A planted bug may make servers differ.
    planted: bool,
}

impl Watcher {
    fn look(&mut self, cluster: &SimCluster) -> Result<(), Violation> {
        for (_, server, parts) in cluster.alive() {
            let status = parts.core.status();
            if status.leader.as_deref() == Some(server.name.as_str()) && status.role == LEADS {
                self.leaders.leads(&server.name, status.term)?;
            }
            let view = parts.core.view();
            self.digests
                .stands(&server.name, view.revision, view.digest, view.clock)?;
            if !self.planted {
                unfenced::check(&parts.core)?;
            }
        }
        Ok(())
    }

    /// Reads on in the history, where the furthest server has it.
    fn read(&mut self, cluster: &SimCluster, told: &Told) -> Result<(), Violation> {
        let stores = cluster.alive().map(|(_, _, parts)| parts.core.store());
        let views = stores.map(|store| (store.view(), store));
        match views.max_by_key(|(view, _)| view.revision) {
            Some((view, store)) => self.historian.read(store, &view, told),
            None => Ok(()),
        }
    }
}

/// `Status::role` of a leader.
const LEADS: &str = "leader";

async fn whole(options: &Options, lives: &Lives) -> Result<Report, Failure> {
    let fails = |step| fails(options.seed, step);
    let started = Instant::now();
    let mut cluster = SimCluster::new(
        options.seed,
        options.servers,
        options.planted,
        NODE_GRACE_S,
        lives.clone(),
    );
    let mut faults = Faults::new(Chance::new(options.seed, 1), options.nodes);
    let mut watcher = Watcher {
        planted: options.planted.is_some(),
        ..Watcher::default()
    };
    let names = cluster.names();
    let sizes = options.sizes.filter(|_| options.planted.is_none());
    let mut operator =
        sizes.map(|sizes| Operator::new(Chance::new(options.seed, 3), &cluster, sizes));
    for index in 0..options.servers {
        cluster
            .start(index)
            .await
            .map_err(|error| fails(0)(Violation::new("start", error.to_string())))?;
    }
    let (net, fronts) = (cluster.net.clone(), cluster.fronts.clone());
    // Agents are told all that there may be: one that is not there is passed over.
    let most = sizes.map_or(options.servers, |(_, most)| most.max(options.servers));
    let dialled: Vec<_> = (1..=most)
        .map(|number| format!("server-{number}"))
        .collect();
    let nodes: Vec<_> = (1..=options.nodes)
        .map(|index| {
            agents::start(
                index,
                options.seed,
                dialled.clone(),
                net.clone(),
                fronts.clone(),
                started,
            )
        })
        .collect();
    prepare(&fronts, &net, &names).await;
    let told = Told::default();
    let pause_ms = options.pause_ms;
    let clients: Vec<_> = (0..options.clients)
        .map(|index| {
            tokio::spawn(
                Client::new(
                    index,
                    options.seed,
                    fronts.clone(),
                    net.clone(),
                    told.clone(),
                )
                .run(pause_ms),
            )
        })
        .collect();
    for step in 0..options.steps {
        faults.step(&mut cluster).await;
        if let Some(operator) = &mut operator {
            operator.step(&mut cluster).await.map_err(fails(step + 1))?;
        }
        tracing::debug!(step, "stepped");
        for _ in 0..LOOKS {
            sleep(STEP / LOOKS).await;
            watcher.look(&cluster).map_err(fails(step + 1))?;
        }
        if let Some(wrong) = told.lock().wrong.clone() {
            return Err(fails(step + 1)(wrong));
        }
        watcher.read(&cluster, &told).map_err(fails(step + 1))?;
        lives.let_go().map_err(fails(step + 1))?;
    }
    clients.iter().for_each(|client| client.abort());
    let end = fails(options.steps);
    faults.heal(&mut cluster).await;
    if let Some(operator) = &mut operator {
        rest(operator, &mut cluster, &mut faults)
            .await
            .map_err(&end)?;
    }
    let view = converge(&mut cluster, &mut faults, &mut watcher)
        .await
        .map_err(&end)?;
    check_history(&cluster, &mut watcher, &told, &view).map_err(&end)?;
    let chance = Chance::new(options.seed, 4);
    restore(&mut cluster, &mut faults, &mut watcher, &chance)
        .await
        .map_err(&end)?;
    nodes.iter().for_each(|node| node.abort());
    let changes = operator.map(|operator| operator.counts).unwrap_or_default();
    let books = told.lock();
    Ok(Report {
        seed: options.seed,
        virtual_s: started.elapsed().as_secs(),
        writes: books.writes,
        refused: books.refused,
        unknown: books.unknown,
        terms: watcher.leaders.terms(),
        revision: view.revision,
        digest: view.digest.to_string(),
        faults: FaultCounts {
            members_added: changes.added,
            members_removed: changes.removed,
            leader_transfers: changes.leader_transfers,
            ..faults.totals(&cluster)
        },
    })
}

/// Lets the operator end what is under way; then the servers that run are the members, as each of them knows.
async fn rest(
    operator: &mut Operator,
    cluster: &mut SimCluster,
    faults: &mut Faults,
) -> Result<(), Violation> {
    let mut why = "something is still under way".to_owned();
    for _ in 0..CONVERGE_S {
        sleep(STEP).await;
        faults.heal(cluster).await;
        if operator.rest(cluster).await? {
            match amiss(cluster) {
                Some(amiss) => why = amiss,
                None => return Ok(()),
            }
        }
    }
    Err(Violation::new("the members are who is there", why))
}

fn amiss(cluster: &SimCluster) -> Option<String> {
    let mut there = cluster.names();
    there.sort();
    cluster.alive().find_map(|(_, server, parts)| {
        let members = parts.core.status().members;
        let voters = members.iter().filter(|member| member.voter);
        let mut voters: Vec<_> = voters.map(|member| member.name.clone()).collect();
        voters.sort();
        let what = format!("{there:?} are there, {} knows {members:?}", server.name);
        (voters != there || members.len() != there.len()).then_some(what)
    })
}

/// Waits until all servers stand at one revision with everything done, twice in a row.
async fn converge(
    cluster: &mut SimCluster,
    faults: &mut Faults,
    watcher: &mut Watcher,
) -> Result<View, Violation> {
    let mut why = String::new();
    let mut quiet = 0;
    for _ in 0..CONVERGE_S {
        sleep(STEP).await;
        watcher.look(cluster)?;
        faults.heal(cluster).await;
        let views: Vec<_> = cluster
            .alive()
            .map(|(_, server, parts)| (server.name.clone(), parts.core.view()))
            .collect();
        match converged::missing(&views, cluster.members().count()) {
            Some(missing) => (why, quiet) = (missing, 0),
            None => quiet += 1,
        }
        if quiet >= 3
            && let Some((_, view)) = views.into_iter().next()
        {
            return Ok(view);
        }
    }
    let standing = cluster.alive().map(|(_, server, parts)| {
        let status = parts.core.status();
        format!(
            "{} {} in term {}, leader {:?}, revision {}, fault {:?}",
            server.name, status.role, status.term, status.leader, status.revision, status.fault
        )
    });
    let standing: Vec<_> = standing.collect();
    Err(converged::violation(format!(
        "not within {CONVERGE_S} s after healing: {why}; {}",
        standing.join("; ")
    )))
}

/// Desired state becomes what it was at some moment, by a restore that anybody may ask for; and a backup is the same history.
async fn restore(
    cluster: &mut SimCluster,
    faults: &mut Faults,
    watcher: &mut Watcher,
    chance: &Chance,
) -> Result<(), Violation> {
    let Some((_, server, parts)) = cluster.alive().next() else {
        return Err(converged::violation("nobody lives".to_owned()));
    };
    let (name, store) = (server.name.clone(), parts.core.store().clone());
    restored::through_a_backup(&store, chance.clone())?;
    let failed = |what: String| Violation::new("restored is past", what);
    let asked = chance.between(1, store.view().revision);
    let at = store.event_end(asked);
    let at = at.map_err(|error| failed(error.to_string()))?;
    let then = restored::kept_at(&store, at)?;
    let body = json!({"at": at.to_string()});
    let path = "/reckon/v1/restore";
    let answer = ask(
        &cluster.fronts,
        &cluster.net,
        "operator",
        &name,
        Method::POST,
        path,
        Some(&body),
    )
    .await;
    if !matches!(answer, Answer::Done(_)) {
        return Err(failed(format!("as of {at}: {answer}")));
    }
    let view = converge(cluster, faults, watcher).await?;
    let now = restored::kept_at(&store, view.revision)?;
    restored::same(&then, &now)
}

fn check_history(
    cluster: &SimCluster,
    watcher: &mut Watcher,
    told: &Told,
    view: &View,
) -> Result<(), Violation> {
    for (_, server, parts) in cluster.alive() {
        let store = parts.core.store();
        let verified = store.verify(1..=view.revision, |_| ());
        verified.map_err(|error| {
            Violation::new("the chain holds", format!("{}: {error}", server.name))
        })?;
    }
    let Some((_, _, parts)) = cluster.alive().next() else {
        return Err(converged::violation("nobody lives".to_owned()));
    };
    watcher.historian.check(parts.core.store(), view, told)
}
