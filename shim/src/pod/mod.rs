//! Pods and containers: what they are, and everything that is done to them.
//!
//! One file an operation; `runtime` holds what all of them need.

mod changes;
mod container;
mod create;
mod events;
mod exec;
mod feed;
mod host;
mod ids;
mod index;
mod lifecycle;
mod limits;
mod log;
mod operations;
#[allow(clippy::module_inception)]
mod pod;
mod recorded;
mod recover;
mod run;
mod runtime;
mod stats;
mod stop;
mod users;
mod view;
mod volumes;

pub(crate) use container::Container;
pub(crate) use create::CreateRequest;
pub(crate) use feed::{Change, Event};
pub(crate) use ids::now_ns;
pub(crate) use pod::Pod;
pub(crate) use recover::Decode;
pub(crate) use run::RunRequest;
pub(crate) use runtime::{Parts, Runtime};
pub(crate) use stats::ContainerUsage;
pub(crate) use view::{ContainerView, PodView};
