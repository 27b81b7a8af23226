//! Consensus as a service: openraft behind a facade.
