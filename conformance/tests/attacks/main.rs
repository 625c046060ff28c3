//! Hostile images, registries and containers against the built daemon: the attack
//! fails, the host is unharmed, the daemon goes on. Each test is named after the
//! fault that it keeps out; docs/security.md lists them.

// A test's future is made once and polled where it is.
#![allow(clippy::large_futures)]

mod daemon;
mod environment;
mod exec;
mod executor;
mod files;
mod images;
mod logs;
mod proc;
mod pulls;
mod site;
mod trees;
mod unpacking;
mod users;
