//! What a reconciler is: a pure function (world, key, now) -> a decision.
//!
//! Level, not edge: `decide` reads the world and never what just happened; deciding again on its own folded result decides nothing.
//! `wakes` is the only place where an event is looked at, and all it may say is which keys have to be decided again.
//! A reconciler must never keep anything between two decisions: what must be remembered is folded.

use crate::scheduler::Placed;
use crate::{Touched, World};
use eventstore::{Change, Expectation, Intent, Key, Time};
use std::fmt;

pub trait Reconciler: Send + Sync {
    /// The actor's name in the log: `deployment-controller`, `default-scheduler`.
    fn name(&self) -> &'static str;

    /// Whether its keys go before those of others, however long those have been waiting: node health.
    fn first(&self) -> bool {
        false
    }

    /// Which of its keys a folded change touches; `world` is after the change.
    fn wakes(&self, touched: &Touched, world: &World, wakes: &mut Wakes);

    /// All keys it might have to decide: what a new leader begins with.
    fn keys(&self, world: &World, wakes: &mut Wakes);

    /// Which of its keys go before others of its own that are due at the same time: smaller first, equal ones in the order of their turns.
    fn order(&self, _world: &World, _key: &Key) -> (i64, i64) {
        (0, 0)
    }

    /// A key that only stands for others, which are decided in its place: so one event can wake thousands at the cost of one.
    fn stands_for(&self, _world: &World, _key: &Key) -> Option<Vec<Key>> {
        None
    }

    /// Total: it must give a decision for a key that is gone, is broken or was never there.
    fn decide(&self, world: &World, key: &Key, round: &mut RoundState, now: Time) -> Decision;
}

/// The keys that a change touches, as a reconciler names them.
#[derive(Debug, Default)]
pub struct Wakes(Vec<Key>);

impl Wakes {
    pub fn wake(&mut self, key: Key) {
        self.0.push(key);
    }

    pub fn into_keys(self) -> Vec<Key> {
        self.0
    }
}

/// What one reconciler has to say about one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What to propose, in order; each is atomic by itself, and the others stand if one is rejected.
    pub drafts: Vec<Draft>,
    /// Why it is not done yet, when nothing is left to propose.
    pub waiting: Option<Waiting>,
    /// When to look again though nothing changes: a deadline, a grace, a back-off.
    pub again_at: Option<Time>,
}

/// A proposal without what the shell adds: actor (reconciler, term), cause (the revision that woke it, the round), id, salt, position.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub intent: Intent,
    pub expectations: Vec<Expectation>,
    pub changes: Vec<Change>,
}

/// What the decisions of one round know of each other. Only the scheduler needs it: what it has just placed.
#[derive(Debug, Default)]
pub struct RoundState {
    pub(crate) placed: Option<Placed>,
}

/// Every "not yet" has its type. Prints as a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No node takes the pod: how many nodes there are, and how many each reason rules out.
    Unschedulable {
        nodes: usize,
        reasons: Vec<(String, usize)>,
    },
    /// `spec.schedulingGates` of the pod.
    Gated { gates: Vec<String> },
    /// Pods that are not yet there or not yet available.
    Pods { wanted: i64, available: i64 },
    /// `spec.paused` of the deployment.
    Paused,
    /// The rollout made no progress for `spec.progressDeadlineSeconds`.
    DeadlineExceeded,
    /// Pods of another version that have to go first (strategy Recreate).
    OldPods { left: usize },
    /// Somebody else's finalizers.
    Finalizers { finalizers: Vec<String> },
    /// What still lies in the namespace.
    Content { left: usize },
    /// Dependents that block their owner's deletion.
    Dependents { left: usize },
    /// A grace that runs until then.
    Grace { until: Time },
    /// The key's object can't be read as its kind.
    Unreadable { why: String },
    /// This key's decision panicked and is set aside until something about the key changes.
    Broken { why: String },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable { nodes: 0, .. } => {
                f.write_str("no nodes available to schedule pods")
            }
            Self::Unschedulable { nodes, reasons } => {
                let listed: Vec<String> = reasons
                    .iter()
                    .map(|(reason, count)| format!("{count} {reason}"))
                    .collect();
                write!(f, "0/{nodes} nodes are available: {}", listed.join(", "))
            }
            Self::Gated { gates } => write!(f, "held by scheduling gates: {}", gates.join(", ")),
            Self::Pods { wanted, available } => {
                write!(f, "{available} of {wanted} pods are available")
            }
            Self::Paused => f.write_str("paused"),
            Self::DeadlineExceeded => f.write_str("no progress within progressDeadlineSeconds"),
            Self::OldPods { left } => write!(f, "{left} old pods have to go first"),
            Self::Finalizers { finalizers } => write!(f, "finalizers: {}", finalizers.join(", ")),
            Self::Content { left } => write!(f, "{left} objects are still in the namespace"),
            Self::Dependents { left } => write!(f, "{left} dependents block the deletion"),
            Self::Grace { until } => write!(f, "until {until}"),
            Self::Unreadable { why } => write!(f, "cannot be read: {why}"),
            Self::Broken { why } => write!(f, "its decision panicked: {why}"),
        }
    }
}

impl Decision {
    /// There is nothing to do and nothing to wait for.
    pub fn nothing() -> Self {
        Self::default()
    }

    pub fn propose(draft: Draft) -> Self {
        Self {
            drafts: vec![draft],
            ..Self::default()
        }
    }

    pub fn wait(waiting: Waiting) -> Self {
        Self {
            waiting: Some(waiting),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn again(mut self, at: Time) -> Self {
        self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
        self
    }

    #[must_use]
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = Some(waiting);
        self
    }
}
