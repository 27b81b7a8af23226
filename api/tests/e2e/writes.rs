//! A load of writes that outlives servers: ConfigMaps that are made, changed and deleted, each by one writer alone, which keeps books of what
//! was acknowledged. Several write at once, each first to another server, so that some writes are always under way.
//!
//! A server that does not answer is passed over. A write whose answer was lost is sent again: as it was done or not, it is found done
//! or is done then, and there is one outcome to hold the servers to. So that none that was thought lost is done later, a change names
//! the version that it is made of, and what may be made again later is not deleted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::cluster::Cluster;

const WRITERS: u16 = 6;
/// No single answer is waited for longer: the next server may be up.
const ANSWER_S: u64 = 5;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// So many of a writer's are left alone, whatever else goes.
const KEPT: usize = 5;

/// No longer does nothing at all get acknowledged while servers come and go. A dead leader is replaced after 0.55 to 0.7 s, one that is
/// told to go hands over first; two candidates that got in each other's way take another 0.7 s, and the rest is a machine that builds
/// and runs all servers and tests on the same cores. The simulation asserts the design's own bounds.
pub const STOPS_NOTHING: Duration = Duration::from_secs(3);

pub struct Writes {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Writer>>,
    started: Instant,
}

pub struct Acknowledged {
    /// What must be there.
    pub names: Vec<String>,
    /// Writes of all kinds.
    pub count: usize,
    pub longest_gap: Duration,
    standing: BTreeMap<String, Standing>,
}

/// What was acknowledged last of a name; None: that it is gone.
#[derive(Debug)]
struct Standing {
    value: Option<String>,
    version: String,
    /// What the writer had asked for when it was stopped: done or not.
    asked: Option<Option<String>>,
    /// One more of its creation may be under way.
    comes_again: bool,
}

