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
#[cfg(test)]
pub mod recorded;
pub mod reviews;
pub mod strategy;

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
    KINDS
        .iter()
        .copied()
        .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind that the store calls `resource`: `pods`, `apps/deployments`.
pub fn by_resource(resource: &str) -> Option<&'static Kind> {
    let (group, plural) = resource.rsplit_once('/').unwrap_or(("", resource));
    KINDS
        .iter()
        .copied()
        .find(|kind| kind.group == group && kind.plural == plural)
}

/// The kind of an object's `apiVersion` and `kind`.
pub fn by_kind(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    KINDS
        .iter()
        .copied()
        .find(|row| row.group == group && row.version == version && row.kind == kind)
}

/// The kind that a person names on the command line: plural, singular, a short name or the kind, in any case, with or
/// without its group (`deploy`, `deployments.apps`, `Pod`).
pub fn by_word(word: &str) -> Option<&'static Kind> {
    let word = word.to_lowercase();
    let (name, group) = word
        .split_once('.')
        .map_or((word.as_str(), None), |(name, group)| (name, Some(group)));
    KINDS.iter().copied().find(|kind| {
        let named =
            kind.plural == name || kind.singular == name || kind.short_names.contains(&name);
        let in_group = group.is_none_or(|group| {
            kind.group == group || format!("{}.{}", kind.version, kind.group) == group
        });
        named && in_group
    })
}

pub fn virtual_by_plural(group: &str, version: &str, plural: &str) -> Option<&'static VirtualKind> {
    VIRTUAL_KINDS
        .iter()
        .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// Whether anything is served under this group and version.
pub fn is_served(group: &str, version: &str) -> bool {
    KINDS
        .iter()
        .any(|kind| kind.group == group && kind.version == version)
        || VIRTUAL_KINDS
            .iter()
            .any(|kind| kind.group == group && kind.version == version)
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
        assert_eq!(
            by_word("deployments.apps").map(|kind| kind.kind),
            Some("Deployment")
        );
        assert_eq!(
            by_word("deployments.v1.apps").map(|kind| kind.kind),
            Some("Deployment")
        );
        assert!(by_word("deployments.batch").is_none());
        assert!(by_plural("apps", "v2", "deployments").is_none());
        assert!(!is_served("apps", "v2"));
    }

    #[test]
    fn each_row_prints_as_many_cells_as_it_has_columns() {
        for kind in KINDS {
            let object = serde_json::json!({"metadata": {"name": "a"}});
            assert_eq!(
                (kind.hooks.cells)(&object, 0).len(),
                kind.columns.len(),
                "{}",
                kind.kind
            );
        }
    }
}
