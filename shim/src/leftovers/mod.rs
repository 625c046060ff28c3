//! What of ours stands on the host and belongs to no record.
//!
//! Looking changes nothing and needs no daemon: records are directories with names.
//! Pods come and go meanwhile, so what is known counts from before and after.

mod known;
mod look;
mod processes;
mod report;

pub(crate) use look::{Places, look};
pub(crate) use report::{Kind, Leftover, Report};
