//! The built `carpel` against a small runtime of our own, on sockets in a scratch directory.

// Here, an unwrap that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod admin;
mod errors;
mod fake;
mod harness;
mod images;
mod node;
mod pods;
mod reading;
