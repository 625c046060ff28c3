//! What the daemon remembers on disk: one directory a pod, one a container in it.

mod frame;
mod store;

pub(crate) use store::{Loaded, StateStore};
