//! What every operation on pods needs, and the look-ups that need nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use carpel_cgroup::{Hierarchies, Version};
use carpel_images::engine::ImageEngine;
use carpel_network::driver::NetworkDriver;

use super::container::Container;
use super::feed::Feed;
use super::index::Index;
use super::operations::Operations;
use super::place::Places;
use super::pod::Pod;
use crate::cdi::Cdi;
use crate::error::Error;
use crate::handlers::Handlers;
use crate::holder::HolderImage;
use crate::metrics::Metrics;
use crate::seccomp::Compiler;
use crate::state::StateStore;

#[derive(Debug)]
pub(crate) struct Runtime {
    pub(super) parts: Parts,
    pub(super) index: Index,
    pub(super) operations: Operations,
    pub(super) feed: Arc<Feed>,
    /// Where writable layers are, once it was asked for.
    pub(super) filesystem: tokio::sync::OnceCell<Arc<str>>,
}

/// Made once at start-up.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) state: StateStore,
    /// Sockets and generated files of pods: `<run>/pods/<id>`.
    pub(crate) run: PathBuf,
    /// Volumes of containers: `<root>/volumes/<container>`.
    pub(crate) volumes: PathBuf,
    pub(crate) holder: HolderImage,
    pub(crate) handlers: Handlers,
    pub(crate) images: Arc<dyn ImageEngine>,
    pub(crate) network: Arc<dyn NetworkDriver>,
    pub(crate) cgroups: Arc<Hierarchies>,
    pub(crate) places: Places,
    /// Processes that a container may have; 0 for any number.
    pub(crate) pids_limit: i64,
    pub(crate) seccomp: Compiler,
    pub(crate) metrics: Arc<Metrics>,
    /// Events that a reader may be behind.
    pub(crate) event_backlog: usize,
    pub(crate) cdi: Arc<Cdi>,
    /// /proc/sys/kernel/random/boot_id
    pub(crate) boot_id: String,
}

impl Runtime {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            feed: Arc::new(Feed::new(parts.event_backlog)),
            parts,
            index: Index::default(),
            operations: Operations::default(),
            filesystem: tokio::sync::OnceCell::new(),
        })
    }

    pub(crate) fn images(&self) -> &Arc<dyn ImageEngine> {
        &self.parts.images
    }

    pub(crate) fn network(&self) -> &Arc<dyn NetworkDriver> {
        &self.parts.network
    }

    pub(crate) fn cgroup_version(&self) -> u8 {
        match self.parts.cgroups.version() {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    /// Whether the kernel counts for each cgroup how long its tasks waited.
    pub(crate) fn tells_pressure(&self) -> bool {
        self.cgroup_version() == 2 && Path::new("/proc/pressure/cpu").exists()
    }

    /// Whether systemd makes the cgroups of pods.
    pub(crate) fn uses_systemd(&self) -> bool {
        self.parts.places.is_systemd()
    }

    pub(crate) fn handlers(&self) -> &Handlers {
        &self.parts.handlers
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.index.pods()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.index.containers()
    }

    /// By id or unique beginning of one.
    pub(crate) fn pod(&self, id: &str) -> Result<Arc<Pod>, Error> {
        self.index.pod(id)
    }

    /// By id or unique beginning of one.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        self.index.container(id)
    }

    pub(crate) fn pod_of(&self, container: &Container) -> Result<Arc<Pod>, Error> {
        self.index.pod(&container.pod_id)
    }

    /// Pods whose holder ended by itself and that nobody stops yet.
    pub(crate) fn lost_pods(&self) -> Vec<String> {
        let pods = self.pods();
        let lost = |pod: &&Arc<Pod>| {
            !pod.is_ready()
                && !pod.is_down()
                && pod.quarantine.is_none()
                && pod.busy.try_read().is_ok()
        };
        pods.iter().filter(lost).map(|pod| pod.id.clone()).collect()
    }

    pub(crate) fn seccomp_programs(&self) -> usize {
        self.parts.seccomp.programs()
    }

    pub(crate) fn run_dir(&self) -> &Path {
        &self.parts.run
    }

    pub(super) fn pod_run_dir(&self, pod_id: &str) -> PathBuf {
        self.parts.run.join("pods").join(pod_id)
    }

    /// The pod, if containers can be made in it.
    pub(super) fn ready_pod(&self, id: &str) -> Result<Arc<Pod>, Error> {
        let pod = self.pod(id)?;
        if let Some(why) = &pod.quarantine {
            return Err(Error::FailedPrecondition(format!(
                "pod sandbox {id} is quarantined: {why}"
            )));
        }
        if pod.is_recovering() {
            return Err(pod.unavailable());
        }
        if !pod.is_ready() {
            return Err(Error::FailedPrecondition(format!(
                "pod sandbox {id} is not ready"
            )));
        }
        Ok(pod)
    }

    /// What happens to pods and containers.
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Waits for operations that run, and ends the feed; nothing new should begin.
    pub(crate) async fn drain(&self) {
        self.operations.drain().await;
        self.feed.close();
    }
}
