//! History on disk, watches, reads of the past.
