//! The built daemon through its socket, each test on a node of its own.

// A test's future is made once and polled where it is.
#![allow(clippy::large_futures)]

mod admin;
mod authority;
mod bad_input;
mod checks;
mod container;
mod crictl;
mod exec;
mod filesystem;
mod identity;
mod image;
mod logs;
mod network;
mod oom;
mod ports;
mod recovery;
mod refusals;
mod registries;
mod resources;
mod sandbox;
mod stats;
