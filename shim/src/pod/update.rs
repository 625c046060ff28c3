//! UpdateContainerResources and UpdatePodSandboxResources: all of it, or nothing.

use std::sync::Arc;
use std::time::Duration;

use carpel_failpoint::step;
use carpel_proto::state::container_record::Phase;
use carpel_spec::HostFacts;
use carpel_spec::intent::Resources;
use tokio::time::timeout;

use super::container::Container;
use super::ids::new_id;
use super::pod::Pod;
use super::recorded::blocking;
use super::resources::{of_record, to_record};
use super::runtime::Runtime;
use super::{host, limits, oom};
use crate::error::Error;

/// For work that runs in a pod to end before the pod's limits change.
const SETTLE: Duration = Duration::from_secs(30);

impl Runtime {
    /// Changes the limits of a container that is created or runs. What the update
    /// leaves out (zero) stays as it is.
    pub(crate) async fn update_container(
        self: &Arc<Self>,
        id: &str,
        update: Resources,
    ) -> Result<(), Error> {
        let container = self.container(id)?;
        let this = Arc::clone(self);
        // One of its own: another update is another change.
        let key = format!("update {} {}", container.id, new_id()?);
        let work = || async move {
            let updated = this.update_now(&container, &update).await;
            updated.map(|()| String::new())
        };
        self.operations.join(key, work).await.map(drop)
    }

    async fn update_now(
        &self,
        container: &Arc<Container>,
        update: &Resources,
    ) -> Result<(), Error> {
        let pod = self.pod_of(container)?;
        let _work = pod.busy.read().await;
        let _turn = container.busy.lock().await;
        match container.phase() {
            Phase::Created | Phase::Running => {}
            phase => {
                return Err(Error::FailedPrecondition(format!(
                    "container {} is {}: its resources cannot be updated",
                    container.id,
                    phase.as_str_name().to_lowercase()
                )));
            }
        }
        let whole = container.resources().updated(update);
        limits::check(&whole, &self.host_facts().await?)?;
        let limits = limits::change(update, &whole)?;
        container
            .record
            .change(|r| r.pending_resources = Some(to_record(&whole)));
        if let Err(error) = container.save(&self.parts.state).await {
            container.record.change(|r| r.pending_resources = None);
            return Err(error);
        }
        step("the update is intended");
        let written = self.write_limits(container, limits).await;
        step("the new limits are written");
        self.settle(container, written.is_ok().then_some(&whole))
            .await;
        written?;
        if update.oom_score_adj != 0 {
            self.adjust(container, update.oom_score_adj).await?;
        }
        tracing::info!(container = %container.id, "resources are updated");
        Ok(())
    }

    /// Records what the update came to. Where that fails the intent stays on disk,
    /// and the next start makes it true again.
    async fn settle(&self, container: &Arc<Container>, whole: Option<&Resources>) {
        container.record.change(|r| {
            r.pending_resources = None;
            if let Some(whole) = whole {
                r.resources = Some(to_record(whole));
            }
        });
        if let Err(error) = container.save(&self.parts.state).await {
            tracing::error!(container = %container.id, %error, "cannot record the update");
        }
        step("the update is recorded");
    }

    async fn write_limits(
        &self,
        container: &Arc<Container>,
        limits: carpel_cgroup::Limits,
    ) -> Result<(), Error> {
        let (cgroups, path) = (Arc::clone(&self.parts.cgroups), container.cgroup());
        blocking(move || Ok(cgroups.update(&path, &limits)?)).await
    }

    async fn adjust(&self, container: &Arc<Container>, value: i64) -> Result<(), Error> {
        let (cgroups, path) = (Arc::clone(&self.parts.cgroups), container.cgroup());
        blocking(move || oom::adjust(&cgroups.open(&path)?, value)).await
    }

    /// After a start: an update in whose middle the daemon ended is done to its end.
    pub(super) async fn finish_update(&self, container: &Arc<Container>) -> Result<(), Error> {
        let pending = container
            .record
            .read(|r| r.pending_resources.as_ref().map(of_record));
        let Some(whole) = pending else {
            return Ok(());
        };
        if !matches!(container.phase(), Phase::Created | Phase::Running) {
            return Ok(());
        }
        let written = self.write_limits(container, limits::all(&whole)?).await;
        if let Err(error) = &written {
            tracing::error!(container = %container.id, %error,
                "cannot finish an update of resources");
        }
        self.settle(container, written.is_ok().then_some(&whole))
            .await;
        if written.is_ok() && whole.oom_score_adj != 0 {
            self.adjust(container, whole.oom_score_adj).await?;
        }
        Ok(())
    }

