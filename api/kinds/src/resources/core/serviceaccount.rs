//! ServiceAccount: who a pod is to the API.

use crate::kind::{Kind, Subresource};
use crate::table::NAME_AND_AGE;

pub static KIND: Kind = Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    subresources: &[Subresource::Token],
    schema: "io.k8s.api.core.v1.ServiceAccount",
    columns: NAME_AND_AGE,
    returns_deleted: true,
    ..Kind::ROW
};
