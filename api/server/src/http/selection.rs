//! Which objects a list or a watch is about: label and field selectors over stored bytes.
//!
//! Only what a selector asks for is parsed: names come from the key, labels from metadata alone, other fields from the whole.

use super::Query;
use super::call::Target;
use eventstore::Object;
use kinds::error::StatusError;
use kinds::kind::Kind;
use kinds::selector::{FieldSelector, LabelSelector};
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone)]
pub(crate) struct Selection {
    kind: &'static Kind,
    labels: LabelSelector,
    fields: FieldSelector,
    /// A field beyond the key is named.
    whole: bool,
}

impl Selection {
    pub fn read(query: &Query, target: &Target) -> Result<Self, StatusError> {
        let labels = LabelSelector::parse(query.text("labelSelector"))?;
        let mut fields = FieldSelector::parse(query.text("fieldSelector"))?;
        fields.check(target.kind)?;
        if !target.name.is_empty() {
            let own = FieldSelector::parse(&format!("metadata.name={}", target.name))?;
            fields.terms.extend(own.terms);
        }
        let whole = fields.terms.iter().any(|term| !in_key(&term.field));
        Ok(Self {
            kind: target.kind,
            labels,
            fields,
            whole,
        })
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name it is about, if it says so.
    pub fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// The one namespace it is about, if it says so.
    pub fn namespace(&self) -> Option<&str> {
        self.fields.exact("metadata.namespace")
    }

    pub fn matches(&self, object: &Object) -> bool {
        let value = if self.whole {
            object.to_value()
        } else {
            Value::Null
        };
        let field = |name: &str| match name {
            "metadata.name" => Some(object.key.name.to_string()),
            "metadata.namespace" => Some(object.key.namespace.to_string()),
            name => (self.kind.hooks.field)(&value, name),
        };
        if !self.fields.is_empty() && !self.fields.matches(field) {
            return false;
        }
        self.labels.is_empty() || self.labels.matches(labels(object).as_ref())
    }
}

fn in_key(field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
}

/// An object's labels, read past everything else.
fn labels(object: &Object) -> Option<Value> {
    #[derive(Deserialize)]
    struct Labelled {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        labels: Option<Value>,
    }
    serde_json::from_slice::<Labelled>(&object.bytes)
        .ok()?
        .metadata
        .labels
}
