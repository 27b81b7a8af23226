//! A cluster without servers: the real apply, the real fold, the real rounds, and a clock that the test turns.
//!
//! What users, agents and the API do is done by `act`; what reconcilers say is proposed as the leader would. After each event the folded
//! world is compared with the one made afresh from the view now and then, and after `settle` a new leader must find nothing to do.

#![allow(dead_code)]

use eventstore::{
    Act, Actor, Body, Cause, Change, Deletion, Entry, Event, Expectation, Intent, Key, Outcome,
    Position, Proposal, ProposalId, Salt, State, Time, What,
};
use reconcilers::{
    Config, Decided, Draft, Due, Limits, Reconciler, RoundOutcome, RoundState, World, all,
    run_round,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub struct Bed {
    pub state: State,
    pub world: World,
    pub due: Due,
    pub reconcilers: Vec<Box<dyn Reconciler>>,
    pub now: Time,
    pub waiting: BTreeMap<(String, Key), String>,
    /// What reconcilers did since it was last taken: `actor key: intent`.
    pub told: Vec<String>,
    /// The reconcilers whose decisions were checked by `assert_level`, and that proposed something.
    pub levelled: BTreeSet<&'static str>,
    /// Whether each decision is tried twice: see `assert_level`.
    pub check_level: bool,
    /// Called after each event: for what must hold at every moment.
    pub always: Option<fn(&State)>,
    index: u64,
    proposals: u128,
}

const TERM: u64 = 1;
/// Rounds that `settle` runs at most: a cluster that has not come to rest by then never will.
const MOST_ROUNDS: usize = 300;

impl Bed {
    pub fn new() -> Self {
        Self::with(&Config {
            root_ca_pem: "PEM".to_owned(),
            ..Config::default()
        })
    }

    pub fn with(config: &Config) -> Self {
        let mut bed = Self {
            state: State::default(),
            world: World::default(),
            due: Due::default(),
            reconcilers: all(config),
            now: Time::parse("2026-11-21T08:00:00Z").unwrap(),
            waiting: BTreeMap::new(),
            told: Vec::new(),
            levelled: BTreeSet::new(),
            check_level: true,
            always: None,
            index: 0,
            proposals: 0,
        };
        let cluster = uuid::Uuid::from_u128(7);
        bed.propose(
            Act::Found {
                cluster,
                level: eventstore::LEVEL,
            },
            Intent::Found,
            Vec::new(),
        )
        .unwrap();
        bed.namespace("default");
        bed
    }

    pub fn namespace(&mut self, name: &str) {
        let key = Key::namespace_object(name);
        let labels = json!({ "kubernetes.io/metadata.name": name });
        let metadata = json!({ "name": name, "labels": labels });
        let object = json!({
            "kind": "Namespace", "apiVersion": "v1", "metadata": metadata,
            "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" },
        });
        self.put(&key, &object);
    }

    pub fn get(&self, key: &Key) -> Option<Value> {
        self.state.view().get(key).map(|object| object.to_value())
    }

    pub fn list(&self, resource: &str) -> Vec<Value> {
        self.state
            .view()
            .list(resource, None)
            .map(|object| object.to_value())
            .collect()
    }

    /// Writes an object as the API would: a changed spec is a new generation.
    pub fn put(&mut self, key: &Key, object: &Value) {
        let mut object = object.clone();
        match self.get(key) {
            None if !matches!(
                &*key.resource,
                "namespaces" | "nodes" | "services" | "configmaps"
            ) =>
            {
                object["metadata"]["generation"] = json!(1)
            }
            Some(before)
                if before["spec"] != object["spec"]
                    && before["metadata"]["generation"].is_i64() =>
            {
                object["metadata"]["generation"] =
                    json!(before["metadata"]["generation"].as_i64().unwrap() + 1);
            }
            _ => {}
        }
        let what = What::Put {
            body: Body::cut(&object).unwrap(),
            delete_grace_s: None,
        };
        self.objects(vec![Change {
            key: key.clone(),
            what,
        }]);
    }

    pub fn patch(&mut self, key: &Key, patch: &Value) {
        let mut object = self.get(key).unwrap_or_else(|| panic!("no {key}"));
        merge(&mut object, patch);
        self.put(key, &object);
        self.remove_if_done(key);
    }

    /// What the API's DELETE does.
    pub fn delete(&mut self, key: &Key, finalizer: Option<&str>) {
        let mut object = self.get(key).unwrap_or_else(|| panic!("no {key}"));
        if let Some(finalizer) = finalizer {
            let mut finalizers = object["metadata"]["finalizers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            finalizers.push(json!(finalizer));
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        let bound = &*key.resource == "pods" && object["spec"]["nodeName"].is_string();
        let grace_s = if bound {
            object["spec"]["terminationGracePeriodSeconds"]
                .as_i64()
                .unwrap_or(30)
        } else {
            0
        };
        let held = object["metadata"]["finalizers"].is_array()
            || &*key.resource == "namespaces"
            || grace_s > 0;
        let grace_s = if &*key.resource == "namespaces" {
            object["status"]["phase"] = json!("Terminating");
            Deletion::WITHOUT_GRACE
        } else {
            grace_s
        };
        let put = What::Put {
            body: Body::cut(&object).unwrap(),
            delete_grace_s: Some(grace_s),
        };
        self.objects(vec![Change {
            key: key.clone(),
            what: if held { put } else { What::Remove },
        }]);
    }

    /// What the API does when the last finalizer of what is being deleted goes.
    fn remove_if_done(&mut self, key: &Key) {
        let Some(object) = self.state.view().get(key).cloned() else {
            return;
        };
        let finalizers = object.to_value()["metadata"]["finalizers"].is_array();
        let pod_with_grace = object
            .stamps
            .deletion
            .is_some_and(|deletion| deletion.grace_s > 0);
        if !object.living() && !finalizers && !pod_with_grace && &*key.resource != "namespaces" {
            self.objects(vec![Change {
                key: key.clone(),
                what: What::Remove,
            }]);
        }
    }

    pub fn objects(&mut self, changes: Vec<Change>) {
        self.propose(Act::Objects(changes), Intent::Update, Vec::new())
            .unwrap();
    }

    pub fn open_session(&mut self, node: &str) {
        self.propose(
            Act::OpenSession {
                node: node.into(),
                server: "server-1".into(),
            },
            Intent::Session,
            Vec::new(),
        )
        .unwrap();
    }

    pub fn lose_session(&mut self, node: &str) {
        let epoch = self.state.view().session(node).unwrap().epoch;
        self.propose(
            Act::LoseSession {
                node: node.into(),
                epoch,
            },
            Intent::Session,
            Vec::new(),
        )
        .unwrap();
    }

    fn propose(
        &mut self,
        act: Act,
        intent: Intent,
        expectations: Vec<Expectation>,
    ) -> Result<(), String> {
        self.apply(
            Actor::Server {
                name: "test".into(),
            },
            Cause::default(),
            intent,
            expectations,
            act,
        )
    }

    fn apply(
        &mut self,
        actor: Actor,
        cause: Cause,
        intent: Intent,
        expectations: Vec<Expectation>,
        act: Act,
    ) -> Result<(), String> {
        self.proposals += 1;
        self.index += 1;
        let id = ProposalId {
            uuid: uuid::Uuid::from_u128(self.proposals),
            attempt: 0,
        };
        let proposal = Proposal {
            id,
            actor,
            cause,
            intent,
            first_sent: self.index,
            salt: Salt::default(),
            expectations,
            act,
        };
        let entry = Entry {
            clock: self.now,
            proposals: vec![proposal],
        };
        let applied = self.state.apply(
            Position {
                term: TERM,
                index: self.index,
            },
            &entry,
        );
        let events: Vec<Arc<Event>> = applied.events.into_iter().map(|(event, _)| event).collect();
        for event in events {
            self.due.fold(&self.reconcilers, &mut self.world, &event);
        }
        if let Some(always) = self.always {
            always(&self.state);
        }
        match &applied.outcomes[0].1 {
            Outcome::Accepted { .. } => Ok(()),
            Outcome::Rejected(rejection) => Err(rejection.to_string()),
        }
    }

    /// One round, as the leader runs it. How many drafts there were.
    pub fn round(&mut self) -> usize {
        let world = self.world.clone();
        let outcome = run_round(
            &self.reconcilers,
            &world,
            &mut self.due,
            self.now,
            Limits::default(),
        );
        for (name, key) in outcome
            .decided
            .iter()
            .filter(|_| self.check_level)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.assert_level(name, &key);
        }
        self.take(outcome)
    }

    /// Level, not edge: with a key's decision folded, and nothing else, deciding it again decides nothing. All that it proposes is
    /// accepted by the state it was decided on. Where a decision goes by stages that each change what the next reads, it comes to an end.
    fn assert_level(&mut self, name: &'static str, key: &Key) {
        let reconciler = self
            .reconcilers
            .iter()
            .find(|reconciler| reconciler.name() == name)
            .unwrap();
        let (mut state, mut world, mut index) =
            (self.state.clone(), self.world.clone(), self.index);
        let mut said = Vec::new();
        for stage in 0.. {
            let decision = reconciler.decide(&world, key, &mut RoundState::default(), self.now);
            if decision.drafts.is_empty() {
                break;
            }
            said.push(
                decision
                    .drafts
                    .iter()
                    .map(|draft| describe(&draft.intent))
                    .collect::<Vec<_>>()
                    .join(", "),
            );
            self.levelled.insert(name);
            // Adoptions, a namespace's contents, an owner's orphans: first these, then what follows from them.
            let first = said[0].starts_with("adopt")
                || said[0].starts_with("release")
                || matches!(name, "namespace-controller" | "generic-garbage-collector");
            assert!(
                stage == 0 || first && stage < 4,
                "{name} {key} decides again on its own result: {said:#?}"
            );
            for draft in decision.drafts {
                index += 1;
                let id = ProposalId {
                    uuid: uuid::Uuid::from_u128(u128::MAX - u128::from(index)),
                    attempt: 0,
                };
                let actor = Actor::Reconciler {
                    name: name.into(),
                    term: TERM,
                };
                let Draft {
                    intent,
                    expectations,
                    changes,
                } = draft;
                let act = Act::Objects(changes);
                let cause = Cause {
                    revision: 0,
                    round: 0,
                };
                let proposal = Proposal {
                    id,
                    actor,
                    cause,
                    intent,
                    first_sent: index,
                    salt: Salt::default(),
                    expectations,
                    act,
                };
                let applied = state.apply(
                    Position { term: TERM, index },
                    &Entry {
                        clock: self.now,
                        proposals: vec![proposal],
                    },
                );
                assert!(
                    matches!(applied.outcomes[0].1, Outcome::Accepted { .. }),
                    "{name} {key}: {:?}",
                    applied.outcomes[0].1
                );
                applied
                    .events
                    .iter()
                    .for_each(|(event, _)| drop(world.fold(event)));
            }
        }
    }

    fn take(&mut self, outcome: RoundOutcome) -> usize {
        for (name, key) in &outcome.decided {
            self.waiting.remove(&((*name).to_owned(), key.clone()));
        }
        for (name, key, waiting) in &outcome.waiting {
            assert!(
                !matches!(waiting, reconcilers::Waiting::Broken { .. }),
                "{name} {key}: {waiting}"
            );
            self.waiting
                .insert(((*name).to_owned(), key.clone()), waiting.to_string());
        }
        self.waiting
            .retain(|(_, key), _| self.world.thing(key).is_some());
        let drafts = outcome.drafts.len();
        for Decided {
            reconciler,
            key,
            woken_by,
            draft,
        } in outcome.drafts
        {
            let said = format!("{reconciler} {key}: {}", describe(&draft.intent));
            match self.accept(reconciler, woken_by, draft) {
                Ok(()) => self.told.push(said),
                Err(_) => {
                    let soon = self.now.plus_ms(0);
                    self.due
                        .again(&self.reconcilers, reconciler, &key, woken_by, soon);
                }
            }
        }
        drafts
    }

    pub fn accept(
        &mut self,
        reconciler: &'static str,
        woken_by: u64,
        draft: Draft,
    ) -> Result<(), String> {
        let actor = Actor::Reconciler {
            name: reconciler.into(),
            term: TERM,
        };
        let Draft {
            intent,
            expectations,
            changes,
        } = draft;
        self.apply(
            actor,
            Cause {
                revision: woken_by,
                round: 0,
            },
            intent,
            expectations,
            Act::Objects(changes),
        )
    }

    /// Rounds until there is nothing left to do at this moment; then a new leader, and a new world, must find the same.
    pub fn settle(&mut self) {
        for _ in 0..MOST_ROUNDS {
            if self.round() == 0 && self.due.is_empty() {
                self.assert_at_rest();
                return;
            }
        }
        panic!(
            "does not come to rest: {:?}",
            &self.told[self.told.len().saturating_sub(20)..]
        );
    }

    fn assert_at_rest(&self) {
        let fresh = World::from_view(self.state.view());
        assert!(
            self.world == fresh,
            "the folded world is not the one of the view"
        );
        let mut due = Due::default();
        due.everything(&self.reconcilers, &fresh);
        let outcome = run_round(
            &self.reconcilers,
            &fresh,
            &mut due,
            self.now,
            Limits::default(),
        );
        let drafts: Vec<String> = outcome
            .drafts
            .iter()
            .map(|decided| {
                format!(
                    "{} {}: {:?}",
                    decided.reconciler, decided.key, decided.draft
                )
            })
            .collect();
        assert!(
            drafts.is_empty(),
            "a new leader finds something to do that nothing woke: {drafts:#?}"
        );
    }

    pub fn advance(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
    }

    /// The agent of a bound pod reports it running and ready.
    pub fn make_ready(&mut self, key: &Key) {
        let mut object = self.get(key).unwrap();
        let number = key.name.bytes().fold(0_u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let ip = format!(
            "10.{}.{}.{}",
            number >> 16 & 255,
            number >> 8 & 255,
            number & 255
        );
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut conditions: Vec<Value> = conditions
            .into_iter()
            .filter(|condition| condition["type"] != "Ready")
            .collect();
        conditions.push(json!({ "type": "Ready", "status": "True", "lastTransitionTime": self.now.to_string() }));
        object["status"]["phase"] = json!("Running");
        object["status"]["podIP"] = json!(ip);
        object["status"]["podIPs"] = json!([{ "ip": ip }]);
        object["status"]["conditions"] = json!(conditions);
        self.put(key, &object);
    }

    pub fn make_unready(&mut self, key: &Key) {
        let mut object = self.get(key).unwrap();
        for condition in object["status"]["conditions"].as_array_mut().unwrap() {
            if condition["type"] == "Ready" {
                condition["status"] = json!("False");
                condition["lastTransitionTime"] = json!(self.now.to_string());
            }
        }
        self.put(key, &object);
    }

    /// The agents report what is being deleted gone.
    pub fn confirm_gone(&mut self) {
        for key in self.pod_keys() {
            if self
                .state
                .view()
                .get(&key)
                .is_some_and(|object| !object.living())
            {
                self.objects(vec![Change {
                    key,
                    what: What::Remove,
                }]);
            }
        }
    }

    pub fn pod_keys(&self) -> Vec<Key> {
        self.state
            .view()
            .list("pods", None)
            .map(|object| object.key.clone())
            .collect()
    }
}

pub fn describe(intent: &Intent) -> String {
    match intent {
        Intent::Reconcile { what } => what.to_string(),
        Intent::Bind { node, reason } => format!("bind to {node} ({reason})"),
        Intent::Evict { reason } => format!("evict: {reason}"),
        Intent::Taint { reason } => format!("taint: {reason}"),
        Intent::Collect { owner } => format!("collect, for {owner}"),
        Intent::Remove { reason } => format!("remove: {reason}"),
        Intent::Status => "status".to_owned(),
        Intent::Create => "create".to_owned(),
        Intent::Update => "update".to_owned(),
        other => format!("{other:?}"),
    }
}

/// RFC 7386.
pub fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (field, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().shift_remove(field);
        } else {
            merge(&mut object[field], value);
        }
    }
}

pub fn pod(name: &str, labels: &Value, cpu: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": { "name": name, "namespace": "default", "labels": labels },
        "spec": pod_spec("img:1", cpu), "status": { "phase": "Pending" },
    })
}

pub fn pod_spec(image: &str, cpu: &str) -> Value {
    json!({
        "containers": [{ "name": "main", "image": image, "resources": { "requests": { "cpu": cpu } },
            "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }] }],
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler",
    })
}

pub fn node(name: &str, cpu: &str) -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1", "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } }, "spec": {},
        "status": {
            "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "110" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": "2026-11-21T08:00:00Z" }],
        },
    })
}

pub fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": pod_spec(image, "100m") },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "25%", "maxSurge": "25%" } },
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
        },
    })
}
