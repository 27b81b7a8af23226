//! What apply answers, row by row: a log so far, one proposal, its outcome.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]

mod language;

use eventstore::*;
use language::*;

/// The outcome as people read it.
fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { first, last } => format!("accepted {first}..={last}"),
        Outcome::Rejected(rejection) => rejection.to_string(),
    }
}

/// The first event, of the founding, has revision 1; each `given` proposal stands in an entry of its own; then `asked` is put.
fn check(name: &str, given: Vec<Proposal>, asked: Proposal, want: &str) {
    let mut log = Log::founded();
    for proposal in given {
        let outcome = log.take(proposal);
        assert!(
            matches!(outcome, Outcome::Accepted { .. }),
            "{name}: given: {}",
            said(&outcome)
        );
    }
    let before = log.state.view().clone();
    let applied = log.apply(vec![asked]);
    let after = log.state.view();
    assert_eq!(said(&applied.outcomes[0].1), want, "{name}");
    let accepted = want.starts_with("accepted");
    assert_eq!(
        applied.events.len(),
        usize::from(accepted),
        "{name}: an event for what is accepted, and none for what is not"
    );
    if accepted {
        assert_eq!(
            after.digest,
            before.digest.chain(&applied.events[0].1),
            "{name}"
        );
    } else {
        assert_eq!(
            (after.revision, after.digest),
            (before.revision, before.digest),
            "{name}"
        );
        assert!(
            after.objects().eq(before.objects()) && after.sessions().eq(before.sessions()),
            "{name}: nothing changed"
        );
        let lasts = |view: &View| {
            view.resources()
                .map(|each| (each.clone(), view.last_change(each)))
                .collect::<Vec<_>>()
        };
        assert_eq!(lasts(after), lasts(&before), "{name}");
    }
}

#[test]
fn expectations() {
    let (a, b) = (map("a"), map("b"));
    let made = || vec![objects(2, vec![put(&a, "1")])];
    let deleting = || {
        vec![
            objects(2, vec![put(&a, "1")]),
            objects(3, vec![delete(&a, "1", 30)]),
        ]
    };
    let uid = {
        let mut log = Log::founded();
        log.take(made().remove(0));
        log.state.view().get(&a).unwrap().uid()
    };
    let ask = |is| expecting(objects(9, vec![put(&b, "2")]), &a, is);
    check(
        "absent, and is",
        vec![],
        ask(Expected::Absent),
        "accepted 2..=2",
    );
    check(
        "absent, and is not",
        made(),
        ask(Expected::Absent),
        "expected configmaps/default/a to be Absent; its revision is Some(2)",
    );
    check(
        "at its revision",
        made(),
        ask(Expected::Revision(2)),
        "accepted 3..=3",
    );
    check(
        "at another revision",
        made(),
        ask(Expected::Revision(1)),
        "expected configmaps/default/a to be Revision(1); its revision is Some(2)",
    );
    check(
        "at a revision, and absent",
        vec![],
        ask(Expected::Revision(1)),
        "expected configmaps/default/a to be Revision(1); its revision is None",
    );
    check(
        "with its uid",
        made(),
        ask(Expected::Uid(uid)),
        "accepted 3..=3",
    );
    check(
        "with another uid",
        made(),
        ask(Expected::Uid(CLUSTER)),
        &format!("expected configmaps/default/a to be Uid({CLUSTER}); its revision is Some(2)"),
    );
    check("living", made(), ask(Expected::Living), "accepted 3..=3");
    check(
        "living, and being deleted",
        deleting(),
        ask(Expected::Living),
        "expected configmaps/default/a to be Living; its revision is Some(3)",
    );
    check(
        "living, and absent",
        vec![],
        ask(Expected::Living),
        "expected configmaps/default/a to be Living; its revision is None",
    );
    check(
        "the second of two",
        made(),
        expecting(ask(Expected::Living), &b, Expected::Living),
        "expected configmaps/default/b to be Living; its revision is None",
    );
    let claim = Key::new("~cluster-ips", "", "10.0.0.1");
    let service = |number| {
        expecting(
            objects(number, vec![put(&map("s"), ""), put(&claim, "")]),
            &claim,
            Expected::Absent,
        )
    };
    check("a claim", vec![], service(2), "accepted 2..=3");
    check(
        "a claim that is taken",
        vec![service(2)],
        service(3),
        "expected ~cluster-ips/10.0.0.1 to be Absent; its revision is Some(3)",
    );
}

