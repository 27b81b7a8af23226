//! Three servers of the production code, and how they are started, killed and started again.
//!
//! A crash cuts the server's disk and network handles for good, then drops its tasks; its disk keeps a random prefix.

use crate::invariants::freed::Lives;
use crate::planted::Planted;
use crate::sides::{Chance, DiskFaults, SimClock, SimDisks, SimNet, SimPlug, SimRuntime};
use http::Method;
use seams::{Seams, Strand};
use server::agents::Hub;
use server::config::{DiskReserve, HistoryRetention, Joined, Member, Snapshots};
use server::http::Api;
use server::server::{Parts, RunError};
use server::{Config, Tamper};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Small, so that servers that were away for a while are rebuilt from snapshots.
const SNAPSHOTS: Snapshots = Snapshots {
    log_bytes: 128 << 10,
    keep_entries: 50,
    keep_bytes: 64 << 10,
};

/// So few that what is sent again after a failure is looked for on the disk.
const MOST_OUTCOMES: usize = 8;

/// The servers' front doors by name: what agents dial and clients call, as long as the server lives.
#[derive(Clone, Default)]
pub struct Fronts {
    open: Arc<Mutex<BTreeMap<String, Front>>>,
    /// Who is a member, dead or alive: what a load balancer would be told.
    members: Arc<Mutex<Vec<String>>>,
    /// A planted bug: a read that must see what was acknowledged may be as old as one that need not.
    stale: bool,
}

struct Front {
    hub: Hub,
    api: Api,
    sessions: Vec<JoinHandle<()>>,
    /// Becomes true when the server dies.
    dead: watch::Sender<bool>,
}

impl Fronts {
    pub fn hub(&self, server: &str) -> Option<Hub> {
        self.lock().get(server).map(|front| front.hub.clone())
    }

