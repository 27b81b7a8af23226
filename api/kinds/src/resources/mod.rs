//! The table of kinds: one row a kind, in its group's folder, and how rows are found.
//!
//! To add a kind: a file with `pub static KIND: Kind = Kind { …, ..Kind::ROW }`, its columns, the hooks where Kubernetes has
//! code, and one line in `KINDS`. Nothing else in the program names a kind.

pub mod apps;
pub mod checks;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod metadata;
pub mod names;
pub mod reviews;
pub mod strategy;
pub mod zero;

use crate::kind::{Kind, VirtualKind};

/// Every kind that is stored. `core/v1` first, then by group, in the order of `kubectl api-resources`.
pub static KINDS: &[&Kind] = &[
    &core::configmap::KIND,
    &core::event::KIND,
    &core::namespace::KIND,
    &core::node::KIND,
    &core::pod::KIND,
    &core::secret::KIND,
    &core::serviceaccount::KIND,
    &core::service::KIND,
    &apps::deployment::KIND,
    &apps::replicaset::KIND,
    &coordination::lease::KIND,
    &discovery::endpointslice::KIND,
];

/// Every kind that is answered and not stored.
pub static VIRTUAL_KINDS: &[VirtualKind] = reviews::KINDS;

/// The kind whose path is `/apis/<group>/<version>/…/<plural>`; `""` is the core group.
pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind that the store calls `resource`: `pods`, `apps/deployments`.
pub fn by_resource(resource: &str) -> Option<&'static Kind> {
    let (group, plural) = resource.rsplit_once('/').unwrap_or(("", resource));
    KINDS.iter().copied().find(|kind| kind.group == group && kind.plural == plural)
}

/// The kind of an object's `apiVersion` and `kind`.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    KINDS.iter().copied().find(|row| row.group == group && row.version == version && row.kind == kind)
}

/// The kind that a person names on the command line: plural, singular, a short name or the kind, in any case, with or
/// without its group (`deploy`, `deployments.apps`, `Pod`).
pub fn by_word(word: &str) -> Option<&'static Kind> {
    let word = word.to_lowercase();
    let (name, group) = word.split_once('.').map_or((word.as_str(), None), |(name, group)| (name, Some(group)));
    KINDS.iter().copied().find(|kind| {
        let named = kind.plural == name || kind.singular == name || kind.short_names.contains(&name);
        let in_group = group.is_none_or(|group| kind.group == group || format!("{}.{}", kind.version, kind.group) == group);
        named && in_group
    })
}

pub fn virtual_by_plural(group: &str, version: &str, plural: &str) -> Option<&'static VirtualKind> {
    VIRTUAL_KINDS.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// Whether anything is served under this group and version.
pub fn is_served(group: &str, version: &str) -> bool {
    KINDS.iter().any(|kind| kind.group == group && kind.version == version)
        || VIRTUAL_KINDS.iter().any(|kind| kind.group == group && kind.version == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_each_of_their_names() {
        for kind in KINDS {
            let found = [
                by_plural(kind.group, kind.version, kind.plural),
                by_resource(&kind.resource()),
                by_kind(&kind.api_version(), kind.kind),
                by_word(kind.plural),
                by_word(kind.kind),
            ];
            for row in found {
                assert_eq!(row.map(|row| row.resource()), Some(kind.resource()));
            }
            assert!(is_served(kind.group, kind.version));
            assert!(kind.schema.ends_with(kind.kind), "{}", kind.schema);
        }
        assert_eq!(by_word("deployments.apps").map(|kind| kind.kind), Some("Deployment"));
        assert_eq!(by_word("deployments.v1.apps").map(|kind| kind.kind), Some("Deployment"));
        assert!(by_word("deployments.batch").is_none());
        assert!(by_plural("apps", "v2", "deployments").is_none());
        assert!(!is_served("apps", "v2"));
    }

    #[test]
    fn each_row_prints_as_many_cells_as_it_has_columns() {
        for kind in KINDS {
            let object = serde_json::json!({"metadata": {"name": "a"}});
            assert_eq!((kind.hooks.cells)(&object, 0).len(), kind.columns.len(), "{}", kind.kind);
        }
    }
}

/// Recordings of a real kube-apiserver, beside the checkout of whoever has them.
#[cfg(test)]
pub mod recorded {
    use crate::error::FieldError;
    use crate::kind::Context;
    use serde_json::Value;
    use std::path::Path;

    /// What a test's request knows.
    pub fn context() -> Context {
        Context { now: "2026-01-02T03:04:05Z".to_owned(), user: "admin".to_owned(), suffix: "x7k2m".to_owned() }
    }

    /// Each finding as `path detail` must start like the expected one, in order.
    #[track_caller]
    pub fn messages(what: &str, found: Vec<FieldError>, expected: &[&str]) {
        let found: Vec<String> = found.into_iter().map(|error| format!("{} {}", error.path, error.detail)).collect();
        assert_eq!(found.len(), expected.len(), "{what}: {found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{what}: {found}\nexpected: {expected}");
        }
    }

    /// A document of `kube-reference`; None, with a message, where there is none.
    pub fn reference(path: &str) -> Option<Value> {
        read("kube-reference", path)
    }

    /// A scenario of `kube-exchanges`.
    pub fn exchanges(path: &str) -> Option<Value> {
        read("kube-exchanges/scenarios", path)
    }

    fn read(folder: &str, path: &str) -> Option<Value> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(folder).join(path);
        match std::fs::read(&file) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
            Err(error) => {
                eprintln!("skipped: {}: {error}", file.display());
                None
            }
        }
    }
}
