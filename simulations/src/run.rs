//! One seed, from beginning to end: start, let clients and faults loose, heal, wait until it converges, check the whole history.

use crate::agents;
use crate::cluster::SimCluster;
use crate::faults::{FaultCounts, Faults};
use crate::history::Historian;
use crate::invariants::digests::Digests;
use crate::invariants::freed::Lives;
use crate::invariants::one_leader::OneLeader;
use crate::invariants::{
    Violation, converged, left_behind, linearizable, pruned, restored, unfenced,
};
use crate::members::Operator;
use crate::planted::Planted;
use crate::sides::Chance;
use crate::workload::{Answer, Client, Told, ask, prepare};
use eventstore::View;
use http::Method;
use serde_json::json;
use server::archive::Archive;
use server::config::Retain;
use std::time::Duration;
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::task::JoinHandle;
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
    /// All servers begin with the release before, and are upgraded one by one.
    pub begins_old: bool,
    /// So many revisions are kept, and all history before is pruned; None, or with a planted bug: it is kept forever.
    pub keeps: Option<u64>,
    /// Between how many servers an operator lets the cluster grow and shrink; None, or with a planted bug: nobody comes or goes.
    pub sizes: Option<(usize, usize)>,
}

impl Options {
    /// Ten virtual minutes.
    pub const STEPS: u64 = 600;
    /// Some 500 writes in ten minutes: what more of them would find, more seeds find sooner.
    pub const PAUSE_MS: (u64, u64) = (400, 4_500);

    /// Some minutes of a seed's.
    pub const KEEPS: u64 = 500;

    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: Self::STEPS,
            servers: 3,
            nodes: 4,
            clients: 4,
            pause_ms: Self::PAUSE_MS,
            planted: None,
            begins_old: seed.is_multiple_of(3),
            keeps: seed.is_multiple_of(4).then_some(Self::KEEPS),
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
/// Steps between two looks of whoever archives.
const ARCHIVE_EVERY: u64 = 50;
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
                let members = status.members.iter();
                let members = members.map(|member| &*member.name);
                let members = members.map(|name| (name, cluster.knows(name)));
                left_behind::check(parts.core.view().level, members)?;
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
    let mut scene = Scene::begin(options, lives).await.map_err(fails(0))?;
    for step in 0..options.steps {
        scene.step(step).await.map_err(fails(step + 1))?;
        lives.let_go().map_err(fails(step + 1))?;
    }
    let view = scene.end(options.seed).await;
    let view = view.map_err(fails(options.steps))?;
    Ok(scene.report(options.seed, &view))
}

/// All that takes part in a run.
struct Scene {
    started: Instant,
    cluster: SimCluster,
    faults: Faults,
    watcher: Watcher,
    operator: Option<Operator>,
    nodes: Vec<JoinHandle<()>>,
    clients: Vec<JoinHandle<()>>,
    told: Told,
    /// Written as the run goes, by whichever server.
    archive: Archive,
    archivists: Chance,
}

impl Scene {
    async fn begin(options: &Options, lives: &Lives) -> Result<Self, Violation> {
        let started = Instant::now();
        let seed = options.seed;
        let mut cluster = SimCluster::new(
            seed,
            options.servers,
            options.planted,
            NODE_GRACE_S,
            lives.clone(),
        );
        if options.begins_old {
            cluster.begin_old();
        }
        if let Some(keeps) = options.keeps.filter(|_| options.planted.is_none()) {
            cluster.retention.all = Retain::Revisions(keeps);
        }
        let sizes = options.sizes.filter(|_| options.planted.is_none());
        let operator = sizes.map(|sizes| Operator::new(Chance::new(seed, 3), &cluster, sizes));
        for index in 0..options.servers {
            let begun = cluster.start(index).await;
            begun.map_err(|error| Violation::new("start", error.to_string()))?;
        }
        let (net, fronts) = (cluster.net.clone(), cluster.fronts.clone());
        // Agents are told all that there may be: one that is not there is passed over.
        let most = sizes.map_or(options.servers, |(_, most)| most.max(options.servers));
        let dialled: Vec<_> = (1..=most)
            .map(|number| format!("server-{number}"))
            .collect();
        let node = |index| {
            let (dialled, net, fronts) = (dialled.clone(), net.clone(), fronts.clone());
            agents::start(index, seed, dialled, net, fronts, started)
        };
        let nodes = (1..=options.nodes).map(node).collect();
        prepare(&fronts, &net, &cluster.names()).await;
        let told = Told::default();
        let client = |index| {
            let (net, fronts) = (net.clone(), fronts.clone());
            Client::new(index, seed, fronts, net, told.clone()).run(options.pause_ms)
        };
        let clients = (0..options.clients).map(|index| tokio::spawn(client(index)));
        Ok(Self {
            started,
            faults: Faults::new(Chance::new(seed, 1), options.nodes),
            watcher: Watcher {
                planted: options.planted.is_some(),
                ..Watcher::default()
            },
            operator,
            nodes,
            clients: clients.collect(),
            told,
            cluster,
            archive: Archive::in_memory(),
            archivists: Chance::new(seed, 5),
        })
    }

