//! The kernel calls that no safe crate wraps, one family a module.
//!
//! This is the only crate of the workspace with `unsafe`. Every wrapper takes and
//! returns owned or borrowed descriptors, sets `O_CLOEXEC`, and says why its
//! `unsafe` is sound.

pub mod allocator;
pub mod bpf;
pub mod capability;
pub mod children;
pub mod clone;
pub mod credentials;
pub mod descriptors;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod netdev;
pub mod openat2;
pub mod pidfd;
pub mod seccomp;
pub mod seqpacket;
pub mod signal;
