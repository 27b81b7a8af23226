//! The kinds' schemas.
