//! One server: the Kubernetes API over the event store, and the leader's loop.
