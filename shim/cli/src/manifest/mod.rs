//! Kubernetes Pod manifests: read with the place of every mistake, then mapped to the CRI.

mod container;
pub(crate) mod convert;
mod expand;
mod fields;
pub(crate) mod host;
pub(crate) mod model;
mod names;
mod pod;
mod quantity;
mod refused;
mod report;
mod resources;
mod security;
mod tree;
mod validate;
mod volume;

pub(crate) use model::Pod;
pub(crate) use report::Mistake;
pub(crate) use validate::load;
