//! What the fold keeps: the current objects, the sessions, and apply's own books.
//!
//! `View` is a persistent value: cloning copies pointers, so a reader holds a whole consistent state at one revision without a lock.
//! `State` is the one that apply owns: the view and the outcomes kept.

use crate::outcome::Outcomes;
use crate::{Digest, Event, Key, Object, Position, Retention, Text, Time};
use imbl::OrdMap;
use std::ops::RangeBounds;
use std::sync::Arc;
use uuid::Uuid;

/// The log's level that this program writes and the highest it can apply.
pub const LEVEL: u32 = 2;

#[derive(Clone, Debug, Default)]
pub struct View {
    pub cluster: Uuid,
    /// 0 before the cluster is founded.
    pub level: u32,
    /// Of the last change.
    pub revision: u64,
    /// Of the last event.
    pub digest: Digest,
    /// The log's clock at the last entry.
    pub clock: Time,
    /// The last entry applied.
    pub position: Position,
    /// The last `round` event: what `Cause::THIS_ROUND` stands for.
    pub round: u64,
    /// How far back history reaches.
    pub retention: Arc<Retention>,
    resources: OrdMap<Text, Table>,
    sessions: OrdMap<Text, Session>,
}

/// The objects of one resource.
#[derive(Clone, Debug, Default)]
struct Table {
    /// Of the last change to any of them.
    revision: u64,
    objects: OrdMap<(Text, Text), Arc<Object>>,
}

/// An agent's session: who holds it, and the number that fences the ones before.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Session {
    pub server: Text,
    /// The revision of the event that opened it.
    pub epoch: u64,
    pub opened: Time,
    /// When it was lost; None while it is open.
    pub lost: Option<Time>,
}

impl View {
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.resources
            .get(&key.resource)?
            .objects
            .get(&(key.namespace.clone(), key.name.clone()))
    }

    /// All of a resource in the order of namespace, then name; of one namespace if one is named.
    pub fn list<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        let from = (Text::from(namespace.unwrap_or("")), Text::from(""));
        let namespace = namespace.map(Text::from);
        self.range(resource, from..).take_while(move |object| {
            namespace
                .as_ref()
                .is_none_or(|namespace| object.key.namespace == *namespace)
        })
    }

    /// What follows (namespace, name) in a resource's order: the next page of a list.
    pub fn range<'a>(
        &'a self,
        resource: &str,
        range: impl RangeBounds<(Text, Text)>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        self.resources
            .get(resource)
            .map(|table| table.objects.range(range))
            .into_iter()
            .flatten()
            .map(|(_, object)| object)
    }

    /// How many objects a resource has: exact, without walking them.
    pub fn count(&self, resource: &str) -> usize {
        self.resources
            .get(resource)
            .map_or(0, |table| table.objects.len())
    }

    /// The revision of the last change to a resource; 0 when it never had one.
    pub fn last_change(&self, resource: &str) -> u64 {
        self.resources
            .get(resource)
            .map_or(0, |table| table.revision)
    }

    /// The resources that have or had objects.
    pub fn resources(&self) -> impl Iterator<Item = &Text> {
        self.resources.keys()
    }

    /// Every object, hidden ones too, in the order of keys.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.resources
            .values()
            .flat_map(|table| table.objects.values())
    }

    pub fn session(&self, node: &str) -> Option<&Session> {
        self.sessions.get(node)
    }

    pub fn sessions(&self) -> impl Iterator<Item = (&Text, &Session)> {
        self.sessions.iter()
    }

    pub(crate) fn put(&mut self, object: Arc<Object>) {
        let key = object.key.clone();
        self.change(&key, |_| object);
    }

    /// Puts what is made of the version before in its place, with one look for the place. The version before, and the new one.
    pub(crate) fn change(
        &mut self,
        key: &Key,
        make: impl FnOnce(Option<&Object>) -> Arc<Object>,
    ) -> (Option<Arc<Object>>, Arc<Object>) {
        let table = match self.resources.get_mut(&key.resource) {
            Some(table) => table,
            None => self.resources.entry(key.resource.clone()).or_default(),
        };
        let name = (key.namespace.clone(), key.name.clone());
        let (before, object) = match table.objects.get_mut(&name) {
            Some(place) => {
                let object = make(Some(place));
                (Some(std::mem::replace(place, object.clone())), object)
            }
            None => {
                let object = make(None);
                table.objects.insert(name, object.clone());
                (None, object)
            }
        };
        table.revision = table.revision.max(object.revision());
        (before, object)
    }

    pub(crate) fn remove(&mut self, key: &Key, revision: u64) -> Option<Arc<Object>> {
        let table = self.resources.get_mut(&key.resource)?;
        let removed = table
            .objects
            .remove(&(key.namespace.clone(), key.name.clone()))?;
        table.revision = table.revision.max(revision);
        Some(removed)
    }

    /// Becomes what `newer` is, by the changes between the two.
    fn follow(&mut self, newer: &Self, events: &[Arc<Event>]) {
        for folded in events.iter().flat_map(|event| &event.objects) {
            match &folded.after {
                Some(object) => self.put(object.clone()),
                None => {
                    self.remove(&folded.key, folded.revision);
                }
            }
        }
        let resources = std::mem::take(&mut self.resources);
        *self = Self {
            resources,
            ..newer.clone()
        };
    }

    pub(crate) fn end_sessions(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn set_session(&mut self, node: Text, session: Session) {
        self.sessions.insert(node, session);
    }
}

/// What apply owns.
#[derive(Clone, Debug, Default)]
pub struct State {
    view: View,
    pub(crate) outcomes: Outcomes,
    /// An older program than this one, as tests of upgrades need it.
    most_level: Option<u32>,
}

impl State {
    /// A state as a disk gives it back. `last_changes` are the resources' last revisions, which may lie above those of what still lives.
    pub fn restore(
        mut view: View,
        objects: impl IntoIterator<Item = Object>,
        last_changes: impl IntoIterator<Item = (Text, u64)>,
        sessions: impl IntoIterator<Item = (Text, Session)>,
        outcomes: Outcomes,
    ) -> Self {
        for object in objects {
            view.put(Arc::new(object));
        }
        for (resource, revision) in last_changes {
            let table = view.resources.entry(resource).or_default();
            table.revision = table.revision.max(revision);
        }
        view.sessions.extend(sessions);
        Self {
            view,
            outcomes,
            most_level: None,
        }
    }

    /// As a program that knows no level above this one.
    #[must_use]
    pub fn knowing(self, level: u32) -> Self {
        Self {
            most_level: Some(level),
            ..self
        }
    }

    /// The highest level it can apply.
    pub fn knows(&self) -> u32 {
        self.most_level.unwrap_or(LEVEL)
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// Goes on in the place of an earlier view that nobody reads any more, which `events` lie behind; the view up to here is left to
    /// those who read it. The two take turns, each with nodes of its own: in a view that readers share, every change would copy the
    /// nodes around it, which costs more than to make the change twice.
    pub fn go_on_in(&mut self, mut earlier: View, events: &[Arc<Event>]) {
        earlier.follow(&self.view, events);
        self.view = earlier;
    }

    /// An entry without proposals of ours (a blank one, a membership) was applied.
    pub fn advance(&mut self, position: Position) {
        self.view.position = position;
    }

    /// What came of a proposal, as far as it is in memory.
    pub fn outcome(&self, id: crate::ProposalId) -> Option<&crate::Outcome> {
        self.outcomes.get(id).map(|kept| &kept.outcome)
    }

    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    pub fn outcomes_mut(&mut self) -> &mut Outcomes {
        &mut self.outcomes
    }
}
