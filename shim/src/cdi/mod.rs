//! Devices of the Container Device Interface: the specification files of this node.

mod directory;

pub(crate) use directory::Cdi;
