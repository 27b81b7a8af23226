//! `discovery.k8s.io`: where services' pods are. (What the API itself has is told by `crate::discovery`.)

pub mod endpointslice;
