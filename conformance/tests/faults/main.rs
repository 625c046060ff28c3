//! What goes wrong on a node, made to happen: each test on a node of its own.

// A test's future is made once and polled where it is.
#![allow(clippy::large_futures)]

mod boot;
#[allow(dead_code, reason = "shared with the conformance tests")]
#[path = "../conformance/checks.rs"]
mod checks;
mod damage;
mod disk;
mod flood;
mod holder;
mod limits;
mod races;
mod steps;
mod support;
