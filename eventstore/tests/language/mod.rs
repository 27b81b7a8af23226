//! What the tests say proposals with.

#![allow(dead_code, reason = "each test program uses its own part")]

use eventstore::{
    Act, Actor, Applied, Body, Cause, Change, Entry, Expectation, Expected, Intent, Key, Outcome,
    Position, Proposal, ProposalId, Salt, State, Text, Time, What,
};
use serde_json::json;
use uuid::Uuid;

pub const CLUSTER: Uuid = Uuid::from_u128(0xc1);
/// 2026-11-21T08:46:00.250Z: the clock of the first entry.
pub const START: Time = Time::from_ms(1_795_250_760_250);

pub fn id(number: u128) -> ProposalId {
    ProposalId {
        uuid: Uuid::from_u128(number),
        attempt: 1,
    }
}

pub fn user() -> Actor {
    let text = Text::from;
    Actor::User {
        user: text("ann"),
        groups: vec![text("system:masters")],
        impersonator: None,
        client: text("kubectl"),
        address: text("127.0.0.1:7"),
    }
}

pub fn server() -> Actor {
    Actor::Server {
        name: "server-1".into(),
    }
}

pub fn map(name: &str) -> Key {
    Key::new("configmaps", "default", name)
}

pub fn body(key: &Key, value: &str) -> Body {
    Body::cut(&json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": &*key.name, "namespace": &*key.namespace},
        "data": {"value": value},
    }))
    .unwrap()
}

pub fn proposal(number: u128, act: Act) -> Proposal {
    Proposal {
        id: id(number),
        actor: user(),
        cause: Cause::default(),
        intent: Intent::Update,
        first_sent: 0,
        salt: Salt([number as u8; 16]),
        expectations: Vec::new(),
        act,
    }
}

pub fn found() -> Proposal {
    Proposal {
        actor: server(),
        intent: Intent::Found,
        ..proposal(
            1,
            Act::Found {
                cluster: CLUSTER,
                level: 1,
            },
        )
    }
}

pub fn objects(number: u128, changes: Vec<Change>) -> Proposal {
    proposal(number, Act::Objects(changes))
}

pub fn put(key: &Key, value: &str) -> Change {
    Change {
        key: key.clone(),
        what: What::Put {
            body: body(key, value),
            delete_grace_s: None,
        },
    }
}

pub fn delete(key: &Key, value: &str, grace_s: i64) -> Change {
    Change {
        key: key.clone(),
        what: What::Put {
            body: body(key, value),
            delete_grace_s: Some(grace_s),
        },
    }
}

pub fn remove(key: &Key) -> Change {
    Change {
        key: key.clone(),
        what: What::Remove,
    }
}

pub fn expecting(mut proposal: Proposal, key: &Key, is: Expected) -> Proposal {
    proposal.expectations.push(Expectation {
        key: key.clone(),
        is,
    });
    proposal
}

pub fn of(mut proposal: Proposal, actor: Actor) -> Proposal {
    proposal.actor = actor;
    proposal
}

/// A state, and where the next entry stands.
pub struct Log {
    pub state: State,
    pub term: u64,
    pub clock: Time,
}

impl Log {
    pub fn founded() -> Self {
        let mut log = Self {
            state: State::default(),
            term: 1,
            clock: START,
        };
        log.apply(vec![found()]);
        log
    }

    pub fn apply(&mut self, proposals: Vec<Proposal>) -> Applied {
        let position = Position {
            term: self.term,
            index: self.state.view().position.index + 1,
        };
        self.state.apply(
            position,
            &Entry {
                clock: self.clock,
                proposals,
            },
        )
    }

    /// One proposal in an entry of its own.
    pub fn take(&mut self, proposal: Proposal) -> Outcome {
        self.apply(vec![proposal]).outcomes.remove(0).1
    }
}
