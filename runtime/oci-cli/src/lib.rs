//! Drives a low-level runtime (runc, or another one with its command line): what
//! `carpel-native` does by itself, by executing a program.
//!
//! [`create`], [`start`] and [`exec`] run in a *worker*: a single-threaded process
//! forked for this one job. It moves into a private copy of the daemon's mount
//! namespace and puts the bundle together there, so that no mount and no file of it
//! is ever seen outside, and nothing is left when the worker is gone. What the
//! runtime starts becomes the holder's child when worker and runtime have ended.
//!
//! [`Runtime::delete`] and [`Runtime::features`] need no such place.

mod bundle;
mod cgroups;
mod command;
mod config;
mod create;
mod error;
mod exec;
mod features;
mod oom;
mod runtime;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

pub use create::{CreatedProcess, create, start};
pub use error::Error;
pub use exec::exec;
pub use features::Features;
pub use runtime::{Runtime, containers};

/// A runtime, and where a worker may put a bundle together for it.
#[derive(Debug)]
pub struct Place {
    pub runtime: Runtime,
    /// The mount namespace in which all paths are meant.
    pub mount_namespace: OwnedFd,
    /// A directory there that is covered, for the worker alone, by the bundle.
    pub directory: PathBuf,
}

/// What a container is made of. The spec says how; the descriptors are what.
#[derive(Debug)]
pub struct Create {
    pub place: Place,
    pub id: String,
    /// With the seccomp profile in it. Its cgroup has been made and limited already.
    pub spec: Spec,
    /// Detached mount that becomes `/`.
    pub rootfs: OwnedFd,
    /// Detached mounts for `spec.mounts[i]`, flags and propagation already set. A
    /// bind mount without one is of a path in the worker's own tree.
    pub mounts: Vec<(usize, OwnedFd)>,
    pub stdio: Stdio,
    pub oom_score_adj: Option<i32>,
}

/// A process to run beside a container's first one.
#[derive(Debug)]
pub struct Exec {
    pub place: Place,
    pub id: String,
    /// The container's first process, as the host counts.
    pub init: i32,
    pub process: Process,
    pub stdio: Stdio,
    /// Below the container's cgroup, as `--cgroup` takes it; empty: the container's.
    pub cgroup: String,
}

#[derive(Debug)]
pub struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}
