//! The built daemon through its socket, each test on a node of its own.

// A test's future is made once and polled where it is.
#![allow(clippy::large_futures)]

mod admin;
mod authority;
mod bad_input;
mod capabilities;
mod cdi;
mod checks;
mod container;
mod crictl;
mod crictl_commands;
mod crictl_lists;
mod crictl_observe;
mod doctor;
mod dual_stack;
mod events;
mod exec;
mod filesystem;
mod handlers;
mod identity;
mod image;
mod info;
mod logs;
mod metrics;
mod metrics_endpoint;
mod mounts;
mod namespaces;
mod network;
mod newer;
mod notify;
mod oom;
mod ports;
mod process;
mod pulls;
mod recovery;
mod refusals;
mod registries;
mod reload;
mod resources;
mod sandbox;
mod seccomp;
mod stats;
mod streams;
mod systemd;
mod volumes;
mod watching;
mod whole;
