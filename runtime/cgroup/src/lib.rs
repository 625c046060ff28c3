//! cgroups, v1 and v2: create, limit, kill, statistics.
//!
//! A path is always below the root of the hierarchies. Under v1 a group is made only
//! in those hierarchies that carry a limit or a statistic we report: attaching to
//! each costs about a millisecond on an idle host.

mod change;
mod devices;
mod error;
mod files;
mod group;
mod hierarchies;
mod join;
mod limits;
mod oom;
mod plan;
mod stats;

pub use devices::{DeviceKind, DeviceRule};
pub use error::Error;
pub use group::Cgroup;
pub use hierarchies::{Hierarchies, Use, Version};
pub use limits::Limits;
pub use stats::{
    Cpu, DeviceIo, Faults, Hugepages, Memory, Pids, Pressure, Stall, Stats, Swap, Throttling,
};
