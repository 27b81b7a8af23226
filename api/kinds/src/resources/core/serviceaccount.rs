//! ServiceAccount: who a pod is to the API.

use crate::kind::{Hooks, Kind, Subresource};
use crate::resources::zero;
use crate::table::NAME_AND_AGE;

pub static KIND: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource::Token],
    schema: "io.k8s.api.core.v1.ServiceAccount",
    columns: NAME_AND_AGE,
    hooks: Hooks { default: zero::drop_zeros, ..Hooks::NONE },
    ..Kind::ROW
};
