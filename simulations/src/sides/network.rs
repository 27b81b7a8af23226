//! The network between servers, and between agents and servers: it loses, delays and repeats messages, cuts pairs apart, and
//! knows who is dead. Every fault is counted.

use super::Chance;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use seams::{ByteStream, Handler, Network, NetworkError, Peer, PeerIdentity};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How bad it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Messages lost, in a million.
    pub loss: u64,
    /// Messages that take long, in a million, and how long at most.
    pub slow: u64,
    pub slow_ms: u64,
    /// Messages that arrive a second time, in a million.
    pub repeat: u64,
}

/// The method that asks a server for its level (`server::level`).
const METHOD_LEVEL: &str = "level";
/// How long after the first a message may arrive again.
const REPEATED_AFTER_MS: u64 = 2_000;

/// What became of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives(Duration),
    Lost,
    Cut,
}

/// What happened so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    pub sent: u64,
    pub lost: u64,
    pub delayed: u64,
    pub repeated: u64,
    pub cut: u64,
}

/// All that is plugged in.
#[derive(Clone)]
pub struct SimNet(Arc<Mutex<Wiring>>);

struct Wiring {
    chance: Chance,
    weather: Weather,
    /// name -> (life, handler)
    handlers: BTreeMap<String, (u64, Arc<dyn Handler>)>,
    lives: BTreeMap<String, u64>,
    /// Pairs that can't hear each other, the lesser name first.
    cut: BTreeSet<(String, String)>,
    /// How often each agent's connection broke.
    broken: BTreeMap<String, u64>,
    /// A planted bug: what every server is said to know of the log's levels, whoever it is.
    level: Option<u32>,
    counts: NetCounts,
}

impl SimNet {
    pub fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(Wiring {
            chance,
            weather: Weather::default(),
            handlers: BTreeMap::new(),
            lives: BTreeMap::new(),
            cut: BTreeSet::new(),
            broken: BTreeMap::new(),
            level: None,
            counts: NetCounts::default(),
        })))
    }

    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    pub fn counts(&self) -> NetCounts {
        self.lock().counts
    }

    /// Cuts every pair of one from `left` and one from `right`.
    pub fn cut(&self, left: &[String], right: &[String]) {
        let mut wiring = self.lock();
        for one in left {
            for other in right {
                wiring.cut.insert(pair(one, other));
            }
        }
    }

    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    /// From now on this is the answer of all whom another asks for its level.
    pub fn answer_level(&self, level: u32) {
        self.lock().level = Some(level);
    }

    /// The connections that this agent has now are gone.
    pub fn break_connections(&self, agent: &str) {
        *self.lock().broken.entry(agent.to_owned()).or_default() += 1;
    }

    /// How often this agent's connections broke: one made at another number is gone.
    pub fn broken(&self, agent: &str) -> u64 {
        self.lock().broken.get(agent).copied().unwrap_or_default()
    }

    /// One life of a server: what it sends and serves ends with it.
    pub fn plug(&self, name: &str) -> Arc<SimPlug> {
        let mut wiring = self.lock();
        let life = wiring.lives.entry(name.to_owned()).or_default();
        *life += 1;
        Arc::new(SimPlug {
            net: self.clone(),
            name: name.to_owned(),
            life: *life,
        })
    }

    /// It is dead: nobody answers, and what it still sends goes nowhere.
    pub fn unplug(&self, name: &str) {
        let mut wiring = self.lock();
        wiring.handlers.remove(name);
        *wiring.lives.entry(name.to_owned()).or_default() += 1;
    }

    /// Draws what becomes of a message.
    pub fn fate(&self, from: &str, to: &str) -> Fate {
        let mut wiring = self.lock();
        wiring.counts.sent += 1;
        if wiring.cut.contains(&pair(from, to)) {
            wiring.counts.cut += 1;
            return Fate::Cut;
        }
        let weather = wiring.weather;
        if weather.loss > 0 && wiring.chance.happens(weather.loss) {
            wiring.counts.lost += 1;
            return Fate::Lost;
        }
        if weather.slow > 0 && wiring.chance.happens(weather.slow) {
            wiring.counts.delayed += 1;
            return Fate::Arrives(Duration::from_micros(
                wiring.chance.between(1_000, weather.slow_ms.max(1) * 1_000),
            ));
        }
        Fate::Arrives(Duration::from_micros(wiring.chance.between(50, 500)))
    }

    /// Draws whether a message that arrives does so again, and how much later.
    fn again(&self) -> Option<Duration> {
        let mut wiring = self.lock();
        let repeat = wiring.weather.repeat;
        if repeat == 0 || !wiring.chance.happens(repeat) {
            return None;
        }
        wiring.counts.repeated += 1;
        let late_us = wiring.chance.between(50, REPEATED_AFTER_MS * 1_000);
        Some(Duration::from_micros(late_us))
    }

    /// Whether two can hear each other at all.
    pub fn connected(&self, one: &str, other: &str) -> bool {
        !self.lock().cut.contains(&pair(one, other))
    }

    fn handler(&self, plug: &SimPlug, to: &Peer) -> Result<Arc<dyn Handler>, NetworkError> {
        let wiring = self.lock();
        let gone = |reason: &str| NetworkError::Unreachable {
            peer: to.to_string(),
            reason: reason.to_owned(),
        };
        if wiring.lives.get(&plug.name) != Some(&plug.life) {
            return Err(gone("this server is dead"));
        }
        wiring
            .handlers
            .get(&to.name)
            .map(|(_, handler)| handler.clone())
            .ok_or_else(|| gone("nobody listens"))
    }

    fn lock(&self) -> MutexGuard<'_, Wiring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(one: &str, other: &str) -> (String, String) {
    if one < other {
        (one.to_owned(), other.to_owned())
    } else {
        (other.to_owned(), one.to_owned())
    }
}

