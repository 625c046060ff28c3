//! Metrics for Prometheus: what is counted, and the page it is read from.

mod node;
mod registry;
mod rpc;
mod server;

pub(crate) use node::{NodeView, leftovers_view};
pub(crate) use registry::Metrics;
pub(crate) use rpc::RpcLayer;
pub(crate) use server::{PageServer, bind};
