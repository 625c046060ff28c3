//! Pods and containers as they were at one moment.

use std::sync::Arc;

use carpel_proto::state::pod_record::Phase;
use carpel_spec::intent::{ContainerConfig, PodConfig, Resources};

use super::container::{Container, Status};
use super::pod::Pod;

#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) id: String,
    pub(crate) config: Arc<PodConfig>,
    pub(crate) ready: bool,
    pub(crate) created_at: i64,
    pub(crate) addresses: Vec<String>,
    pub(crate) runtime_handler: String,
    pub(crate) cgroup: String,
}

#[derive(Debug, Clone)]
pub(crate) struct ContainerView {
    pub(crate) id: String,
    pub(crate) pod_id: String,
    pub(crate) config: Arc<ContainerConfig>,
    pub(crate) resources: Resources,
    pub(crate) status: Status,
    pub(crate) cgroup: String,
    /// Of the first process, as the host counts; 0 when not known.
    pub(crate) pid: i32,
}

impl Pod {
    pub(crate) fn view(&self) -> PodView {
        self.record.read(|r| PodView {
            id: self.id.clone(),
            config: Arc::clone(&self.config),
            ready: r.phase() == Phase::Ready && !self.is_recovering(),
            created_at: r.created_at_ns,
            addresses: r.addresses.clone(),
            runtime_handler: r.runtime_handler.clone(),
            cgroup: r.cgroup.clone(),
        })
    }
}

impl Container {
    pub(crate) fn view(&self) -> ContainerView {
        ContainerView {
            id: self.id.clone(),
            pod_id: self.pod_id.clone(),
            config: Arc::clone(&self.config),
            resources: self.resources(),
            status: self.status(),
            cgroup: self.cgroup(),
            pid: self.pid(),
        }
    }
}