#[test]
fn acts() {
    let (a, b) = (map("a"), map("b"));
    check(
        "several changes",
        vec![],
        objects(2, vec![put(&a, "1"), put(&b, "1"), put(&a, "2")]),
        "accepted 2..=4",
    );
    check(
        "no change still has a revision",
        vec![],
        objects(2, vec![]),
        "accepted 2..=2",
    );
    check(
        "removing",
        vec![objects(2, vec![put(&a, "1")])],
        objects(3, vec![remove(&a)]),
        "accepted 3..=3",
    );
    check(
        "removing what is absent",
        vec![],
        objects(2, vec![remove(&a)]),
        "configmaps/default/a is not there",
    );
    check(
        "all or nothing",
        vec![objects(2, vec![put(&a, "1")])],
        objects(3, vec![put(&a, "2"), put(&b, "2"), remove(&a), remove(&a)]),
        "configmaps/default/a is not there",
    );
    check(
        "a key with a NUL",
        vec![],
        objects(2, vec![put(&map("a\0b"), "")]),
        "configmaps/default/a\0b is no key",
    );
    check(
        "founding again",
        vec![],
        Proposal {
            id: id(2),
            ..found()
        },
        "the cluster is founded already",
    );
    let raise = |number, level| of(proposal(number, Act::RaiseLevel { level }), server());
    check(
        "raising to the level there is",
        vec![],
        raise(2, 1),
        "the log is at that level already",
    );
    let hold = |number| {
        let act = Act::Hold {
            name: "audit".into(),
            revision: 1,
        };
        Proposal {
            intent: Intent::Hold,
            ..proposal(number, act)
        }
    };
    check(
        "what needs a higher level",
        vec![],
        hold(2),
        "the log is at level 1, this takes level 2: every server must be upgraded first",
    );
    check(
        "the same on it",
        vec![raise(2, 2)],
        hold(3),
        "accepted 3..=3",
    );
    check(
        "an intent that needs a higher level",
        vec![],
        Proposal {
            intent: Intent::Restore { at: 1 },
            ..objects(2, vec![put(&map("a"), "1")])
        },
        "the log is at level 1, this takes level 2: every server must be upgraded first",
    );
    let open = |number| {
        of(
            proposal(
                number,
                Act::OpenSession {
                    node: "n".into(),
                    server: "s".into(),
                },
            ),
            server(),
        )
    };
    let lose = |number, epoch| {
        of(
            proposal(
                number,
                Act::LoseSession {
                    node: "n".into(),
                    epoch,
                },
            ),
            server(),
        )
    };
    check("opening a session", vec![], open(2), "accepted 2..=2");
    check("opening it anew", vec![open(2)], open(3), "accepted 3..=3");
    check("losing it", vec![open(2)], lose(3, 2), "accepted 3..=3");
    check(
        "losing an older one",
        vec![open(2), open(3)],
        lose(4, 2),
        "that session is not open",
    );
    check(
        "losing it twice",
        vec![open(2), lose(3, 2)],
        lose(4, 2),
        "that session is not open",
    );
    check(
        "losing none",
        vec![],
        lose(2, 2),
        "that session is not open",
    );
    let round = Round {
        world: 1,
        clock: START,
        decided: vec![("deployment".into(), a)],
        logic: 1,
    };
    check(
        "a round",
        vec![],
        of(
            proposal(2, Act::Round(round)),
            Actor::Reconciler {
                name: "round".into(),
                term: 1,
            },
        ),
        "accepted 2..=2",
    );
}

