//! The holder: one process a pod, which owns the pod's namespaces and everything
//! that must outlive the daemon: container processes, their output, exit codes.
//!
//! One thread, one loop (`holder`). Whatever could block or grow the heap, making
//! a container or an exec, runs in a forked `worker`.

mod cgroup;
mod connection;
mod container;
mod control;
mod create;
mod error;
mod exec;
mod exit;
mod holder;
mod oci;
mod outgoing;
mod pod_init;
mod poll;
mod request;
mod setup;
mod shutdown;
mod startup;
mod stdio;
mod sysctl;
mod tree;
mod worker;

pub use holder::run;
