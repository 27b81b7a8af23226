//! An event as people and `reckon` read it: who, what for, why, and what came of it.

use super::diff::diff;
use eventstore::{Actor, Envelope, Happened, Intent, Key, Object, Outcome, ProposalId, Text};
use eventstore_disk::{Store, StoreError};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// What is known of the requests whose restores took several events: which event came behind which.
#[derive(Default)]
pub(super) struct Restores(BTreeMap<ProposalId, Outcome>);

impl Restores {
    /// Looks for all of them at once, where there is one: it may take a search of all outcomes that are kept.
    pub fn among<'a>(
        store: &Store,
        envelopes: impl Iterator<Item = &'a Envelope>,
    ) -> Result<Self, StoreError> {
        let restores = envelopes.filter(|event| matches!(event.intent, Intent::Restore { .. }));
        let (mut uuids, mut first) = (BTreeSet::new(), u64::MAX);
        for event in restores {
            uuids.insert(event.id.uuid);
            first = first.min(event.position.index);
        }
        // What goes on behind an event was sent when it was applied.
        Ok(Self(store.outcomes_of(&uuids, first)?))
    }

    /// The next event of the same request, as long as outcomes are kept. Between the two lie the tries that were rejected.
    fn continued_in(&self, id: ProposalId) -> Option<u64> {
        let behind = (Bound::Excluded(id), Bound::Unbounded);
        let of_request = self
            .0
            .range(behind)
            .take_while(|(next, _)| next.uuid == id.uuid);
        of_request
            .map(|(_, outcome)| outcome)
            .find_map(|outcome| match outcome {
                Outcome::Accepted { last, .. } => Some(*last),
                Outcome::Rejected(_) => None,
            })
    }

    /// The event's own part; of a restore that took several events, also which came before it and behind it.
    pub fn item(&self, envelope: &Envelope) -> Map<String, Value> {
        let mut item = of_envelope(envelope);
        if let Intent::Restore { at } = envelope.intent {
            let continues = Some(envelope.cause.revision).filter(|revision| *revision > 0);
            let continued_in = self.continued_in(envelope.id);
            item.insert(
                "restore".into(),
                json!({"at": at, "continues": continues, "continuedIn": continued_in}),
            );
            let mut text = intent(&envelope.intent).1;
            if let Some(revision) = continues {
                text += &format!(", continues revision {revision}");
            }
            if let Some(revision) = continued_in {
                text += &format!(", continued in revision {revision}");
            }
            item.insert("intentText".into(), json!(text));
        }
        item
    }
}

fn of_envelope(envelope: &Envelope) -> Map<String, Value> {
    let mut item = Map::new();
    item.insert("revision".into(), json!(envelope.last));
    item.insert("first".into(), json!(envelope.first));
    item.insert("time".into(), json!(envelope.time.milli()));
    item.insert("id".into(), json!(envelope.id.uuid));
    item.insert("actor".into(), actor(&envelope.actor));
    let (name, text) = intent(&envelope.intent);
    item.insert("intent".into(), json!(name));
    item.insert("intentText".into(), json!(text));
    item.insert(
        "cause".into(),
        json!({"revision": envelope.cause.revision, "round": envelope.cause.round}),
    );
    item.insert("happened".into(), json!(happened(&envelope.happened)));
    item
}

/// One object's change beside it.
pub(super) fn with_change(
    mut item: Map<String, Value>,
    key: &Key,
    revision: u64,
    before: Option<&Object>,
    after: Option<&Object>,
) -> Value {
    item.insert(
        "key".into(),
        json!({"resource": &*key.resource, "namespace": &*key.namespace, "name": &*key.name}),
    );
    item.insert("changeRevision".into(), json!(revision));
    let (change, lines) = match (before, after) {
        (None, _) => ("created", Vec::new()),
        (Some(_), None) => ("deleted", Vec::new()),
        (Some(before), Some(after)) => ("updated", diff(&before.to_value(), &after.to_value())),
    };
    item.insert("change".into(), json!(change));
    item.insert("diff".into(), Value::Array(lines));
    Value::Object(item)
}

