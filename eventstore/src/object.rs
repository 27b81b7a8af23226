//! An object as it is served: one copy of its bytes, shared by reads, lists, watches, agents and the reconcilers' world.

use crate::{Body, Digest, Key, Salt, Time};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// What the stamps of an object that is not being deleted fit into.
const STAMPS_BYTES: usize = 160;

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: Key,
    pub stamps: Stamps,
    /// head ‖ stamps ‖ tail: the whole JSON.
    pub bytes: Bytes,
    /// Where the stamps begin and end in `bytes`.
    pub cut: (u32, u32),
    pub salt: Salt,
    /// SHA-256(salt ‖ head ‖ tail): what the chain covers.
    pub hash: Digest,
}

/// What apply writes into an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    pub uid: Uuid,
    /// `resourceVersion`.
    pub revision: u64,
    pub created: Time,
    pub deletion: Option<Deletion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// `deletionTimestamp`: when the grace ends.
    pub at: Time,
    /// `deletionGracePeriodSeconds`; `WITHOUT_GRACE`: the object has no such field.
    pub grace_s: i64,
}

impl Deletion {
    /// What is being deleted and knows no grace: a namespace, which goes when nothing is left in it.
    pub const WITHOUT_GRACE: i64 = -1;
}

impl Object {
    /// Puts the stamps into a body.
    pub fn stamp(key: Key, body: &Body, stamps: Stamps, salt: Salt) -> Self {
        let stamped = stamps.to_json();
        let mut bytes = Vec::with_capacity(body.len() + stamped.len());
        bytes.extend_from_slice(&body.head);
        bytes.extend_from_slice(stamped.as_bytes());
        bytes.extend_from_slice(&body.tail);
        let begin = body.head.len() as u32;
        Self {
            key,
            stamps,
            bytes: bytes.into(),
            cut: (begin, begin + stamped.len() as u32),
            salt,
            hash: Digest::of_body(salt, body),
        }
    }

    pub fn revision(&self) -> u64 {
        self.stamps.revision
    }

    pub fn uid(&self) -> Uuid {
        self.stamps.uid
    }

    pub fn living(&self) -> bool {
        self.stamps.deletion.is_none()
    }

    /// The body without stamps, sharing the bytes.
    pub fn body(&self) -> Body {
        Body {
            head: self.bytes.slice(..self.cut.0 as usize),
            tail: self.bytes.slice(self.cut.1 as usize..),
        }
    }

    /// The same version with another revision: what a watch shows of an object that went, at the revision of its going.
    #[must_use]
    pub fn at_revision(&self, revision: u64) -> Self {
        Self::stamp(
            self.key.clone(),
            &self.body(),
            Stamps {
                revision,
                ..self.stamps
            },
            self.salt,
        )
    }

    /// The object as JSON. Bytes that apply accepted are JSON: their writer made them with `Body::cut`; null for a value of the plain log,
    /// which is whatever it is.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes).unwrap_or(serde_json::Value::Null)
    }
}

impl Stamps {
    /// `,"uid":"…","resourceVersion":"…","creationTimestamp":"…"`, and the deletion's one or two when there is one.
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(STAMPS_BYTES);
        // Writing into a string does not fail.
        let _ = self.write_json(&mut json);
        json
    }

    fn write_json(&self, json: &mut String) -> fmt::Result {
        let mut uid = [0; Hyphenated::LENGTH];
        json.push_str(r#","uid":""#);
        json.push_str(self.uid.as_hyphenated().encode_lower(&mut uid));
        json.push_str(r#"","resourceVersion":""#);
        write!(json, "{}", self.revision)?;
        json.push_str(r#"","creationTimestamp":""#);
        write!(json, "{}", self.created)?;
        json.push('"');
        if let Some(deletion) = self.deletion {
            write!(json, r#","deletionTimestamp":"{}""#, deletion.at)?;
            if deletion.grace_s != Deletion::WITHOUT_GRACE {
                write!(
                    json,
                    r#","deletionGracePeriodSeconds":{}"#,
                    deletion.grace_s
                )?;
            }
        }
        Ok(())
    }
}
