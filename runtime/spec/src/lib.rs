//! From CRI intent, image and host facts to an OCI runtime configuration.
//!
//! Everything here is pure: no file is opened, no clock read.

pub mod intent;
