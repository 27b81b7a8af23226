//! `nodeSelector` and required node affinity.

use crate::world::{NodeTerm, Pod, Thing};

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

pub fn filter(node: &Thing, pod: &Pod) -> Option<String> {
    let selected = pod
        .node_selector
        .iter()
        .all(|(name, value)| node.meta.labels.get(name) == Some(value));
    let required = pod
        .required_terms
        .as_ref()
        .is_none_or(|terms| terms.iter().any(|term| term_holds(term, node)));
    (!selected || !required).then(|| REASON.to_owned())
}

/// All requirements of a term hold; a term without any holds of no node.
pub fn term_holds(term: &NodeTerm, node: &Thing) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    term.match_expressions
        .iter()
        .all(|requirement| requirement.holds(node.meta.labels.get(&requirement.key)))
        && term.match_fields.iter().all(|requirement| {
            let field = (&*requirement.key == "metadata.name").then_some(&node.object.key.name);
            requirement.holds(field)
        })
}
