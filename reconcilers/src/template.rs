//! Pod templates: when two are the same, and the hash that names a version.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The label that keeps the ReplicaSets of one Deployment apart.
pub const HASH_LABEL: &str = "pod-template-hash";

/// SHA-256 of a template without its hash label: fields in the order of their names, nulls left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(template: &Value) -> Self {
        let mut hash = Sha256::new();
        write(&mut hash, template, &mut Vec::new());
        Self(hash.finalize().into())
    }

    /// The value of the hash label: a 32-bit number in letters that spell no words. `collisions` gives another for the same template.
    pub fn label(self, collisions: Option<i64>) -> String {
        let mut hash = Sha256::new().chain_update(self.0);
        if let Some(collisions) = collisions {
            hash.update(collisions.to_be_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        number
            .to_string()
            .bytes()
            .map(|digit| SAFE[digit as usize % SAFE.len()] as char)
            .collect()
    }
}

/// Letters and digits without vowels, and without what looks like one: generated names then hold no words.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five letters that derive from `parts`: the end of a generated name.
pub fn suffix(parts: &[&[u8]]) -> String {
    let digest = eventstore::Digest::of(parts).0;
    digest[..5]
        .iter()
        .map(|byte| SAFE[*byte as usize % SAFE.len()] as char)
        .collect()
}

/// Writes a value so that no two differing values are written alike. `path` is where we are.
fn write<'a>(hash: &mut Sha256, value: &'a Value, path: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> =
                map.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by_key(|(name, _)| *name);
            hash.update(b"{");
            for (name, value) in fields {
                if name == HASH_LABEL && path[..] == ["metadata", "labels"] {
                    continue;
                }
                hash.update((name.len() as u64).to_be_bytes());
                hash.update(name);
                path.push(name);
                write(hash, value, path);
                path.pop();
            }
            hash.update(b"}");
        }
        Value::Array(list) => {
            hash.update(b"[");
            hash.update((list.len() as u64).to_be_bytes());
            for value in list {
                path.push("");
                write(hash, value, path);
                path.pop();
            }
        }
        Value::String(text) => {
            hash.update(b"\"");
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        scalar => {
            let text = scalar.to_string();
            hash.update(b"#");
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
    }
}