#[test]
fn a_proposal_of_this_round_names_it() {
    let mut log = Log::founded();
    let round = |number| {
        let act = Act::Round(Round {
            world: 1,
            clock: START,
            decided: vec![],
            logic: 1,
        });
        of(
            proposal(number, act),
            Actor::Reconciler {
                name: "round".into(),
                term: 1,
            },
        )
    };
    let decided = |number, round| Proposal {
        cause: Cause { revision: 1, round },
        ..of(
            objects(number, vec![put(&map("a"), "1")]),
            Actor::Reconciler {
                name: "x".into(),
                term: 1,
            },
        )
    };
    let this = Cause::THIS_ROUND;
    let applied = log.apply(vec![
        round(2),
        decided(3, this),
        decided(4, this),
        round(5),
        decided(6, this),
        decided(7, 2),
    ]);
    let rounds: Vec<_> = applied
        .events
        .iter()
        .map(|(event, _)| (event.revision(), event.envelope.cause.round))
        .collect();
    assert_eq!(rounds, [(2, 0), (3, 2), (4, 2), (5, 0), (6, 5), (7, 2)]);
}

#[test]
fn nothing_before_the_founding() {
    let mut log = Log {
        state: State::default(),
        term: 1,
        clock: START,
    };
    let outcome = log.take(objects(2, vec![put(&map("a"), "1")]));
    assert_eq!(said(&outcome), "the cluster is not founded yet");
    assert_eq!(log.state.view().revision, 0);
}

#[test]
fn fences() {
    let a = map("a");
    let by = |number, actor| of(objects(number, vec![put(&a, "1")]), actor);
    let reconciler = |term| Actor::Reconciler {
        name: "deployment".into(),
        term,
    };
    check(
        "a reconciler of this term",
        vec![],
        by(2, reconciler(1)),
        "accepted 2..=2",
    );
    check(
        "of a term before",
        vec![],
        by(2, reconciler(0)),
        "decided in term 0, applied in term 1",
    );
    check(
        "of a term to come",
        vec![],
        by(2, reconciler(2)),
        "decided in term 2, applied in term 1",
    );
    let open = |number| {
        of(
            proposal(
                number,
                Act::OpenSession {
                    node: "n".into(),
                    server: "s".into(),
                },
            ),
            server(),
        )
    };
    let lose = |number, epoch| {
        of(
            proposal(
                number,
                Act::LoseSession {
                    node: "n".into(),
                    epoch,
                },
            ),
            server(),
        )
    };
    let agent = |epoch| Actor::Agent {
        node: "n".into(),
        epoch,
    };
    check(
        "an agent with its session",
        vec![open(2)],
        by(3, agent(2)),
        "accepted 3..=3",
    );
    check(
        "with a session superseded",
        vec![open(2), open(3)],
        by(4, agent(2)),
        "the session of n with epoch 2 is not open",
    );
    check(
        "with a session lost",
        vec![open(2), lose(3, 2)],
        by(4, agent(2)),
        "the session of n with epoch 2 is not open",
    );
    check(
        "with no session",
        vec![],
        by(2, agent(1)),
        "the session of n with epoch 1 is not open",
    );
}

#[test]
fn a_repetition_gets_the_first_outcome() {
    let a = map("a");
    let mut log = Log::founded();
    let create = expecting(objects(2, vec![put(&a, "1")]), &a, Expected::Absent);
    let first = log.take(create.clone());
    assert_eq!(said(&first), "accepted 2..=2");
    // Again under the same id: also in one entry, also with other content; a rejection is repeated too.
    assert_eq!(log.take(create.clone()), first);
    assert_eq!(log.take(objects(2, vec![remove(&a)])), first);
    let refused = Proposal {
        id: id(3),
        ..create.clone()
    };
    let applied = log.apply(vec![refused.clone(), refused.clone()]);
    assert_eq!(applied.outcomes[0].1, applied.outcomes[1].1);
    assert_eq!((applied.kept.len(), applied.events.len()), (1, 0));
    log.take(objects(4, vec![remove(&a)]));
    assert_eq!(
        log.take(refused.clone()),
        applied.outcomes[0].1,
        "though it would be accepted now"
    );
    let raised = Proposal {
        id: ProposalId {
            attempt: 2,
            ..id(3)
        },
        ..refused
    };
    assert_eq!(
        said(&log.take(raised)),
        "accepted 4..=4",
        "another attempt is another proposal"
    );
}

