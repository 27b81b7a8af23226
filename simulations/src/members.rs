//! An operator who lets servers come and go while clients write and faults strike: up to five, down to three, and back; and who moves
//! leadership. It does one thing at a time, through the same API as `reckon member`, and repeats what was not answered.
//!
//! A server that is let in starts on an empty disk, one that was removed is never started again. No id is ever given twice.

use crate::cluster::{Fronts, SimCluster};
use crate::invariants::Violation;
use crate::sides::{Chance, SimNet};
use crate::workload::{ANSWER_TIMEOUT, Answer, ask};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use server::config::Joined;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Between two things that it does.
const PAUSE_MS: (u64, u64) = (5_000, 40_000);
/// Before the first.
const FIRST: Duration = Duration::from_secs(25);
/// Between two tries of one thing.
const RETRY: Duration = Duration::from_secs(1);
/// Tries before it lets a thing be: a removal that would leave no majority is refused as long as that is so.
const TRIES: u32 = 60;

/// How often each was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    pub added: u64,
    pub removed: u64,
    pub leader_transfers: u64,
}

pub struct Operator {
    chance: Chance,
    asks: Asks,
    /// The fewest and the most servers that it makes of the cluster.
    sizes: (usize, usize),
    grows: bool,
    next: Instant,
    doing: Doing,
    pub counts: MemberCounts,
    /// id -> the server that it was given to.
    given: BTreeMap<u64, String>,
}

enum Doing {
    Nothing,
    Inviting {
        name: String,
        task: JoinHandle<Option<Joined>>,
    },
    Removing {
        index: usize,
        task: JoinHandle<bool>,
    },
    HandingOver(JoinHandle<bool>),
    /// It runs, and is to vote before anything else is done.
    Waiting(JoinHandle<bool>),
}

impl Operator {
    pub fn new(chance: Chance, cluster: &SimCluster, sizes: (usize, usize)) -> Self {
        let names = cluster.names();
        Self {
            asks: Asks {
                chance: chance.clone(),
                fronts: cluster.fronts.clone(),
                net: cluster.net.clone(),
            },
            chance,
            sizes,
            grows: true,
            next: Instant::now() + FIRST,
            doing: Doing::Nothing,
            counts: MemberCounts::default(),
            given: (1..).zip(names).collect(),
        }
    }

    /// What is due now.
    pub async fn step(&mut self, cluster: &mut SimCluster) -> Result<(), Violation> {
        if !self.ended() {
            return Ok(());
        }
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing if Instant::now() < self.next => return Ok(()),
            Doing::Nothing => {
                self.doing = self.choose(cluster);
                return Ok(());
            }
            Doing::Inviting { name, task } => {
                if let Some(joined) = task.await.ok().flatten() {
                    self.let_in(cluster, name, joined).await?;
                    return Ok(());
                }
            }
            Doing::Waiting(task) => {
                if task.await.unwrap_or(false) {
                    self.counts.added += 1;
                }
            }
            Doing::Removing { index, task } => {
                if task.await.unwrap_or(false) {
                    tracing::info!(server = cluster.servers[index].name, "removed");
                    cluster.dismiss(index);
                    self.counts.removed += 1;
                }
            }
            Doing::HandingOver(task) => {
                if task.await.unwrap_or(false) {
                    self.counts.leader_transfers += 1;
                }
            }
        }
        let pause = self.chance.between(PAUSE_MS.0, PAUSE_MS.1);
        self.next = Instant::now() + Duration::from_millis(pause);
        Ok(())
    }

    /// Does nothing new, and ends what is under way; true when nothing is.
    pub async fn rest(&mut self, cluster: &mut SimCluster) -> Result<bool, Violation> {
        self.next = Instant::now() + FIRST;
        self.step(cluster).await?;
        Ok(matches!(self.doing, Doing::Nothing))
    }

    fn ended(&self) -> bool {
        match &self.doing {
            Doing::Nothing => true,
            Doing::Inviting { task, .. } => task.is_finished(),
            Doing::Removing { task, .. } => task.is_finished(),
            Doing::HandingOver(task) | Doing::Waiting(task) => task.is_finished(),
        }
    }

    fn choose(&mut self, cluster: &SimCluster) -> Doing {
        let members: Vec<usize> = cluster.members().map(|(index, _)| index).collect();
        if members.len() <= self.sizes.0 {
            self.grows = true;
        } else if members.len() >= self.sizes.1 {
            self.grows = false;
        }
        let name_of = |index: &usize| cluster.servers[*index].name.clone();
        if self.chance.happens(250_000) {
            let to = self.chance.pick(&members).map(name_of);
            let to = to.filter(|_| self.chance.happens(500_000));
            return Doing::HandingOver(tokio::spawn(self.asks.clone().hand_over(to)));
        }
        if self.grows {
            // The name of one that is gone may come again, the id never does.
            let taken: BTreeSet<String> = members.iter().map(name_of).collect();
            let name = (1..)
                .map(|number| format!("server-{number}"))
                .find(|name| !taken.contains(name))
                .unwrap_or_default();
            tracing::info!(name, "a server is added");
            let task = tokio::spawn(self.asks.clone().invite(name.clone()));
            return Doing::Inviting { name, task };
        }
        let Some(index) = self.chance.pick(&members).copied() else {
            return Doing::Nothing;
        };
        let name = name_of(&index);
        tracing::info!(name, "a server is removed");
        let task = tokio::spawn(self.asks.clone().remove(name));
        Doing::Removing { index, task }
    }

    async fn let_in(
        &mut self,
        cluster: &mut SimCluster,
        name: String,
        joined: Joined,
    ) -> Result<(), Violation> {
        if let Some(before) = self.given.insert(joined.id, name.clone()) {
            return Err(Violation::new(
                "no id twice",
                format!("{name} was given id {}, which was {before}'s", joined.id),
            ));
        }
        let index = cluster.engage(name.clone(), joined);
        cluster.start_at_last(index).await;
        self.doing = Doing::Waiting(tokio::spawn(self.asks.clone().votes(name)));
        Ok(())
    }
}

