//! Seccomp profiles, compiled once into the program that the kernel runs.

mod compiler;
mod error;
mod newer;
mod profile;
mod section;

pub(crate) use compiler::{Compiler, Profile};
pub(crate) use error::Error;

#[cfg(test)]
mod interpreter;