/// One life of a server's way to the others.
pub struct SimPlug {
    net: SimNet,
    name: String,
    life: u64,
}

impl SimPlug {
    /// One way: waits as long as the message takes; a lost one never arrives.
    async fn travel(&self, from: &str, to: &str) {
        match self.net.fate(from, to) {
            Fate::Arrives(after) => sleep(after).await,
            Fate::Lost | Fate::Cut => std::future::pending().await,
        }
    }
}

/// A message arrives a second time, at whoever bears the name by then; nobody waits for the answer.
async fn repeat(
    net: SimNet,
    from: PeerIdentity,
    to: String,
    method: &'static str,
    body: Bytes,
    after: Duration,
) {
    sleep(after).await;
    if !net.connected(&from.name, &to) {
        return;
    }
    let listens = net.lock().handlers.get(&to).cloned();
    if let Some((_, handler)) = listens {
        let _ = handler.call(&from, method, body).await;
    }
}

#[async_trait]
impl Network for SimPlug {
    async fn call(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, NetworkError> {
        if let Some(level) = self.net.lock().level.filter(|_| method == METHOD_LEVEL) {
            return Ok(Bytes::copy_from_slice(&level.to_le_bytes()));
        }
        let exchange = async {
            self.travel(&self.name, &to.name).await;
            let handler = self.net.handler(self, to)?;
            let from = PeerIdentity {
                name: self.name.clone(),
            };
            if let Some(after) = self.net.again() {
                let (net, from, to) = (self.net.clone(), from.clone(), to.name.clone());
                tokio::spawn(repeat(net, from, to, method, body.clone(), after));
            }
            // The other side goes on with what it was asked though the one who asked has given up.
            let answer = tokio::spawn({
                let (body, method) = (body.clone(), method);
                async move { handler.call(&from, method, body).await }
            })
            .await;
            self.travel(&to.name, &self.name).await;
            // It may have died meanwhile.
            self.net.handler(self, to)?;
            match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(refusal)) => Err(NetworkError::Refused {
                    peer: to.to_string(),
                    code: refusal.code,
                    message: refusal.message,
                }),
                Err(_) => Err(NetworkError::Unreachable {
                    peer: to.to_string(),
                    reason: "it died meanwhile".to_owned(),
                }),
            }
        };
        timeout(deadline, exchange).await.unwrap_or_else(|_| {
            Err(NetworkError::TimedOut {
                peer: to.to_string(),
                after: deadline,
            })
        })
    }

    async fn stream(
        &self,
        to: &Peer,
        method: &'static str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<ByteStream, NetworkError> {
        let opening = async {
            self.travel(&self.name, &to.name).await;
            let handler = self.net.handler(self, to)?;
            let from = PeerIdentity {
                name: self.name.clone(),
            };
            let answer = handler.stream(&from, method, body).await;
            answer.map_err(|refusal| NetworkError::Refused {
                peer: to.to_string(),
                code: refusal.code,
                message: refusal.message,
            })
        };
        let stream = timeout(deadline, opening).await.unwrap_or_else(|_| {
            Err(NetworkError::TimedOut {
                peer: to.to_string(),
                after: deadline,
            })
        })?;
        // A lost chunk breaks the stream, as a connection that times out does.
        let (net, name, to) = (self.net.clone(), self.name.clone(), to.clone());
        let broken = stream.then(move |chunk| {
            let fate = net.fate(&to.name, &name);
            let peer = to.to_string();
            async move {
                match fate {
                    Fate::Arrives(after) => {
                        sleep(after).await;
                        chunk
                    }
                    Fate::Lost | Fate::Cut => Err(NetworkError::Unreachable {
                        peer,
                        reason: "the stream broke".to_owned(),
                    }),
                }
            }
        });
        Ok(Box::pin(broken))
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        let mut wiring = self.net.lock();
        if wiring.lives.get(&self.name) == Some(&self.life) {
            wiring
                .handlers
                .insert(self.name.clone(), (self.life, handler));
        }
    }
}