fn actor(actor: &Actor) -> Value {
    match actor {
        Actor::User {
            user,
            groups,
            impersonator,
            client,
            address,
        } => json!({
            "kind": "user", "name": &**user, "groups": groups.iter().map(|group| &**group).collect::<Vec<_>>(),
            "client": &**client, "address": &**address, "impersonator": impersonator.as_deref(),
        }),
        Actor::Reconciler { name, term } => {
            json!({"kind": "reconciler", "name": &**name, "term": term})
        }
        Actor::Agent { node, epoch } => json!({"kind": "agent", "name": &**node, "epoch": epoch}),
        Actor::Server { name } => json!({"kind": "server", "name": &**name}),
    }
}

/// Its name, and what it says to people.
fn intent(intent: &Intent) -> (&'static str, String) {
    match intent {
        Intent::Create => ("Create", "Create".into()),
        Intent::Update => ("Update", "Update".into()),
        Intent::Patch { kind } => ("Patch", format!("Patch ({kind})")),
        Intent::Apply {
            manager,
            force: false,
        } => ("Apply", format!("Apply as {manager}")),
        Intent::Apply {
            manager,
            force: true,
        } => ("Apply", format!("Apply as {manager}, forced")),
        Intent::Delete {
            grace_s: Some(grace_s),
            propagation,
        } => (
            "Delete",
            format!("Delete ({propagation}, {grace_s} s of grace)"),
        ),
        Intent::Delete {
            grace_s: None,
            propagation,
        } => ("Delete", format!("Delete ({propagation})")),
        Intent::DeleteCollection => ("DeleteCollection", "Delete with others".into()),
        Intent::Status => ("Status", "Report status".into()),
        Intent::Scale { from, to } => ("Scale", format!("Scale {from} → {to}")),
        Intent::Bind { node, reason } => ("Bind", format!("Bind to {node}: {reason}")),
        Intent::Evict { reason } => ("Evict", format!("Evict: {reason}")),
        Intent::Taint { reason } => ("Taint", format!("Taint: {reason}")),
        Intent::Collect { owner } => ("Collect", format!("Collect what {owner} owned")),
        Intent::Remove { reason } => ("Remove", format!("Remove: {reason}")),
        Intent::Reconcile { what } => ("Reconcile", what.to_string()),
        Intent::Session => ("Session", "Session".into()),
        Intent::Round => ("Round", "Open a round".into()),
        Intent::Found => ("Found", "Found the cluster".into()),
        Intent::Prune => ("Prune", "Prune history".into()),
        Intent::Hold => ("Hold", "Hold history".into()),
        Intent::Release => ("Release", "Release a hold".into()),
        Intent::Restore { at } => ("Restore", format!("Restore as of revision {at}")),
    }
}

fn happened(happened: &Happened) -> String {
    match happened {
        Happened::Founded { cluster, level } => {
            format!("cluster {cluster} founded at level {level}")
        }
        Happened::Objects(records) => match records.len() {
            1 => "1 object changed".into(),
            count => format!("{count} objects changed"),
        },
        Happened::Round(round) => format!(
            "round opened at revision {} over {} keys",
            round.world,
            round.decided.len()
        ),
        Happened::SessionOpened { node, server } => format!("session of {node} opened on {server}"),
        Happened::SessionLost { node, epoch } => format!("session {epoch} of {node} lost"),
        Happened::LevelRaised { level } => format!("level raised to {level}"),
        Happened::Pruned(horizons) => {
            let all = (horizons.all > 0).then(|| format!("all before {}", horizons.all));
            let one = |(resource, before): &(Text, u64)| format!("{resource} before {before}");
            let gone: Vec<String> = all
                .into_iter()
                .chain(horizons.resources.iter().map(one))
                .collect();
            format!("history pruned: {}", gone.join(", "))
        }
        Happened::Held { name, revision } => {
            format!("history held from revision {revision} on for {name}")
        }
        Happened::Released { name, revision } => {
            format!("hold {name} from revision {revision} on released")
        }
        Happened::Restored {
            before,
            digest,
            cluster,
            gap,
            at,
        } => {
            format!(
                "cluster {cluster} restored from {before} with digest {digest}, as of revision {at}; {gap} revisions passed over"
            )
        }
    }
}