/// The operator's requests.
#[derive(Clone)]
struct Asks {
    chance: Chance,
    fronts: Fronts,
    net: SimNet,
}

impl Asks {
    /// Through one of the servers, whichever.
    async fn once(&self, who: &str, method: Method, path: &str, body: &Value) -> Answer {
        let servers = self.fronts.members();
        let Some(server) = self.chance.pick(&servers) else {
            return Answer::Unknown;
        };
        let body = (method == Method::POST).then_some(body);
        let asked = ask(&self.fronts, &self.net, who, server, method, path, body);
        timeout(ANSWER_TIMEOUT, asked)
            .await
            .unwrap_or(Answer::Unknown)
    }

    /// Again and again until `done` makes something of an answer.
    async fn until<T>(
        &self,
        who: &str,
        (method, path, body): (Method, &str, Value),
        done: impl Fn(Answer) -> Option<T>,
    ) -> Option<T> {
        for _ in 0..TRIES {
            let answer = self.once(who, method.clone(), path, &body).await;
            tracing::debug!(path, %answer, "the operator asked");
            if let Some(done) = done(answer) {
                return Some(done);
            }
            sleep(RETRY).await;
        }
        None
    }

    async fn invite(self, name: String) -> Option<Joined> {
        let body = json!({"name": name, "address": format!("{name}:6443"), "promote": true});
        let invited = |answer| match answer {
            Answer::Done(_) | Answer::Refused(StatusCode::CONFLICT, _) => Some(()),
            Answer::Refused(..) | Answer::Unknown => None,
        };
        let add = (Method::POST, "/reckon/v1/members", body);
        self.until(OPERATOR, add, invited).await?;
        let joined = |answer| match answer {
            Answer::Done(place) => Some(Joined {
                id: place["id"].as_u64()?,
                cluster: place["cluster"].as_str()?.to_owned(),
            }),
            Answer::Refused(..) | Answer::Unknown => None,
        };
        let join = (Method::POST, "/reckon/v1/join", json!({}));
        self.until(&name, join, joined).await
    }

    async fn votes(self, name: String) -> bool {
        let votes = |answer| match answer {
            Answer::Done(list) => {
                let mut members = list["members"].as_array()?.iter();
                let there = members.any(|member| {
                    let votes = matches!(member["role"].as_str(), Some("voter" | "leader"));
                    member["name"] == name.as_str() && votes
                });
                there.then_some(())
            }
            Answer::Refused(..) | Answer::Unknown => None,
        };
        let list = (Method::GET, "/reckon/v1/members", Value::Null);
        self.until(OPERATOR, list, votes).await.is_some()
    }

    async fn remove(self, name: String) -> bool {
        let path = format!("/reckon/v1/members/{name}/remove");
        let removed = |answer| match answer {
            Answer::Done(_) | Answer::Refused(StatusCode::NOT_FOUND, _) => Some(()),
            Answer::Refused(..) | Answer::Unknown => None,
        };
        let remove = (Method::POST, path.as_str(), json!({}));
        self.until(OPERATOR, remove, removed).await.is_some()
    }

    /// Once: who leads by the time of a repetition is another question.
    async fn hand_over(self, to: Option<String>) -> bool {
        let body = to.map_or_else(|| json!({}), |to| json!({"to": to}));
        let path = "/reckon/v1/members/transfer-leader";
        let answer = self.once(OPERATOR, Method::POST, path, &body).await;
        tracing::debug!(%answer, "leadership was to move");
        matches!(answer, Answer::Done(_))
    }
}

const OPERATOR: &str = "operator";
