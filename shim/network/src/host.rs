//! Pods in the host's own network.

use std::net::IpAddr;

use async_trait::async_trait;
use ipnet::IpNet;

use crate::driver::{Attachment, Error, NetworkDriver, PodNetwork, Status};

/// For pods that share the host's network: there is nothing to set up, and the
/// node's own addresses are the kubelet's to report.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDriver;

#[async_trait]
impl NetworkDriver for HostDriver {
    fn name(&self) -> &str {
        "host"
    }

    async fn setup(&self, _pod: &PodNetwork<'_>) -> Result<Attachment, Error> {
        Ok(unattached())
    }

    async fn teardown(&self, _pod_id: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn check(&self, _pod_id: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn status(&self) -> Status {
        always_ready()
    }

    fn knows(&self, _: &str) -> bool {
        true
    }

    async fn gc(&self, _live: &[String]) -> Result<(), Error> {
        Ok(())
    }

    async fn set_pod_cidrs(&self, _cidrs: &[IpNet]) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) fn unattached() -> Attachment {
    Attachment {
        addresses: Vec::<IpAddr>::new(),
        interface: String::new(),
        host_interface: String::new(),
    }
}

pub(crate) fn always_ready() -> Status {
    Status {
        ready: true,
        reason: String::new(),
        message: String::new(),
    }
}
