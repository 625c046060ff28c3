//! One pod: its configuration, its record, and its connection to its holder.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carpel_proto::state::PodRecord;
use carpel_proto::state::pod_record::Phase;
use carpel_spec::intent::{NamespaceMode, PodConfig};
use tokio_util::sync::CancellationToken;

use super::container::Container;
use super::feed::Feed;
use super::recorded::Recorded;
use crate::error::Error;
use crate::holder::HolderClient;
use crate::state::StateStore;

#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) config: Arc<PodConfig>,
    pub(super) feed: Arc<Feed>,
    pub(super) record: Recorded<PodRecord>,
    live: Mutex<Live>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    /// Shared by what works inside the pod, alone for what ends it.
    pub(super) busy: tokio::sync::RwLock<()>,
    pub(super) cpu_sample: Mutex<Option<super::stats::CpuSample>>,
    /// Nothing of it is left but records and root filesystems.
    down: AtomicBool,
    /// What its holder says is not known yet.
    recovering: AtomicBool,
    /// Nobody should wait for a holder that does not answer any more.
    gave_up: CancellationToken,
    /// Why it is not ready, for people.
    why: Mutex<String>,
    /// Why the record could not be read, for a pod that only can be removed.
    pub(crate) quarantine: Option<String>,
}

/// What exists only while the holder lives.
#[derive(Debug, Default)]
struct Live {
    holder: Option<HolderClient>,
    netns: Option<Arc<OwnedFd>>,
    init_pid: i32,
}

impl Pod {
    pub(super) fn new(
        record: PodRecord,
        config: PodConfig,
        feed: Arc<Feed>,
        quarantine: Option<String>,
    ) -> Self {
        Self {
            id: record.id.clone(),
            config: Arc::new(config),
            feed,
            record: Recorded::new(record),
            live: Mutex::default(),
            containers: Mutex::default(),
            busy: tokio::sync::RwLock::new(()),
            cpu_sample: Mutex::default(),
            down: AtomicBool::new(false),
            recovering: AtomicBool::new(false),
            gave_up: CancellationToken::new(),
            why: Mutex::default(),
            quarantine,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.is_recovering() && self.is_ready_by_record()
    }

    pub(super) fn is_ready_by_record(&self) -> bool {
        self.record.read(|r| r.phase() == Phase::Ready)
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Acquire)
    }

    pub(super) fn set_recovering(&self, recovering: bool) {
        self.recovering.store(recovering, Ordering::Release);
    }

    /// Ends a recovery that waits for the holder: the pod is to end.
    pub(super) fn give_up(&self) {
        self.gave_up.cancel();
    }

    pub(super) async fn given_up(&self) {
        self.gave_up.cancelled().await;
    }

    /// Why the pod is not ready; empty if it is.
    pub(crate) fn why(&self) -> String {
        if let Some(why) = &self.quarantine {
            return format!("quarantined: {why}");
        }
        self.why
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn say_why(&self, why: &str) {
        let mut old = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone_into(&mut old);
    }

    pub(super) fn unavailable(&self) -> Error {
        Error::Unavailable(format!("pod sandbox {}: {}", self.id, self.why()))
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    pub(super) fn set_down(&self) {
        self.down.store(true, Ordering::Release);
    }

    pub(crate) fn runtime_handler(&self) -> String {
        self.record.read(|r| r.runtime_handler.clone())
    }

    pub(crate) fn cgroup(&self) -> String {
        self.record.read(|r| r.cgroup.clone())
    }

    pub(crate) fn holder_pid(&self) -> i32 {
        self.record.read(|r| r.holder_pid)
    }

    pub(crate) fn host_network(&self) -> bool {
        self.config.security.namespaces.network == NamespaceMode::Node
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.record.change(|r| r.set_phase(phase));
    }

    pub(super) async fn save(&self, store: &StateStore) -> Result<(), Error> {
        let store = store.clone();
        self.record.save(move |record| store.save_pod(record)).await
    }

    /// For what must go on without: a full disk must not keep a pod from its end.
    pub(super) async fn save_if_possible(&self, store: &StateStore) {
        if let Err(error) = self.save(store).await {
            tracing::error!(pod = %self.id, %error, "cannot record what became of the pod");
        }
    }

    pub(super) fn attach(&self, holder: HolderClient, netns: Option<OwnedFd>, init_pid: i32) {
        *self.live() = Live {
            holder: Some(holder),
            netns: netns.map(Arc::new),
            init_pid,
        };
    }

    pub(super) fn detach(&self) {
        *self.live() = Live::default();
    }

    pub(super) fn try_holder(&self) -> Option<HolderClient> {
        self.live().holder.clone()
    }

    pub(crate) fn has_holder(&self) -> bool {
        self.live().holder.is_some()
    }

    pub(super) fn holder(&self) -> Result<HolderClient, Error> {
        self.try_holder().ok_or_else(|| {
            if self.is_recovering() {
                return self.unavailable();
            }
            Error::FailedPrecondition(format!("pod sandbox {} is not running", self.id))
        })
    }

    pub(crate) fn netns(&self) -> Option<Arc<OwnedFd>> {
        self.live().netns.clone()
    }

    /// PID 1 of the shared PID namespace; 0 if the pod has none.
    pub(super) fn init_pid(&self) -> i32 {
        self.live().init_pid
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.table().values().cloned().collect()
    }

    pub(super) fn container(&self, id: &str) -> Option<Arc<Container>> {
        self.table().get(id).cloned()
    }

    pub(super) fn add_container(&self, container: Arc<Container>) {
        self.table().insert(container.id.clone(), container);
    }

    pub(super) fn forget_container(&self, id: &str) {
        self.table().remove(id);
    }

    /// Who this pod is to a client that asks for it again (CRI PodSandboxMetadata).
    pub(super) fn key(&self) -> String {
        key(&self.config)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn key(config: &PodConfig) -> String {
    format!(
        "{}/{}/{}/{}",
        config.namespace, config.name, config.uid, config.attempt
    )
}