/// Nobody sends one id at two times. If somebody did, it would be two proposals, on each server, whatever it has in memory.
#[test]
fn what_lies_before_its_first_sending_is_not_a_proposals_own() {
    let sent = |first_sent| Proposal {
        first_sent,
        ..objects(2, vec![put(&map("a"), "1")])
    };
    let mut log = Log::founded();
    assert_eq!(said(&log.take(sent(1))), "accepted 2..=2");
    assert_eq!(said(&log.take(sent(1))), "accepted 2..=2");
    assert_eq!(said(&log.take(sent(3))), "accepted 3..=3");
    // The founding's leaves the memory, and then the first of the two.
    for most in [3, 2] {
        log.state.outcomes_mut().cool(most, 1);
        assert_eq!(said(&log.take(sent(3))), "accepted 3..=3");
    }
}

#[test]
fn a_reconcilers_outcome_is_not_kept() {
    let mut log = Log::founded();
    let mine = of(
        objects(2, vec![put(&map("a"), "1")]),
        Actor::Reconciler {
            name: "x".into(),
            term: 1,
        },
    );
    assert!(log.apply(vec![mine]).kept.is_empty());
    assert_eq!(log.state.outcome(id(2)), None);
}

#[test]
fn what_may_have_been_forgotten_is_refused() {
    let mut log = Log::founded();
    let many = |from: u128, count: u128| {
        (from..from + count)
            .map(|number| objects(number, vec![remove(&map("nothing"))]))
            .collect()
    };
    // The founding's outcome and these fill the books; the next pushes the oldest out.
    log.apply(many(1_000, Outcomes::MOST as u128 - 1));
    assert!(log.state.outcome(id(1)).is_some());
    let applied = log.apply(many(1_000_000, 2));
    assert_eq!(
        applied
            .forgotten
            .iter()
            .map(|forgotten| (forgotten.sequence, forgotten.index))
            .collect::<Vec<_>>(),
        [(1, 1), (2, 2)]
    );
    assert_eq!(log.state.outcome(id(1)), None);
    assert!(log.state.outcome(id(1_001)).is_some());
    let sent = |number, first_sent| Proposal {
        first_sent,
        ..objects(number, vec![put(&map("a"), "1")])
    };
    for (number, first_sent, want) in [
        (
            2_000_000,
            1,
            "first sent at index 1, before the oldest outcome kept",
        ),
        (2_000_001, 2, "accepted 2..=2"),
        (2_000_002, 3, "accepted 3..=3"),
    ] {
        assert_eq!(
            said(&log.take(sent(number, first_sent))),
            want,
            "first sent at {first_sent}"
        );
        // The books move on with each.
    }
    let old = of(
        sent(2_000_003, 0),
        Actor::Reconciler {
            name: "x".into(),
            term: 1,
        },
    );
    assert_eq!(
        said(&log.take(old)),
        "accepted 4..=4",
        "a reconciler's term is its fence"
    );
}

