//! From CRI intent, image and host facts to an OCI runtime configuration.
//!
//! Everything here is pure: no file is opened, no clock read.

pub mod capability;
pub mod cdi;
mod devices;
mod error;
pub mod intent;
mod mounts;
mod namespaces;
mod plan;
mod process;
mod resources;
mod signal;
pub mod users;
pub mod validate;
mod volumes;

pub use devices::{DeviceKind, DeviceNode};
pub use error::Error;
pub use mounts::{GeneratedFile, MountSource};
pub use plan::{CgroupVersion, ContainerPlan, HostFacts, Input, container_spec};
pub use process::exec_process;
pub use resources::linux_resources;
pub use signal::{parse_signal, stop_signal};
pub use volumes::{ImageVolume, image_volumes};
