//! What a node needs, what it has, and what to do about the difference.
//!
//! `gather` looks; `checks` judges what was seen and touches nothing.

mod checks;
mod facts;
mod gather;
mod line;

pub(crate) use checks::judge;
pub(crate) use gather::gather;
pub(crate) use line::{Level, Line};
