//! Keys: which object. Ordered by resource, then namespace, then name, as lists are.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A short string: up to 23 bytes lie in place, so that most keys are compared and copied without a look elsewhere; a longer one is
/// shared, and cloning it copies a pointer.
pub type Text = smol_str::SmolStr;

/// (resource, namespace, name). A resource is group + plural, `apps/deployments`, or the plural alone for the core group.
/// What is cluster-wide has the namespace `""`. A resource that begins with `~` is hidden from the API: claims.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub resource: Text,
    pub namespace: Text,
    pub name: Text,
}

impl Key {
    pub fn new(
        resource: impl Into<Text>,
        namespace: impl Into<Text>,
        name: impl Into<Text>,
    ) -> Self {
        Self {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub fn namespace_object(name: impl Into<Text>) -> Self {
        Self::new("namespaces", "", name)
    }

    pub fn hidden(&self) -> bool {
        self.resource.starts_with('~')
    }

    /// A resource and a name, and no NUL in any of the three.
    pub fn well_formed(&self) -> bool {
        let texts = [&self.resource, &self.namespace, &self.name];
        !self.resource.is_empty()
            && !self.name.is_empty()
            && !texts.iter().any(|text| text.as_bytes().contains(&0))
    }

    /// resource NUL namespace NUL name: sorts as the key does, for none of the three can hold a NUL.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            Vec::with_capacity(self.resource.len() + self.namespace.len() + self.name.len() + 2);
        bytes.extend_from_slice(self.resource.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.namespace.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.splitn(3, '\0');
        Some(Self::new(parts.next()?, parts.next()?, parts.next()?))
    }
}

/// `apps/deployments/default/web`, `nodes/n1`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.resource, self.name)
        } else {
            write!(f, "{}/{}/{}", self.resource, self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_sort_as_keys_do() {
        let keys = [
            Key::new("apps/deployments", "a", "z"),
            Key::new("apps/deployments", "a-b", "a"),
            Key::new("apps/deployments", "ab", "a"),
            Key::new("nodes", "", "n1"),
            Key::new("nodes", "", "n1.x"),
            Key::new("pods", "a", "a"),
        ];
        for (left, right) in keys.iter().zip(&keys[1..]) {
            assert!(
                left < right && left.to_bytes() < right.to_bytes(),
                "{left} {right}"
            );
        }
        for key in keys {
            assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
        }
    }
}
