//! Lease: who has the turn, and until when. Read and written by leader elections and by kubelets' heartbeats.

use crate::error::FieldError;
use crate::kind::{Column, Hooks, Kind, Nature};
use crate::resources::checks::{Findings, POSITIVE, text};
use crate::table::{AGE, NAME, age, column, name};
use serde_json::{Value, json};

pub static KIND: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    nature: Nature::Observed,
    schema: "io.k8s.api.coordination.v1.Lease",
    columns: COLUMNS,
    put_creates: true,
    // An election is decided by who saw the last version.
    unconditional_update: false,
    hooks: Hooks {
        validate,
        cells,
        ..Hooks::NONE
    },
    ..Kind::ROW
};

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Holder",
        "string",
        0,
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
    ),
    AGE,
];

fn cells(object: &Value, now_ms: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["spec"]["holderIdentity"])),
        age(object, now_ms),
    ]
}

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let mut found = Findings::new();
    if spec["leaseDurationSeconds"]
        .as_i64()
        .is_some_and(|seconds| seconds <= 0)
    {
        found.invalid(
            "spec.leaseDurationSeconds",
            spec["leaseDurationSeconds"].clone(),
            POSITIVE,
        );
    }
    found.not_negative("spec.leaseTransitions", &spec["leaseTransitions"]);
    if !spec["preferredHolder"].is_null() && text(&spec["strategy"]).is_empty() {
        found.forbidden(
            "spec.preferredHolder",
            "may only be specified when `strategy` is defined",
        );
    }
    found.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::recorded::messages;

    #[test]
    fn validation() {
        let rows: &[(&str, Value, &[&str])] = &[
            ("nothing said", json!({"spec": {}}), &[]),
            (
                "no time",
                json!({"spec": {"leaseDurationSeconds": 0}}),
                &["spec.leaseDurationSeconds must be greater than 0"],
            ),
            (
                "turned back",
                json!({"spec": {"leaseTransitions": -1}}),
                &["spec.leaseTransitions must be greater than or equal to 0"],
            ),
            (
                "preferred by nobody",
                json!({"spec": {"preferredHolder": "a"}}),
                &["spec.preferredHolder may only"],
            ),
        ];
        for (what, lease, expected) in rows {
            messages(what, validate(lease), expected);
        }
    }
}