#[test]
fn stamps() {
    let a = map("a");
    let mut log = Log::founded();
    let mut seen = Vec::new();
    // (milliseconds later, change, revision, seconds since the start of creation and deletion, grace)
    for (number, (later_ms, change, revision, created_s, deletion)) in [
        (0, put(&a, "1"), 2, 0, None),
        (800, put(&a, "2"), 3, 0, None),
        (10_000, delete(&a, "2", 30), 4, 0, Some((41, 30))),
        (1_000, put(&a, "3"), 5, 0, Some((41, 30))),
        (1_000, delete(&a, "3", 60), 6, 0, Some((41, 30))),
        (1_000, delete(&a, "3", 5), 7, 0, Some((19, 5))),
        (1_000, delete(&a, "3", -7), 8, 0, Some((15, 0))),
        (1_000, delete(&a, "3", i64::MAX), 9, 0, Some((15, 0))),
    ]
    .into_iter()
    .enumerate()
    {
        log.clock = log.clock.plus_ms(later_ms);
        log.take(objects(10 + number as u128, vec![change]));
        let stamps = log.state.view().get(&a).unwrap().stamps;
        let since = |time: Time| (time.ms() - Time::from_s(START.s()).ms()) / 1000;
        let got = (
            stamps.revision,
            since(stamps.created),
            stamps
                .deletion
                .map(|deletion| (since(deletion.at), deletion.grace_s)),
        );
        assert_eq!(got, (revision, created_s, deletion), "step {number}");
        seen.push(stamps.uid);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "the uid carries on");
    // Without grace, and then with one: the first stays.
    let b = map("b");
    log.take(objects(40, vec![put(&b, "1")]));
    for (id, grace_s) in [(41, Deletion::WITHOUT_GRACE), (42, 0)] {
        log.take(objects(id, vec![delete(&b, "1", grace_s)]));
        let deleted = log.state.view().get(&b).unwrap().to_value();
        assert_eq!(
            deleted["metadata"]["deletionTimestamp"],
            deleted["metadata"]["creationTimestamp"]
        );
        assert!(deleted["metadata"]["deletionGracePeriodSeconds"].is_null());
    }
    // Gone and made again: another uid, another creation; also inside one proposal.
    log.take(objects(50, vec![remove(&a), put(&a, "4")]));
    let again = log.state.view().get(&a).unwrap().clone();
    assert_ne!(again.uid(), seen[0]);
    assert_eq!(
        (
            again.revision(),
            again.stamps.created,
            again.stamps.deletion
        ),
        (14, Time::from_s(log.clock.s()), None)
    );
    assert_eq!(
        std::str::from_utf8(&again.bytes).unwrap(),
        format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"a","namespace":"default","uid":"{}","resourceVersion":"14","creationTimestamp":"2026-11-21T08:46:16Z"}},"data":{{"value":"4"}}}}"#,
            again.uid()
        )
    );
}

#[test]
fn the_clock_never_goes_back() {
    let mut log = Log::founded();
    log.clock = log.clock.plus_ms(-5_000);
    let applied = log.apply(vec![objects(2, vec![put(&map("a"), "1")])]);
    assert_eq!(
        (log.state.view().clock, applied.events[0].0.envelope.time),
        (START, START)
    );
}

#[test]
fn an_envelope_says_who_why_and_what_was_before() {
    let (a, b) = (map("a"), map("b"));
    let mut log = Log::founded();
    log.take(objects(2, vec![put(&a, "1")]));
    let cause = Cause {
        revision: 2,
        round: 1,
    };
    let intent = Intent::Scale { from: 1, to: 2 };
    let asked = Proposal {
        cause,
        intent: intent.clone(),
        ..objects(3, vec![put(&a, "2"), put(&b, "1"), remove(&a)])
    };
    let applied = log.apply(vec![objects(2, vec![]), asked]);
    let event = &applied.events[0].0;
    let envelope = &event.envelope;
    assert_eq!(
        (envelope.first, envelope.last, envelope.slot, envelope.id),
        (3, 5, 1, id(3))
    );
    assert_eq!(
        (
            envelope.position,
            &envelope.actor,
            envelope.cause,
            &envelope.intent
        ),
        (Position { term: 1, index: 3 }, &user(), cause, &intent)
    );
    let Happened::Objects(records) = &envelope.happened else {
        panic!("{envelope:?}")
    };
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            (
                &record.key,
                record.revision,
                record.before,
                record.hash.is_some(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [(&a, 3, 2, true), (&b, 4, 0, true), (&a, 5, 3, false)]
    );
    for (folded, record) in event.objects.iter().zip(records) {
        assert_eq!(
            folded.before.as_ref().map_or(0, |before| before.revision()),
            record.before
        );
        assert_eq!(folded.after.as_ref().map(|after| after.hash), record.hash);
    }
    assert_ne!(records[0].hash, records[1].hash);
    assert_eq!(decode::<Envelope>(&applied.events[0].1).unwrap(), *envelope);
}

#[test]
fn a_level_too_high_is_seen_before_apply() {
    let log = Log::founded();
    let entry = |level| Entry {
        clock: START,
        proposals: vec![of(proposal(2, Act::RaiseLevel { level }), server())],
    };
    assert_eq!(log.state.can_apply(&entry(LEVEL)), Ok(()));
    assert_eq!(
        log.state.can_apply(&entry(LEVEL + 1)),
        Err(LevelTooHigh {
            level: LEVEL + 1,
            knows: LEVEL
        })
    );
}
