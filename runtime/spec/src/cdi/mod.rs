//! The Container Device Interface: what an operator's specification files add to a
//! container that asks for a device by name. Pure: files are read elsewhere.

mod catalogue;
mod edits;
mod model;
mod name;

pub use catalogue::{Catalogue, Found};
pub use edits::{Injection, MountEdit, NodeEdit};
pub use model::Specification;