impl Writes {
    pub fn start(cluster: &Cluster, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        let writer = |number: u16| {
            let (stop, kubeconfig, port) = (stop.clone(), cluster.kubeconfig(), cluster.port);
            let (count, prefix) = (count.clone(), format!("{prefix}-{number}"));
            std::thread::spawn(move || {
                let mut writer = Writer::new(stop, count, kubeconfig, port, prefix);
                writer.server = usize::from(number % 3);
                writer.write();
                writer
            })
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self {
            stop,
            count,
            writers,
            started,
        }
    }

    /// Writes are acknowledged after this moment, and within what stops nothing.
    #[track_caller]
    pub fn check_go_on(&self, when: &str) {
        let (before, asked) = (self.count.load(Ordering::Relaxed), Instant::now());
        while self.count.load(Ordering::Relaxed) == before {
            assert!(
                asked.elapsed() < STOPS_NOTHING,
                "{when}: no write is acknowledged any more"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn finish(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut standing) = (Vec::new(), BTreeMap::new());
        for writer in self.writers {
            let writer = writer.join().unwrap();
            acknowledged.extend(writer.acknowledged);
            standing.extend(writer.standing);
        }
        acknowledged.sort();
        assert!(!acknowledged.is_empty(), "no write was acknowledged");
        let mut last = self.started;
        let mut longest_gap = Duration::ZERO;
        for at in &acknowledged {
            longest_gap = longest_gap.max(at.duration_since(last));
            last = *at;
        }
        let there = |(name, standing): (&String, &Standing)| {
            let stays = standing.value.is_some() && standing.asked != Some(None);
            stays.then(|| name.clone())
        };
        Acknowledged {
            names: standing.iter().filter_map(there).collect(),
            count: acknowledged.len(),
            longest_gap,
            standing,
        }
    }
}

impl Acknowledged {
    #[track_caller]
    pub fn check_nothing_stopped(&self) {
        assert!(
            self.longest_gap < STOPS_NOTHING,
            "for {:?} no write was acknowledged",
            self.longest_gap
        );
    }

    /// On each of the servers everything is as it was acknowledged last.
    pub fn check_present(&self, cluster: &Cluster) {
        for server in 1..=3 {
            let answer = cluster.api(server).get(MAPS);
            assert_eq!(answer.code, 200, "{answer:?}");
            let items = answer.body["items"].as_array().unwrap().iter();
            let wrong = self.wrong(&items.map(value_of).collect());
            assert!(
                wrong.is_empty(),
                "server-{server} is wrong about {} of {} acknowledged writes to {} names: {wrong:#?}",
                wrong.len(),
                self.count,
                self.standing.len()
            );
        }
    }

    /// What is there, and not as it was acknowledged.
    fn wrong(&self, there: &BTreeMap<String, String>) -> Vec<String> {
        let wrong = |(name, standing): (&String, &Standing)| {
            let found = there.get(name);
            let right = found == standing.value.as_ref()
                || standing
                    .asked
                    .as_ref()
                    .is_some_and(|asked| found == asked.as_ref());
            (!right).then(|| format!("{name} is {found:?}: {standing:?}"))
        };
        self.standing.iter().filter_map(wrong).collect()
    }
}

fn value_of(map: &Value) -> (String, String) {
    let name = map["metadata"]["name"].as_str().unwrap().to_owned();
    (
        name,
        map["data"]["n"].as_str().unwrap_or_default().to_owned(),
    )
}

struct Writer {
    stop: Arc<AtomicBool>,
    /// What all writers were acknowledged.
    count: Arc<AtomicUsize>,
    servers: Vec<Api>,
    /// Whom it asks.
    server: usize,
    prefix: String,
    number: usize,
    acknowledged: Vec<Instant>,
    standing: BTreeMap<String, Standing>,
}

impl Writer {
    fn new(
        stop: Arc<AtomicBool>,
        count: Arc<AtomicUsize>,
        kubeconfig: PathBuf,
        port: u16,
        prefix: String,
    ) -> Self {
        let servers =
            (0..3).map(|n| Api::new(&kubeconfig, &format!("https://127.0.0.1:{}", port + n)));
        Self {
            stop,
            count,
            servers: servers.collect(),
            server: 0,
            prefix,
            number: 0,
            acknowledged: Vec::new(),
            standing: BTreeMap::new(),
        }
    }

    fn write(&mut self) {
        while !self.stopped() {
            self.number += 1;
            match self.number % 5 {
                3 => self.change(),
                4 => self.delete(),
                _ => self.create(),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The first try and those after it, until it is known what came of it. `done`: what it made of an answer, told whether one before was
    /// lost.
    fn until_done<T>(
        &mut self,
        (method, path, body): (Method, &str, &Value),
        done: impl Fn(&Self, &Answer, bool) -> Option<T>,
    ) -> Option<(T, bool)> {
        let mut lost = false;
        while !self.stopped() {
            let content = body.to_string().into_bytes();
            let (method, kind) = (method.clone(), "application/json");
            let answer = self.servers[self.server].send(method, path, kind, content, ANSWER_S);
            if let Ok(answer) = &answer
                && let Some(done) = done(self, answer, lost)
            {
                self.acknowledged.push(Instant::now());
                self.count.fetch_add(1, Ordering::Relaxed);
                return Some((done, lost));
            }
            // 503 says that nothing was done; all else may have been.
            lost |= !matches!(&answer, Ok(answer) if matches!(answer.code, 409 | 429 | 503 | 507));
            self.server = (self.server + 1) % self.servers.len();
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// One of those that may still change; none while there are few.
    fn pick(&self, also_kept: bool, may_be: impl Fn(&Standing) -> bool) -> Option<String> {
        let living = self
            .standing
            .iter()
            .filter(|(_, standing)| standing.value.is_some());
        let living: Vec<_> = living.skip(if also_kept { 0 } else { KEPT }).collect();
        let (name, standing) = living.get(self.number * 7 % living.len().max(1))?;
        may_be(standing).then(|| (*name).clone())
    }

    fn create(&mut self) {
        let name = format!("{}-{}", self.prefix, self.number);
        let value = format!("made-{}", self.number);
        let made = self.until_done(
            (Method::POST, MAPS, &map(&name, &value, None)),
            |writer, answer, lost| match answer.code {
                201 => Some(version(&answer.body)),
                409 if answer.body["reason"] == "AlreadyExists" => {
                    assert!(
                        lost,
                        "{name}, which nobody else makes, is there: {answer:?}"
                    );
                    let (found, version) = writer.read(&name)??;
                    assert_eq!(found, value, "{name}");
                    Some(version)
                }
                _ => None,
            },
        );
        let standing = match made {
            Some((version, lost)) => Standing {
                value: Some(value),
                version,
                asked: None,
                comes_again: lost,
            },
            None => Standing {
                value: None,
                version: String::new(),
                asked: Some(Some(value)),
                comes_again: true,
            },
        };
        self.standing.insert(name, standing);
    }

    fn change(&mut self) {
        let Some(name) = self.pick(true, |_| true) else {
            return;
        };
        let path = format!("{MAPS}/{name}");
        let before = self.standing[&name].version.clone();
        let value = format!("changed-{}", self.number);
        let changed = self.until_done(
            (Method::PUT, &path, &map(&name, &value, Some(&before))),
            |writer, answer, lost| {
                match answer.code {
                    200 => Some(version(&answer.body)),
                    404 | 409 => {
                        let (found, version) = writer.found(&name)?;
                        if version == before {
                            // The server that was asked is not as far.
                            return None;
                        }
                        assert!(
                            lost && found == value,
                            "{name}, which nobody else changes, is {found} at {version}"
                        );
                        Some(version)
                    }
                    _ => None,
                }
            },
        );
        let standing = self.standing.get_mut(&name).unwrap();
        match changed {
            Some((version, _)) => (standing.value, standing.version) = (Some(value), version),
            None => standing.asked = Some(Some(value)),
        }
    }

    fn delete(&mut self) {
        let Some(name) = self.pick(false, |standing| !standing.comes_again) else {
            return;
        };
        let path = format!("{MAPS}/{name}");
        let deleted = self.until_done(
            (Method::DELETE, &path, &json!({})),
            |writer, answer, lost| {
                match answer.code {
                    200 => Some(()),
                    404 => match writer.read(&name)? {
                        // The server that was asked is not as far.
                        Some(_) => None,
                        None => {
                            assert!(lost, "{name}, which nobody else deletes, is gone");
                            Some(())
                        }
                    },
                    _ => None,
                }
            },
        );
        let standing = self.standing.get_mut(&name).unwrap();
        match deleted {
            Some(_) => standing.value = None,
            None => standing.asked = Some(None),
        }
    }

    /// Its value and version, where it must be there; None: nobody said.
    fn found(&self, name: &str) -> Option<(String, String)> {
        let found = self.read(name)?;
        Some(found.unwrap_or_else(|| panic!("{name} was acknowledged and is not there")))
    }

    /// Its value and version, if it is there, as of now; None: the server that is asked does not say.
    fn read(&self, name: &str) -> Option<Option<(String, String)>> {
        let path = format!("{MAPS}/{name}");
        let answer = self.servers[self.server].send(
            Method::GET,
            &path,
            "application/json",
            Vec::new(),
            ANSWER_S,
        );
        match answer {
            Ok(answer) if answer.code == 200 => {
                Some(Some((value_of(&answer.body).1, version(&answer.body))))
            }
            Ok(answer) if answer.code == 404 => Some(None),
            _ => None,
        }
    }
}

fn map(name: &str, value: &str, version: Option<&str>) -> Value {
    let mut metadata = json!({ "name": name });
    if let Some(version) = version {
        metadata["resourceVersion"] = version.into();
    }
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "n": value } })
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What would be lost is told: a lost change, a lost deletion, and a value that is not the last one.
#[test]
fn each_kind_of_loss_is_told() {
    let standing = |value: Option<&str>, asked: Option<Option<&str>>| Standing {
        value: value.map(str::to_owned),
        version: "7".to_owned(),
        asked: asked.map(|asked| asked.map(str::to_owned)),
        comes_again: false,
    };
    // Rows: (what was acknowledged, what was asked for at the end, what is there, right)
    for (value, asked, there, right) in [
        (Some("1"), None, Some("1"), true),
        (Some("1"), None, None, false),
        (Some("2"), None, Some("1"), false),
        (None, None, None, true),
        (None, None, Some("1"), false),
        (Some("1"), Some(Some("2")), Some("1"), true),
        (Some("1"), Some(Some("2")), Some("2"), true),
        (Some("1"), Some(Some("2")), Some("0"), false),
        (Some("1"), Some(None), None, true),
        (Some("1"), Some(None), Some("0"), false),
        (None, Some(Some("1")), Some("1"), true),
        (None, Some(Some("1")), None, true),
    ] {
        let acknowledged = Acknowledged {
            names: Vec::new(),
            count: 1,
            longest_gap: Duration::ZERO,
            standing: [("one".to_owned(), standing(value, asked))].into(),
        };
        let there = there.map(|there| ("one".to_owned(), there.to_owned()));
        let wrong = acknowledged.wrong(&there.into_iter().collect());
        assert_eq!(wrong.is_empty(), right, "{value:?} {asked:?}: {wrong:?}");
    }
}