    async fn step(&mut self, step: u64) -> Result<(), Violation> {
        self.faults.step(&mut self.cluster).await;
        if let Some(operator) = &mut self.operator {
            operator.step(&mut self.cluster).await?;
        }
        tracing::debug!(step, "stepped");
        for _ in 0..LOOKS {
            sleep(STEP / LOOKS).await;
            self.watcher.look(&self.cluster)?;
        }
        if let Some(wrong) = self.told.lock().wrong.clone() {
            return Err(wrong);
        }
        self.cluster.hush(true);
        self.watcher.read(&self.cluster, &self.told)?;
        if step % ARCHIVE_EVERY == ARCHIVE_EVERY - 1 && !self.watcher.planted {
            let stores = self.cluster.alive().map(|(_, _, parts)| parts.core.store());
            let stores: Vec<_> = stores.cloned().collect();
            if let Some(store) = self.archivists.pick(&stores) {
                restored::archive(&self.archive, store).await?;
            }
        }
        self.cluster.hush(false);
        Ok(())
    }

    /// No more is asked and nothing fails any more: it comes to rest, all that was is checked, and brought back in two ways.
    async fn end(&mut self, seed: u64) -> Result<View, Violation> {
        self.clients.iter().for_each(|client| client.abort());
        let (cluster, faults) = (&mut self.cluster, &mut self.faults);
        faults.heal(cluster).await;
        if let Some(operator) = &mut self.operator {
            rest(operator, cluster, faults).await?;
        }
        let view = converge(cluster, faults, &mut self.watcher).await?;
        prune(cluster).await?;
        check_history(cluster, &mut self.watcher, &self.told, &view)?;
        let chance = Chance::new(seed, 4);
        restore(cluster, faults, &mut self.watcher, &self.archive, &chance).await?;
        self.nodes.iter().for_each(|node| node.abort());
        Ok(view)
    }

    fn report(&self, seed: u64, view: &View) -> Report {
        let changes = self.operator.as_ref().map(|operator| operator.counts);
        let changes = changes.unwrap_or_default();
        let books = self.told.lock();
        Report {
            seed,
            virtual_s: self.started.elapsed().as_secs(),
            writes: books.writes,
            refused: books.refused,
            unknown: books.unknown,
            terms: self.watcher.leaders.terms(),
            revision: view.revision,
            digest: view.digest.to_string(),
            faults: FaultCounts {
                members_added: changes.added,
                members_removed: changes.removed,
                leader_transfers: changes.leader_transfers,
                ..self.faults.totals(&self.cluster)
            },
        }
    }
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

/// What was is made again: by a new cluster's state of the archive, as of some moment and of the end; and by a restore that anybody may ask
/// for, to some moment and back.
async fn restore(
    cluster: &mut SimCluster,
    faults: &mut Faults,
    watcher: &mut Watcher,
    archive: &Archive,
    chance: &Chance,
) -> Result<(), Violation> {
    let Some((_, server, parts)) = cluster.alive().next() else {
        return Err(converged::violation("nobody lives".to_owned()));
    };
    let (name, store) = (server.name.clone(), parts.core.store().clone());
    let failed = |what: String| Violation::new("restored is past", what);
    let end = store.view().revision;
    // Where history is pruned, far enough from the horizon that it stays behind.
    let moment = || {
        let first = match store.horizon() {
            0 => 1,
            horizon => horizon.midpoint(end),
        };
        let at = store.event_end(chance.between(first, end));
        at.map_err(|error| failed(error.to_string()))
    };
    restored::archive(archive, &store).await?;
    for at in [moment()?, end] {
        restored::through_the_archive(archive, &store, at, chance.clone()).await?;
    }
    for at in [moment()?, end] {
        let then = restored::desired_at(&store, at)?;
        let body = json!({"at": at.to_string()});
        let (fronts, net) = (&cluster.fronts, &cluster.net);
        let path = "/reckon/v1/restore";
        let answer = ask(
            fronts,
            net,
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
        restored::same(&then, &restored::desired_at(&store, view.revision)?)?;
    }
    Ok(())
}

/// Waits until every server has removed what is before the horizon.
async fn prune(cluster: &SimCluster) -> Result<(), Violation> {
    let mut why = String::new();
    for _ in 0..CONVERGE_S {
        let mut all = true;
        for (_, server, parts) in cluster.alive() {
            if let Some(left) = pruned::left(parts.core.store())? {
                (all, why) = (false, format!("{}: {left}", server.name));
            }
        }
        if all {
            return Ok(());
        }
        sleep(STEP).await;
    }
    Err(Violation::new("what is past goes", why))
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
        pruned::check(store)?;
    }
    let Some((_, _, parts)) = cluster.alive().next() else {
        return Err(converged::violation("nobody lives".to_owned()));
    };
    let store = parts.core.store();
    watcher.historian.check(store, view, told)?;
    linearizable::check(&told.lock().operations, |key| {
        watcher.historian.past(store, key)
    })
}
