//! Random histories: whatever is proposed, apply is deterministic, its chain verifies, and a state put together again from its parts goes
//! on as the one it was taken from, as does one that takes turns with its readers' view.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]

mod language;

use eventstore::*;
use language::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Step {
    number: u8,
    name: u8,
    what: u8,
    is: Option<u8>,
    later_ms: i64,
    actor: u8,
}

fn step() -> impl Strategy<Value = Step> {
    (
        any::<u8>(),
        0..6u8,
        0..6u8,
        proptest::option::of(0..4u8),
        0..5_000i64,
        0..8u8,
    )
        .prop_map(|(number, name, what, is, later_ms, actor)| Step {
            number,
            name,
            what,
            is,
            later_ms,
            actor,
        })
}

/// A proposal that the state may or may not take.
fn proposal_of(step: &Step, view: &View) -> Proposal {
    let key = map(&format!("m{}", step.name));
    let other = map(&format!("m{}", (step.name + 1) % 6));
    let value = step.number.to_string();
    let act = match step.what {
        0 | 1 => Act::Objects(vec![put(&key, &value)]),
        2 => Act::Objects(vec![put(&other, &value), remove(&key)]),
        3 => Act::Objects(vec![delete(&key, &value, i64::from(step.number))]),
        4 => Act::Round(Round {
            world: view.revision,
            clock: view.clock,
            decided: vec![],
            logic: 1,
        }),
        _ => Act::OpenSession {
            node: format!("n{}", step.name).into(),
            server: "s".into(),
        },
    };
    let mut asked = proposal(u128::from(step.number), act);
    asked.cause.round = if step.number.is_multiple_of(2) {
        Cause::THIS_ROUND
    } else {
        0
    };
    if let Some(is) = step.is {
        let current = view.get(&key);
        let is = match is {
            0 => Expected::Absent,
            1 => Expected::Revision(current.map_or(1, |object| object.revision())),
            2 => Expected::Uid(current.map_or(CLUSTER, |object| object.uid())),
            _ => Expected::Living,
        };
        asked = expecting(asked, &key, is);
    }
    asked.actor = match step.actor {
        0 => Actor::Reconciler {
            name: "r".into(),
            term: 1,
        },
        1 => Actor::Agent {
            node: "n1".into(),
            epoch: view.session("n1").map_or(1, |session| session.epoch),
        },
        _ => user(),
    };
    asked
}

/// The state from its parts, as a disk would give it back.
fn restored(state: &State, kept: &[Kept]) -> State {
    let view = state.view();
    let mut bare = View::default();
    (bare.cluster, bare.level, bare.revision) = (view.cluster, view.level, view.revision);
    (bare.digest, bare.clock, bare.position, bare.round) =
        (view.digest, view.clock, view.position, view.round);
    let objects: Vec<_> = view.objects().map(|object| Object::clone(object)).collect();
    let lasts: Vec<_> = view
        .resources()
        .map(|each| (each.clone(), view.last_change(each)))
        .collect();
    let sessions: Vec<_> = view
        .sessions()
        .map(|(node, session)| (node.clone(), session.clone()))
        .collect();
    let numbers = 1..kept.last().map_or(1, |last| last.sequence + 1);
    let mut outcomes = Outcomes::away(numbers, view.position.index, 0);
    outcomes.recall(kept.iter().cloned(), 0);
    State::restore(bare, objects, lasts, sessions, outcomes)
}

fn same(left: &View, right: &View) {
    assert_eq!(
        (left.revision, left.digest, left.clock),
        (right.revision, right.digest, right.clock)
    );
    assert_eq!((left.position, left.round), (right.position, right.round));
    assert!(left.objects().eq(right.objects()));
    assert!(left.sessions().eq(right.sessions()));
    assert!(
        left.resources()
            .all(|each| left.last_change(each) == right.last_change(each)
                && left.count(each) == right.count(each))
    );
}

proptest! {
    #[test]
    fn any_history(steps in proptest::collection::vec(step(), 1..80), cut in 0..80usize) {
        let mut log = Log::founded();
        let mut again = Log::founded();
        let mut kept = log.state.outcomes().of_request(id(1).uuid).cloned().collect::<Vec<_>>();
        let mut digest = log.state.view().digest;
        // The other one takes turns with the view that its readers had before, while some of them still read.
        let mut before: Option<(View, Vec<_>)> = None;
        let mut read = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            if number == cut {
                again.state = restored(&again.state, &kept);
            }
            log.clock = log.clock.plus_ms(step.later_ms);
            again.clock = log.clock;
            let known = log.state.outcome(id(u128::from(step.number))).cloned();
            let revision = log.state.view().revision;
            let asked = proposal_of(step, log.state.view());
            let applied = log.apply(vec![asked.clone()]);
            // The same on the other, through the entry's bytes.
            let asked: Proposal = decode(&encode(&asked)).unwrap();
            if let Some((view, events)) = before.take().filter(|_| step.later_ms % 4 > 0) {
                again.state.go_on_in(view, &events);
            }
            let shown = again.state.view().clone();
            if step.later_ms % 8 == 1 {
                read.push((shown.clone(), shown.objects().cloned().collect::<Vec<_>>()));
            }
            let other = again.apply(vec![asked]);
            let events = other.events.iter().map(|(event, _)| event.clone()).collect();
            before = Some((shown, events));
            prop_assert_eq!(&applied.outcomes, &other.outcomes);
            same(log.state.view(), again.state.view());
            kept.extend(applied.kept.iter().cloned());
            if let Some(known) = known {
                prop_assert_eq!(&applied.outcomes[0].1, &known);
                prop_assert!(applied.events.is_empty());
            }
            let mut next = revision + 1;
            for (event, encoded) in &applied.events {
                prop_assert_eq!(event.envelope.first, next);
                prop_assert_eq!(event.envelope.last, next + (event.objects.len().max(1) as u64) - 1);
                digest = digest.chain(encoded);
                prop_assert_eq!(event.digest, digest);
                next = event.envelope.last + 1;
            }
            prop_assert_eq!(log.state.view().revision, next - 1);
            for object in log.state.view().objects() {
                prop_assert_eq!(Digest::of_body(object.salt, &object.body()), object.hash);
                let shown = object.to_value()["metadata"]["resourceVersion"].clone();
                prop_assert_eq!(shown, serde_json::Value::from(object.revision().to_string()));
            }
        }
        for (view, objects) in &read {
            prop_assert!(view.objects().eq(objects));
        }
    }
}
