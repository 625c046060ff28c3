//! Executes an OCI runtime configuration on descriptors.
//!
//! Both entry points run in a *worker*: a process forked from the single-threaded
//! holder for this one job, which exits right after. The container's first process
//! is cloned here and becomes the holder's child when the worker is gone.

mod cgroup;
mod create;
mod devices;
mod error;
mod exec;
mod hide;
mod identity;
mod mounts;
mod namespaces;
mod options;
mod passwd;
mod procfs;
mod program;
mod report;
mod rootfs;
mod stage;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{Process, Spec};

pub use create::{CreatedProcess, create};
pub use error::Error;
pub use exec::exec;

/// What a container is made of. The spec says how; the descriptors are what.
#[derive(Debug)]
pub struct Create {
    pub spec: Spec,
    /// Detached mount that becomes `/`.
    pub rootfs: OwnedFd,
    /// Detached mounts for `spec.mounts[i]`, flags and propagation already set.
    pub mounts: Vec<(usize, OwnedFd)>,
    pub stdio: Stdio,
    /// Compiled classic BPF program (array of `struct sock_filter`).
    pub seccomp: Option<Vec<u8>>,
    pub cgroup: Cgroup,
    /// Read end: one byte lets the container's program start, end of file ends it.
    pub start: OwnedFd,
    /// Write end, close-on-exec: end of file without data means that the program
    /// runs; otherwise the encoded [`Error`] of the failed start.
    pub outcome: OwnedFd,
    pub oom_score_adj: Option<i32>,
}

/// A process to run beside a container's first one.
#[derive(Debug)]
pub struct Exec<'a> {
    /// pidfd of the container's first process; its namespaces and root are joined.
    pub init: BorrowedFd<'a>,
    pub process: Process,
    pub stdio: Stdio,
    pub seccomp: Option<Vec<u8>>,
    pub cgroup: Cgroup,
}

#[derive(Debug)]
pub struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Where a new process is placed before it runs anything.
#[derive(Debug, Default)]
pub struct Cgroup {
    /// `cgroup.procs` of each joined hierarchy, opened for writing.
    pub procs: Vec<OwnedFd>,
    /// Directory of the v2 cgroup, for CLONE_INTO_CGROUP; `procs` is then not written.
    pub dir: Option<OwnedFd>,
}

impl Cgroup {
    fn dir(&self) -> Option<BorrowedFd<'_>> {
        self.dir.as_ref().map(AsFd::as_fd)
    }
}
