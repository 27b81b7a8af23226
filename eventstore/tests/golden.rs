//! Format 1, byte for byte: what is in a log, a history or a snapshot must be readable for ever.
//!
//! One file a type, one line a value: its name, a space, its bytes. `RECKON_REWRITE_GOLDEN=1` writes them; read the diff: a changed
//! line is a broken format, which wants a new number and not a new golden file. A new line is a new variant, at the end of its enum.

#![allow(
    clippy::unwrap_used,
    reason = "tests, whose helpers clippy does not know for such"
)]

mod language;

use eventstore::*;
use language::*;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::{Debug, Write};
use uuid::Uuid;

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, values: Vec<(&str, T)>) {
    let path = format!(
        "{}/tests/golden/{file}-{}",
        env!("CARGO_MANIFEST_DIR"),
        codec_format()
    );
    let mut lines = String::new();
    for (name, value) in &values {
        lines.push_str(name);
        lines.push(' ');
        for byte in encode(value) {
            write!(lines, "{byte:02x}").unwrap();
        }
        lines.push('\n');
    }
    if std::env::var_os("RECKON_REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, &lines).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(lines, golden, "{path}");
    for ((name, value), line) in values.iter().zip(golden.lines()) {
        let hex = line.split_once(' ').unwrap().1;
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(decode::<T>(&bytes).unwrap(), *value, "{name}");
    }
}

/// The format's number, as the second byte of all that is written.
fn codec_format() -> u8 {
    encode(&())[1]
}

fn acts() -> Vec<(&'static str, Act)> {
    let a = map("a");
    let round = Round {
        world: 7,
        clock: START,
        decided: vec![("deployment".into(), a.clone())],
        logic: 3,
    };
    vec![
        (
            "found",
            Act::Found {
                cluster: CLUSTER,
                level: 1,
            },
        ),
        (
            "objects",
            Act::Objects(vec![put(&a, "1"), delete(&a, "2", 30), remove(&a)]),
        ),
        ("round", Act::Round(round)),
        (
            "open-session",
            Act::OpenSession {
                node: "n1".into(),
                server: "server-1".into(),
            },
        ),
        (
            "lose-session",
            Act::LoseSession {
                node: "n1".into(),
                epoch: 300,
            },
        ),
        ("raise-level", Act::RaiseLevel { level: 2 }),
        ("prune", Act::Prune(horizons())),
        (
            "hold",
            Act::Hold {
                name: "audit".into(),
                revision: 300,
            },
        ),
        (
            "release",
            Act::Release {
                name: "audit".into(),
            },
        ),
        (
            "restored",
            Act::Restored {
                cluster: Uuid::from_u128(7),
                gap: 1_000_000,
                at: 300,
            },
        ),
    ]
}

fn horizons() -> Horizons {
    Horizons {
        all: 300,
        resources: vec![("events".into(), 70_000)],
    }
}

fn actors() -> Vec<(&'static str, Actor)> {
    let impersonated = Actor::User {
        user: "bob".into(),
        groups: vec![],
        impersonator: Some("ann".into()),
        client: "helm".into(),
        address: "[::1]:1".into(),
    };
    vec![
        ("by-user", user()),
        ("by-impersonator", impersonated),
        (
            "by-reconciler",
            Actor::Reconciler {
                name: "scheduler".into(),
                term: 70_000,
            },
        ),
        (
            "by-agent",
            Actor::Agent {
                node: "n1".into(),
                epoch: 9,
            },
        ),
        ("by-server", server()),
    ]
}

fn intents() -> Vec<(&'static str, Intent)> {
    vec![
        ("to-create", Intent::Create),
        ("to-update", Intent::Update),
        (
            "to-patch",
            Intent::Patch {
                kind: "merge".into(),
            },
        ),
        (
            "to-apply",
            Intent::Apply {
                manager: "kubectl".into(),
                force: true,
            },
        ),
        (
            "to-delete",
            Intent::Delete {
                grace_s: Some(30),
                propagation: "Background".into(),
            },
        ),
        ("to-delete-collection", Intent::DeleteCollection),
        ("to-status", Intent::Status),
        ("to-scale", Intent::Scale { from: 3, to: 10 }),
        (
            "to-bind",
            Intent::Bind {
                node: "n1".into(),
                reason: "most room".into(),
            },
        ),
        (
            "to-evict",
            Intent::Evict {
                reason: "taint".into(),
            },
        ),
        (
            "to-taint",
            Intent::Taint {
                reason: "session lost".into(),
            },
        ),
        (
            "to-collect",
            Intent::Collect {
                owner: "apps/deployments/default/web".into(),
            },
        ),
        (
            "to-remove",
            Intent::Remove {
                reason: "finalized".into(),
            },
        ),
        (
            "to-reconcile",
            Intent::Reconcile {
                what: "roll out revision 3".into(),
            },
        ),
        ("to-session", Intent::Session),
        ("to-round", Intent::Round),
        ("to-found", Intent::Found),
        ("to-prune", Intent::Prune),
        ("to-hold", Intent::Hold),
        ("to-release", Intent::Release),
        ("to-restore", Intent::Restore { at: 300 }),
    ]
}

fn expected() -> [(&'static str, Expected); 4] {
    [
        ("absent", Expected::Absent),
        ("revision", Expected::Revision(300)),
        ("uid", Expected::Uid(CLUSTER)),
        ("living", Expected::Living),
    ]
}

fn proposals() -> Vec<(&'static str, Proposal)> {
    let nothing = || proposal(2, Act::Objects(vec![]));
    let mut all = Vec::new();
    all.extend(
        acts()
            .into_iter()
            .map(|(name, act)| (name, Proposal { act, ..nothing() })),
    );
    all.extend(
        actors()
            .into_iter()
            .map(|(name, actor)| (name, Proposal { actor, ..nothing() })),
    );
    all.extend(intents().into_iter().map(|(name, intent)| {
        (
            name,
            Proposal {
                intent,
                ..nothing()
            },
        )
    }));
    all.extend(expected().map(|(name, is)| (name, expecting(nothing(), &map("a"), is))));
    let cause = Cause {
        revision: 7,
        round: 6,
    };
    all.push((
        "caused",
        Proposal {
            cause,
            first_sent: 70_000,
            id: ProposalId {
                attempt: 3,
                ..id(2)
            },
            ..nothing()
        },
    ));
    all
}

fn envelopes() -> Vec<(&'static str, Envelope)> {
    let mut log = Log::founded();
    log.take(of(
        proposal(
            90,
            Act::OpenSession {
                node: "n1".into(),
                server: "server-1".into(),
            },
        ),
        server(),
    ));
    let lost = Act::LoseSession {
        node: "n1".into(),
        epoch: 2,
    };
    let objects = acts().remove(1).1;
    let round = acts().remove(2).1;
    let mut envelopes = Vec::new();
    let mut fresh = Log {
        state: State::default(),
        term: 1,
        clock: START,
    };
    envelopes.push((
        "founded",
        fresh.apply(vec![found()]).events[0].0.envelope.clone(),
    ));
    for (number, (name, act)) in [
        ("objects", objects),
        ("round", round),
        ("session-lost", lost),
        ("session-opened", acts().remove(3).1),
    ]
    .into_iter()
    .enumerate()
    {
        let applied = log.apply(vec![proposal(100 + number as u128, act)]);
        envelopes.push((name, applied.events[0].0.envelope.clone()));
    }
    for (name, happened) in [
        ("level-raised", Happened::LevelRaised { level: 2 }),
        ("pruned", Happened::Pruned(horizons())),
        (
            "held",
            Happened::Held {
                name: "audit".into(),
                revision: 300,
            },
        ),
        (
            "released",
            Happened::Released {
                name: "audit".into(),
                revision: 300,
            },
        ),
        (
            "restored",
            Happened::Restored {
                before: Uuid::from_u128(7),
                digest: Digest([7; 32]),
                cluster: Uuid::from_u128(8),
                gap: 1_000_000,
                at: 300,
            },
        ),
    ] {
        let envelope = envelopes[0].1.clone();
        envelopes.push((
            name,
            Envelope {
                happened,
                ..envelope
            },
        ));
    }
    envelopes
}

fn kept() -> Vec<(&'static str, Kept)> {
    let a = map("a");
    let rejections = [
        (
            "expectation",
            Rejection::Expectation {
                key: a.clone(),
                expected: Expected::Revision(7),
                current: Some(8),
            },
        ),
        (
            "expectation-absent",
            Rejection::Expectation {
                key: a,
                expected: Expected::Living,
                current: None,
            },
        ),
        ("too-old", Rejection::TooOld { first_sent: 7 }),
        (
            "other-term",
            Rejection::OtherTerm {
                decided: 1,
                applied: 2,
            },
        ),
        (
            "fenced",
            Rejection::Fenced {
                node: "n1".into(),
                epoch: 7,
            },
        ),
        (
            "not-now",
            Rejection::NotNow("the cluster is founded already".into()),
        ),
    ];
    let keep = |outcome| Kept {
        sequence: 70_000,
        index: 300,
        id: id(7),
        outcome,
    };
    let mut kept = vec![("accepted", keep(Outcome::Accepted { first: 7, last: 9 }))];
    kept.extend(
        rejections.map(|(name, rejection)| (name, keep(Outcome::Rejected(Box::new(rejection))))),
    );
    kept
}

#[test]
fn proposal_format() {
    check("proposal", proposals());
}

#[test]
fn entry_format() {
    let entry = Entry {
        clock: START,
        proposals: proposals()
            .into_iter()
            .take(2)
            .map(|(_, proposal)| proposal)
            .collect(),
    };
    // As the leader makes it, of proposals that came encoded.
    let encoded: Vec<Vec<u8>> = entry.proposals.iter().map(encode).collect();
    assert_eq!(Entry::join(START, &encoded), encode(&entry));
    check(
        "entry",
        vec![
            (
                "empty",
                Entry {
                    clock: Time::from_ms(-1),
                    proposals: vec![],
                },
            ),
            ("two", entry),
        ],
    );
}

#[test]
fn envelope_format() {
    check("envelope", envelopes());
}

#[test]
fn kept_format() {
    check("kept", kept());
}

/// What the chain and the salts give, computed by another program: another result, and no history verifies any more.
#[test]
fn digests() {
    let body = body(&map("a"), "1");
    let salt = Salt([7; 16]).of_change(2);
    for (what, digest, want) in [
        (
            "chain",
            Digest::default().chain(b"envelope"),
            "8666eaed13780111",
        ),
        ("body", Digest::of_body(salt, &body), "4345a73d05fd3c8d"),
        ("parts", Digest::of(&[b"ab", b"c"]), "601d5476e2ccfe2c"),
    ] {
        assert_eq!(&digest.to_string()[..16], want, "{what}");
    }
    assert_ne!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"a", b"bc"]));
}

#[test]
fn what_is_not_ours_is_an_error() {
    let good = encode(&id(7));
    let mut longer = good.clone();
    longer.push(0);
    let mut newer = good.clone();
    newer[1] = 2;
    for (bytes, want) in [
        (&b""[..], "empty"),
        (&[0xd7], "empty"),
        (b"{}", "not written by this program: first byte 0x7b"),
        (
            &newer,
            "format 2 is newer than this program knows (1): upgrade this server",
        ),
        (&longer, "1 bytes follow the end"),
    ] {
        assert_eq!(decode::<ProposalId>(bytes).unwrap_err().to_string(), want);
    }
    assert!(matches!(
        decode::<ProposalId>(&good[..good.len() - 1]),
        Err(CodecError::Decode(_))
    ));
    // A length that claims more than the limit is refused before anything is set aside for it.
    let claims = [&good[..2], &[253, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]].concat();
    assert!(matches!(
        decode::<Vec<u8>>(&claims),
        Err(CodecError::Decode(_))
    ));
}
