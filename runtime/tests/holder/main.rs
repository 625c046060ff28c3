//! The holder from outside: its program, its socket, and what processes see.
#![allow(clippy::unwrap_used)]

mod common;
mod containers;
mod daemon;
mod ends;
mod execs;
mod logs;
mod setup;
