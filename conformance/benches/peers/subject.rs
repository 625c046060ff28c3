//! The runtimes that are compared, each on a node of its own.

use std::sync::Arc;

use anyhow::Context;
use carpel_conformance::{Cri, Node, Settings, spec};

use crate::containerd::Containerd;

#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) handler: &'static str,
    daemon: Daemon,
}

#[derive(Debug)]
enum Daemon {
    Carpel(Arc<Node>),
    Containerd(Arc<Containerd>),
}

/// The one that the others are measured by.
pub(crate) const BASE: &str = "containerd + runc";

pub(crate) async fn all() -> anyhow::Result<Vec<Subject>> {
    let containerd = Containerd::start(&[spec::BUSYBOX]).await?;
    let carpel = Arc::new(Node::start(Settings::default().images(&[spec::BUSYBOX])).await?);
    let subject = |name, handler, daemon| Subject {
        name,
        handler,
        daemon,
    };
    Ok(vec![
        subject(BASE, "", Daemon::Containerd(Arc::new(containerd))),
        subject("carpel + runc", "runc", Daemon::Carpel(Arc::clone(&carpel))),
        subject("carpel native", "", Daemon::Carpel(carpel)),
    ])
}

impl Subject {
    pub(crate) fn cri(&self) -> &Cri {
        match &self.daemon {
            Daemon::Carpel(node) => node.cri(),
            Daemon::Containerd(peer) => peer.cri(),
        }
    }

    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let version = self.cri().version().await?;
        Ok(format!(
            "{} {}",
            version.runtime_name, version.runtime_version
        ))
    }

    pub(crate) fn cgroup_parent(&self) -> String {
        match &self.daemon {
            Daemon::Carpel(_) => String::new(),
            Daemon::Containerd(peer) => peer.cgroup_parent(),
        }
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        match &self.daemon {
            Daemon::Carpel(node) => node.daemon_pid().context("carpeld does not run"),
            Daemon::Containerd(peer) => peer.pid(),
        }
    }

    /// Names of the processes that a pod brings beside those of its containers.
    pub(crate) fn helpers(&self) -> Vec<&'static str> {
        match &self.daemon {
            Daemon::Carpel(_) => vec!["carpel-holder"],
            Daemon::Containerd(_) => vec!["containerd-shim", "pause"],
        }
    }

    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        match &self.daemon {
            Daemon::Carpel(node) => node.kill(),
            Daemon::Containerd(peer) => peer.kill(),
        }
    }

    pub(crate) async fn restart(&self) -> anyhow::Result<()> {
        match &self.daemon {
            Daemon::Carpel(node) => node.restart().await,
            Daemon::Containerd(peer) => peer.spawn(),
        }
    }

    /// Ends the daemon when the last one that uses it ends.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        if let Daemon::Carpel(node) = self.daemon
            && let Some(node) = Arc::into_inner(node)
        {
            node.finish().await?;
        }
        Ok(())
    }
}
