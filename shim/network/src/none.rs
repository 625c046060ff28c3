//! Pods without a network.

use async_trait::async_trait;
use ipnet::IpNet;

use crate::driver::{Attachment, Error, NetworkDriver, PodNetwork, Status};
use crate::error::context;
use crate::host::{always_ready, unattached};
use crate::netlink::Socket;
use crate::netns;

/// Gives a pod its loopback device and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoneDriver;

#[async_trait]
impl NetworkDriver for NoneDriver {
    fn name(&self) -> &str {
        "none"
    }

    async fn setup(&self, pod: &PodNetwork<'_>) -> Result<Attachment, Error> {
        let what = format!("bring up lo of pod {}", pod.pod_id);
        let fd = pod
            .netns
            .try_clone_to_owned()
            .map_err(context(|| what.clone()))?;
        netns::blocking(move || {
            netns::within(&fd, || {
                let mut socket = Socket::open().map_err(context(|| what.clone()))?;
                socket.set_loopback_up().map_err(context(|| what.clone()))
            })
        })
        .await?;
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
