//! The few requests that a pod's network needs, over blocking sockets.

mod address;
mod conntrack;
mod conntrack6;
mod link;
mod pool;
mod route;
mod socket;

pub(crate) use conntrack::{Flows, forget_flows};
pub(crate) use link::{BRIDGE, Link, VethPair};
pub(crate) use pool::Pool;
pub(crate) use socket::Socket;