    /// Changes what a pod may use. Its cgroup is changed only if it is ours: in one that
    /// the kubelet gave, the kubelet sets the pod's limits, and they are only recorded.
    pub(crate) async fn update_pod(
        self: &Arc<Self>,
        id: &str,
        overhead: Resources,
        resources: Resources,
    ) -> Result<(), Error> {
        let pod = self.pod(id)?;
        let this = Arc::clone(self);
        let key = format!("update-pod {} {}", pod.id, new_id()?);
        let work = || async move {
            let updated = this.update_pod_now(&pod, &overhead, &resources).await;
            updated.map(|()| String::new())
        };
        self.operations.join(key, work).await.map(drop)
    }

    async fn update_pod_now(
        &self,
        pod: &Arc<Pod>,
        overhead: &Resources,
        resources: &Resources,
    ) -> Result<(), Error> {
        // Nothing is made in it meanwhile that the new limits would miss.
        let _alone = timeout(SETTLE, pod.busy.write())
            .await
            .map_err(|_| Error::Deadline {
                what: format!("other work in pod sandbox {}", pod.id),
                after: SETTLE,
            })?;
        self.ready_pod(&pod.id)?;
        let (old_overhead, old_resources) = pod.resources();
        let overhead = old_overhead.updated(overhead);
        let resources = old_resources.updated(resources);
        let before = pod
            .record
            .change(|r| (r.overhead.take(), r.resources.take()));
        pod.record.change(|r| {
            r.overhead = Some(to_record(&overhead));
            r.resources = Some(to_record(&resources));
        });
        let mut updated = self.pod_limits(pod).await.map(drop);
        if updated.is_ok() {
            updated = pod.save(&self.parts.state).await;
        }
        step("the pod's new limits are recorded");
        if updated.is_ok() {
            updated = self.write_pod_limits(pod).await;
        }
        if let Err(error) = updated {
            pod.record.change(|r| (r.overhead, r.resources) = before);
            if let Err(error) = pod.save(&self.parts.state).await {
                tracing::error!(pod = %pod.id, %error, "cannot record that an update failed");
            }
            return Err(error);
        }
        tracing::info!(pod = %pod.id, "resources are updated");
        Ok(())
    }

    /// Of all of the pod together, checked against this host.
    pub(super) async fn pod_limits(&self, pod: &Pod) -> Result<carpel_cgroup::Limits, Error> {
        let (overhead, resources) = pod.resources();
        let whole = resources.with_overhead(&overhead);
        let facts = self.host_facts().await?;
        for part in [&overhead, &resources, &whole] {
            limits::check(part, &facts)?;
        }
        limits::all(&whole)
    }

    /// Makes the pod's cgroup be limited as recorded, if it is ours.
    pub(super) async fn write_pod_limits(&self, pod: &Pod) -> Result<(), Error> {
        if !pod.owns_cgroup() {
            return Ok(());
        }
        let limits = self.pod_limits(pod).await?;
        let (cgroups, path) = (Arc::clone(&self.parts.cgroups), pod.cgroup());
        blocking(move || Ok(cgroups.update(&path, &limits)?)).await
    }

    async fn host_facts(&self) -> Result<HostFacts, Error> {
        let (version, pids) = (self.parts.cgroups.version(), self.parts.pids_limit);
        blocking(move || host::facts(version, pids, &[], false)).await
    }
}

impl Pod {
    /// Overhead and resources as they are now.
    fn resources(&self) -> (Resources, Resources) {
        self.record.read(|r| {
            let now = |updated: &Option<carpel_proto::state::Resources>, given: &Resources| {
                updated.as_ref().map_or_else(|| given.clone(), of_record)
            };
            (
                now(&r.overhead, &self.config.overhead),
                now(&r.resources, &self.config.resources),
            )
        })
    }

    /// Whether its limits are ours to set: in what the kubelet gave, the kubelet does.
    pub(super) fn owns_cgroup(&self) -> bool {
        self.config.cgroup_parent.is_empty()
    }
}
