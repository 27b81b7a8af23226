//! What is to be done about a server whose disk can't be gone on with: in the same words, whoever finds one.

use std::fmt::Display;

/// How it is made anew from the others; `server` is its name or its id.
pub fn how_to_rebuild(server: impl Display) -> String {
    format!(
        "send it away with 'reckon member remove {server}', add it under a new id with 'reckon member add NAME HOST:PORT', and start it \
         with an empty directory as that says"
    )
}
