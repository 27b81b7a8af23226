//! The chain: each event carries the digest of the one before, and covers each body by a salted hash of its own.
//!
//! digest(n) = SHA-256(digest(n-1) ‖ envelope(n)). The envelope holds, for each change, SHA-256(salt ‖ head ‖ tail) and not the
//! body, so a body may be pruned, or destroyed for good with its salt, and the chain still verifies.

use crate::Body;
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The next link: `self` is the digest before, `envelope` the event's encoded envelope.
    #[must_use]
    pub fn chain(self, envelope: &[u8]) -> Self {
        Self(sha256(&[&self.0, envelope]))
    }

    pub fn of_body(salt: Salt, body: &Body) -> Self {
        Self(sha256(&[&salt.0, &body.head, &body.tail]))
    }

    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in parts {
            // The length first, so that no two lists of parts hash alike.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(end(hash))
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    parts.iter().for_each(|part| hash.update(part));
    end(hash)
}

fn end(hash: Context) -> [u8; 32] {
    let hash = hash.finish();
    hash.as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes, whoever computes it")
}

/// Sixteen bytes of a proposal's own randomness, laid beside each of its bodies.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salt(pub [u8; 16]);

impl Salt {
    /// The salt of a proposal's change number `index`, so that one body's salt tells nothing of another's.
    #[must_use]
    pub fn of_change(self, index: u32) -> Self {
        let mut salt = [0; 16];
        salt.copy_from_slice(&Digest::of(&[&self.0, &index.to_be_bytes()]).0[..16]);
        Self(salt)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}
