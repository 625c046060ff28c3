//! Pods and containers: what they are, and everything that is done to them.
//!
//! One file an operation; `runtime` holds what all of them need.

mod cgroups;
mod changes;
mod container;
mod create;
mod details;
mod devices;
mod events;
mod exec;
mod feed;
mod host;
mod ids;
mod image_volumes;
mod index;
mod lifecycle;
mod limits;
mod log;
mod oci;
mod oom;
mod operations;
mod place;
#[allow(clippy::module_inception)]
mod pod;
mod processes;
mod quarantine;
mod reconcile;
mod recorded;
mod recover;
mod resources;
mod run;
mod runtime;
mod stats;
mod stop;
mod sweep;
mod traffic;
mod update;
mod users;
mod view;
mod volumes;

pub(crate) use container::Container;
#[cfg(test)]
pub(crate) use container::Status;
pub(crate) use create::CreateRequest;
#[cfg(test)]
pub(crate) use details::Disk;
pub(crate) use details::{ContainerDetails, PodDetails, device_name};
pub(crate) use feed::{Change, Event};
pub(crate) use ids::now_ns;
pub(crate) use place::{CgroupDriver, Places};
pub(crate) use pod::Pod;
#[cfg(test)]
pub(crate) use processes::Processes;
pub(crate) use recorded::blocking;
pub(crate) use recover::Decode;
pub(crate) use run::RunRequest;
pub(crate) use runtime::{Parts, Runtime};
pub(crate) use stats::{ContainerUsage, PodUsage, Usage};
pub(crate) use traffic::Interface;
pub(crate) use view::{ContainerView, PodView};
