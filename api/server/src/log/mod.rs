//! The log as a plain map from keys to values, over gRPC: `reckon.log.v1.Log`, on the same port as everything else.
//!
//! For programs that want etcd's guarantees and no Kubernetes object around them, and for measuring what the log itself can do. It is no
//! way round anything: a Put is a proposal like any other, with its actor and its event, its value is covered by the chain, kept in
//! history and carried by backups. A value is an object of the hidden resource `~log`: the key is its name, the value's bytes are its
//! body behind the stamps, as they are and not as JSON. So it has no kind, is in no discovery and no list of the API, no reconciler
//! sees it, and `reckon restore` of a namespace or of everything leaves it as it is; a new cluster made from a backup has it.
//!
//! `service` is the gRPC shell, `errors` says no in gRPC's words. It must never answer a write before this server's own fold holds it.

mod errors;
mod service;
#[cfg(test)]
mod tests;

pub use service::{Log, PATH_PREFIX};

use eventstore::{Body, Key, Object};

/// The protocol: messages, the server of `reckon.log.v1.Log`, and a client.
#[allow(clippy::all)]
pub mod proto {
    tonic::include_proto!("reckon.log.v1");
}

/// Hidden from the API.
pub(crate) const RESOURCE: &str = "~log";
/// A key's bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// A value's bytes, as a request's body to the API may have.
pub const VALUE_BYTES_MAX: usize = crate::http::BODY_BYTES_MAX;

fn key(name: &str) -> Key {
    Key::new(RESOURCE, "", name)
}

/// All of it is the value: the key says the name, and the stamps go before.
fn body(value: bytes::Bytes) -> Body {
    Body {
        head: bytes::Bytes::new(),
        tail: value,
    }
}

fn value(object: &Object) -> bytes::Bytes {
    object.body().tail
}
