//! Plans as rows.
