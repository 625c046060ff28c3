//! An image registry inside the test process, with faults at hand.

mod auth;
mod fault;
mod server;

pub use auth::Auth;
pub use fault::{Fault, Target};
pub use server::{Registry, Seen};