    /// The request that a server makes of a client's.
    pub fn path<'a>(&self, method: &Method, path: &'a str) -> Cow<'a, str> {
        if self.stale && method == Method::GET && !path.contains('?') {
            format!("{path}?resourceVersion=0").into()
        } else {
            path.into()
        }
    }

    /// The names of all members, dead or alive.
    pub fn members(&self) -> Vec<String> {
        let members = self.members.lock();
        members.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_members(&self, names: Vec<String>) {
        let members = self.members.lock();
        *members.unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// The API, and what tells that the server died.
    pub fn api(&self, server: &str) -> Option<(Api, watch::Receiver<bool>)> {
        self.lock()
            .get(server)
            .map(|front| (front.api.clone(), front.dead.subscribe()))
    }

    /// Runs a session of a server's, until it ends or the server dies.
    pub fn spawn(&self, server: &str, session: impl Future<Output = ()> + Send + 'static) {
        if let Some(front) = self.lock().get_mut(server) {
            front.sessions.retain(|session| !session.is_finished());
            front.sessions.push(tokio::spawn(session));
        }
    }

    fn open(&self, server: &str, parts: &Parts) {
        let front = Front {
            hub: parts.hub.clone(),
            api: parts.api.clone(),
            sessions: Vec::new(),
            dead: watch::Sender::new(false),
        };
        self.lock().insert(server.to_owned(), front);
    }

    fn shut(&self, server: &str) {
        if let Some(front) = self.lock().remove(server) {
            front.sessions.iter().for_each(JoinHandle::abort);
            front.dead.send_replace(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Front>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server, through all its lives.
pub struct SimServer {
    pub name: String,
    pub clock: SimClock,
    pub disks: SimDisks,
    pub runtime: SimRuntime,
    chance: Chance,
    /// The highest level of the log that its program knows.
    most_level: u32,
    /// What it was told when it joined; None for a first member.
    joined: Option<Joined>,
    /// What is done to its apply in a scene of its own; none but there.
    #[cfg(test)]
    pub tamper: Option<Tamper>,
    /// It was removed, and is never started again.
    gone: bool,
    /// The present life; None while it is dead.
    pub parts: Option<Parts>,
}

pub struct SimCluster {
    seed: u64,
    started: Instant,
    pub servers: Vec<SimServer>,
    pub net: SimNet,
    pub fronts: Fronts,
    lives: Lives,
    /// For how long servers that are started from now on keep history.
    pub retention: HistoryRetention,
    /// Of lives that have ended.
    snapshots_installed: u64,
    pruned: u64,
    planted: Option<Planted>,
    first_members: Vec<Member>,
    node_grace_s: u64,
}

impl SimCluster {
    /// Servers that are not started yet.
    pub fn new(
        seed: u64,
        count: usize,
        planted: Option<Planted>,
        node_grace_s: u64,
        lives: Lives,
    ) -> Self {
        let started = Instant::now();
        let names: Vec<_> = (1..=count)
            .map(|number| format!("server-{number}"))
            .collect();
        let members = names
            .iter()
            .map(|name| Member {
                name: name.clone(),
                address: format!("{name}:6443"),
            })
            .collect();
        let mut cluster = Self {
            seed,
            started,
            servers: Vec::new(),
            net: SimNet::new(Chance::new(seed, 2)),
            fronts: Fronts {
                stale: planted == Some(Planted::StaleRead),
                ..Fronts::default()
            },
            lives,
            retention: HistoryRetention::default(),
            snapshots_installed: 0,
            pruned: 0,
            planted,
            first_members: members,
            node_grace_s,
        };
        for name in names {
            cluster.place(name, None);
        }
        if planted == Some(Planted::EarlyLevel) {
            cluster.net.answer_level(eventstore::LEVEL);
        }
        cluster
    }

    /// A server on an empty disk, not started yet.
    fn place(&mut self, name: String, joined: Option<Joined>) -> usize {
        let index = self.servers.len();
        let server = SimServer {
            name,
            clock: SimClock::new(self.started),
            disks: SimDisks::new(Chance::new(self.seed, 100 + index as u64)),
            runtime: SimRuntime::default(),
            chance: Chance::new(self.seed, 200 + index as u64),
            most_level: eventstore::LEVEL,
            joined,
            #[cfg(test)]
            tamper: None,
            gone: false,
            parts: None,
        };
        server.disks.set_faults(self.planted_disk());
        self.servers.push(server);
        self.tell();
        index
    }

    /// The servers that there are begin with the release before this one.
    pub fn begin_old(&mut self) {
        for server in &mut self.servers {
            server.most_level = eventstore::LEVEL - 1;
        }
    }

    /// The members whose program is of the release before.
    pub fn old(&self) -> Vec<usize> {
        let old = self.members();
        let old = old.filter(|(_, server)| server.most_level < eventstore::LEVEL);
        old.map(|(index, _)| index).collect()
    }

    /// The highest level that a member's program knows; None: there is no such member.
    pub fn knows(&self, name: &str) -> Option<u32> {
        let mut members = self.members();
        let member = members.find(|(_, server)| server.name == name);
        member.map(|(_, server)| server.most_level)
    }

    /// The next life of a server has this release.
    pub fn upgrade(&mut self, index: usize) {
        self.servers[index].most_level = eventstore::LEVEL;
    }

    /// A new server that was let in, not started yet. It may have the name of one that is gone.
    pub fn engage(&mut self, name: String, joined: Joined) -> usize {
        self.place(name, Some(joined))
    }

    /// A server that was removed ends for good.
    pub fn dismiss(&mut self, index: usize) {
        self.crash(index);
        self.servers[index].gone = true;
        self.tell();
    }

    fn tell(&self) {
        let members = self.members();
        let names = members.map(|(_, server)| server.name.clone());
        self.fronts.set_members(names.collect());
    }

    /// The servers that have not been removed, dead or alive.
    pub fn members(&self) -> impl Iterator<Item = (usize, &SimServer)> {
        let servers = self.servers.iter().enumerate();
        servers.filter(|(_, server)| !server.gone)
    }

    /// What a planted bug does to every disk.
    pub fn planted_disk(&self) -> DiskFaults {
        DiskFaults {
            skips_sync: self.planted == Some(Planted::SkippedSync),
            skips_events: self.planted == Some(Planted::SkippedRevision),
            ..DiskFaults::default()
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.members()
            .map(|(_, server)| server.name.clone())
            .collect()
    }

    /// The servers that are alive.
    pub fn alive(&self) -> impl Iterator<Item = (usize, &SimServer, &Parts)> {
        self.servers
            .iter()
            .enumerate()
            .filter_map(|(index, server)| Some((index, server, server.parts.as_ref()?)))
    }

    /// The server that leads in the highest term, as far as the living know.
    pub fn leader(&self) -> Option<usize> {
        let leads = self.alive().filter_map(|(index, _, parts)| {
            let status = parts.core.status();
            (status.leader.as_deref() == Some(parts.core.name())).then_some((status.term, index))
        });
        leads.max().map(|(_, index)| index)
    }

    pub async fn start(&mut self, index: usize) -> Result<(), RunError> {
        let server = &self.servers[index];
        let plug: Arc<SimPlug> = self.net.plug(&server.name);
        self.lives.begin(&server.name, &plug);
        let seams = Seams {
            directory: server.disks.directory(),
            network: plug,
            clock: Arc::new(server.clock.clone()),
            runtime: Arc::new(server.runtime.clone()),
            entropy: Arc::new(server.chance.clone()),
            strand: Strand::new(),
        };
        let tamper: Option<Tamper> = self
            .planted
            .and_then(|planted| planted.tamper(server.clock.clone()));
        #[cfg(test)]
        let tamper = tamper.or_else(|| server.tamper.clone());
        let parts = Parts::start(
            &self.config(server),
            seams,
            "-- simulated --".to_owned(),
            tamper,
        )
        .await?;
        self.fronts.open(&server.name, &parts);
        self.servers[index].parts = Some(parts);
        Ok(())
    }

    /// A start may fail on a failing disk: it is tried again, as a supervisor does.
    pub async fn start_at_last(&mut self, index: usize) {
        let mut why = String::new();
        for _ in 0..20 {
            match self.start(index).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, "a start failed");
                    why = error.to_string();
                    self.servers[index].disks.crash();
                    sleep(Duration::from_millis(500)).await;
                }
            }
        }
        panic!("server {index} does not start any more: {why}");
    }

    pub fn crash(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let Some(parts) = server.parts.take() else {
            return;
        };
        self.snapshots_installed += parts.core.snapshots_installed();
        self.pruned += parts.core.pruned_events();
        self.net.unplug(&server.name);
        server.disks.crash();
        self.fronts.shut(&server.name);
        self.lives.end(&server.name);
        parts.abort();
    }

    /// What is read now is read by a check.
    pub fn hush(&self, hushed: bool) {
        let disks = self.servers.iter().map(|server| &server.disks);
        disks.for_each(|disks| disks.hush(hushed));
    }

    /// How often a server was rebuilt from a snapshot.
    pub fn snapshots_installed(&self) -> u64 {
        let alive = self.alive();
        let alive = alive.map(|(_, _, parts)| parts.core.snapshots_installed());
        self.snapshots_installed + alive.sum::<u64>()
    }

    /// How many events servers have pruned what they replaced of.
    pub fn pruned(&self) -> u64 {
        let alive = self.alive();
        self.pruned
            + alive
                .map(|(_, _, parts)| parts.core.pruned_events())
                .sum::<u64>()
    }

    fn config(&self, server: &SimServer) -> Config {
        let SimServer { name, joined, .. } = server;
        Config {
            name: name.clone(),
            data_dir: name.into(),
            listen: ([127, 0, 0, 1], 6443).into(),
            advertise: format!("{name}:6443"),
            initial_cluster: match joined {
                Some(_) => Vec::new(),
                None => self.first_members.clone(),
            },
            joined: joined.clone(),
            ca_key: None,
            ca: "ca".into(),
            cert: "cert".into(),
            key: "key".into(),
            node_grace_s: self.node_grace_s,
            default_not_ready_toleration_s: 5,
            service_cidr: Config::SERVICE_CIDR.to_owned(),
            retention: self.retention,
            snapshots: SNAPSHOTS,
            archive: None,
            queue: server::core::QueueLimits::default(),
            disk_reserve: DiskReserve::default(),
            most_level: server.most_level,
            most_outcomes: MOST_OUTCOMES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::runtime;
    use async_trait::async_trait;
    use bytes::Bytes;
    use seams::{ByteStream, Handler, PeerIdentity, Refusal, RefusalCode};

    /// Kept by the node, and holds it: what `server::peers` did once.
    struct Ring(#[expect(dead_code, reason = "it is there to be held")] server::core::Core);

    #[async_trait]
    impl Handler for Ring {
        async fn call(&self, _: &PeerIdentity, _: &str, _: Bytes) -> Result<Bytes, Refusal> {
            Ok(Bytes::new())
        }

        async fn stream(&self, _: &PeerIdentity, _: &str, _: Bytes) -> Result<ByteStream, Refusal> {
            Err(Refusal::new(RefusalCode::UnknownMethod, "none"))
        }
    }

    /// Starts a server, which crashes or not, and says what is held (a minute after the crash, after the run).
    fn held(crashes: bool, ring: bool) -> (bool, bool) {
        let lives = Lives::default();
        let runtime = runtime(1);
        let as_it_goes = runtime.block_on(async {
            let mut cluster = SimCluster::new(1, 1, None, 8, lives.clone());
            cluster.start(0).await.unwrap();
            sleep(Duration::from_secs(5)).await;
            let core = cluster.servers[0].parts.as_ref().unwrap().core.clone();
            assert!(core.status().leader.is_some());
            if ring {
                core.node().handle("ring", Arc::new(Ring(core.clone())));
            }
            drop(core);
            if crashes {
                cluster.crash(0);
            }
            sleep(Duration::from_secs(61)).await;
            lives.let_go().is_err()
        });
        runtime.shutdown_background();
        (as_it_goes, lives.all_let_go().is_err())
    }

    #[test]
    fn a_server_that_has_ended_is_let_go() {
        for crashes in [false, true] {
            assert_eq!(held(crashes, false), (false, false), "crashes: {crashes}");
            assert_eq!(held(crashes, true), (crashes, true), "crashes: {crashes}");
        }
    }
}
