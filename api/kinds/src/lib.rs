//! What each kind is, as data, and the engine that reads it. Pure: JSON values in, JSON values out.
//!
//! `resources/` is the table of kinds, a file a group: names, scope, columns, hooks where Kubernetes has code.
//! `schema/` reads the kinds' schemas: types, unknown fields, defaults, list types, merge keys, OpenAPI documents.
//! `patch/` has the patches, `table/` what `kubectl get` prints, `discovery/` what there is.
//! A built-in kind is a custom resource that we ship: nothing outside `resources/` may name a kind.
//! This crate must never read a store, a clock or randomness: what it needs of them comes in `Context`.

pub mod discovery;
pub mod error;
pub mod kind;
pub mod patch;
pub mod quantity;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod table;
