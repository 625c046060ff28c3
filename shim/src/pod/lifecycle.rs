//! StartContainer, StopContainer, RemoveContainer, ReopenContainerLog.

use std::sync::Arc;
use std::time::Duration;

use carpel_failpoint::step;
use carpel_proto::state::container_record::Phase;
use tokio::time::{Instant, timeout};

use super::container::Container;
use super::events::kill_cgroup;
use super::log;
use super::oom;
use super::pod::Pod;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::{Error, Failures};
use crate::holder::HolderError;

/// From SIGKILL to the news of the end.
const DEATH: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;

impl Runtime {
    pub(crate) async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let container = self.container(id)?;
        let this = Arc::clone(self);
        let key = format!("start {}", container.id);
        let work = || async move { this.start_now(&container).await.map(|()| String::new()) };
        self.operations.join(key, work).await.map(drop)
    }

    async fn start_now(&self, container: &Arc<Container>) -> Result<(), Error> {
        let pod = self.ready_pod(&container.pod_id)?;
        let _work = pod.busy.read().await;
        let _turn = container.busy.lock().await;
        match container.phase() {
            Phase::Created => {}
            // Asked again by a client that lost the answer.
            Phase::Running => return Ok(()),
            phase => {
                return Err(Error::FailedPrecondition(format!(
                    "container {} is {}, not created",
                    container.id,
                    phase.as_str_name().to_lowercase()
                )));
            }
        }
        let before = oom::kills(&self.parts.cgroups, container).await;
        container.record.change(|r| r.oom_kills_before = before);
        step("the container is about to start");
        let oci = self.runtime_of(&pod)?;
        match pod.holder()?.start(&container.id, oci).await {
            Ok(at) => pod.container_started(container, at),
            // The program is at fault, and the container is over. Any other failure
            // says nothing of it: its end, if it comes, comes as an event.
            Err(HolderError::CannotExecute(why)) => {
                pod.container_could_not_start(container, &why);
                container.save_if_possible(&self.parts.state).await;
                return Err(Error::Invalid(why));
            }
            Err(error) => return Err(error.into()),
        }
        step("the container runs");
        container.save_if_possible(&self.parts.state).await;
        tracing::info!(container = %container.id, name = %container.config.name, "container runs");
        Ok(())
    }

    /// Asks the container to end, and kills it after `grace`. An unknown container
    /// is no error. While a stop runs, another one with less grace shortens it.
    pub(crate) async fn stop_container(
        self: &Arc<Self>,
        id: &str,
        grace: Duration,
    ) -> Result<(), Error> {
        let container = match self.container(id) {
            Ok(container) => container,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let kill_at = Instant::now() + grace;
        container
            .kill_at
            .send_modify(|at| *at = Some(at.map_or(kill_at, |old| old.min(kill_at))));
        let this = Arc::clone(self);
        let key = format!("stop {}", container.id);
        let work = || async move {
            let stopped = this.stop_container_now(&container, grace).await;
            container.kill_at.send_replace(None);
            stopped.map(|()| String::new())
        };
        self.operations.join(key, work).await.map(drop)
    }

    async fn stop_container_now(
        &self,
        container: &Arc<Container>,
        grace: Duration,
    ) -> Result<(), Error> {
        if container.has_ended() {
            return Ok(());
        }
        let pod = self.pod_of(container)?;
        if container.phase() == Phase::Running && !grace.is_zero() {
            step("the container is about to be told to end");
            let signal = container.record.read(|r| r.stop_signal);
            match pod.holder()?.signal(&container.id, signal, false).await {
                Err(error @ HolderError::Deadline { .. }) => {
                    tracing::warn!(container = %container.id, %error, "it will be killed");
                }
                told => {
                    ended_is_fine(told)?;
                    step("the container is told to end");
                    if self.ends_in_time(container).await {
                        return Ok(());
                    }
                }
            }
        }
        self.kill_container(&pod, container).await
    }

    /// Waits for the end until the kill is due, which may come nearer meanwhile.
    async fn ends_in_time(&self, container: &Container) -> bool {
        let mut changes = container.kill_at.subscribe();
        loop {
            let due = changes.borrow_and_update().unwrap_or_else(Instant::now);
            tokio::select! {
                () = container.wait_end() => return true,
                () = tokio::time::sleep_until(due) => return false,
                changed = changes.changed() => if changed.is_err() { return false },
            }
        }
    }

    /// Kills every process of the container and waits for the news of its end.
    pub(super) async fn kill_container(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
    ) -> Result<(), Error> {
        let Some(holder) = pod.try_holder() else {
            return self.kill_without_holder(pod, container, "killed").await;
        };
        match holder.signal(&container.id, SIGKILL, true).await {
            Err(HolderError::Gone) => {}
            Err(error @ HolderError::Deadline { .. }) => {
                tracing::warn!(container = %container.id, %error, "killing it without its holder");
                let message = "killed; the pod's holder did not answer";
                return self.kill_without_holder(pod, container, message).await;
            }
            other => ended_is_fine(other)?,
        }
        step("the container is killed");
        if timeout(DEATH, container.wait_end()).await.is_ok() {
            step("the container has ended");
            return Ok(());
        }
        kill_cgroup(&self.parts.cgroups, container).await?;
        timeout(DEATH, container.wait_end())
            .await
            .map_err(|_| Error::Deadline {
                what: format!("the end of container {} after SIGKILL", container.id),
                after: 2 * DEATH,
            })
    }

    async fn kill_without_holder(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
        message: &str,
    ) -> Result<(), Error> {
        kill_cgroup(&self.parts.cgroups, container).await?;
        pod.container_lost(container, 128 + SIGKILL, "Error", message);
        container.save_if_possible(&self.parts.state).await;
        Ok(())
    }

    /// Removes the container, running or not. An unknown one is no error.
    pub(crate) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let container = match self.container(id) {
            Ok(container) => container,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let this = Arc::clone(self);
        let key = format!("remove {}", container.id);
        let work = || async move {
            let pod = this.pod_of(&container)?;
            if !container.has_ended() {
                this.kill_container(&pod, &container).await?;
            }
            this.delete_container(&pod, &container)
                .await
                .map(|()| String::new())
        };
        self.operations.join(key, work).await.map(drop)
    }

    /// What is left of an ended container. Each step bears being done again.
    pub(super) async fn delete_container(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
    ) -> Result<(), Error> {
        let _turn = container.busy.lock().await;
        container.record.change(|r| r.set_phase(Phase::Removing));
        let mut failures = Failures::default();
        container.save_if_possible(&self.parts.state).await;
        if let Some(holder) = pod.try_holder() {
            match holder.delete(&container.id).await {
                Err(HolderError::NotFound(_) | HolderError::Gone) => {}
                // A holder that comes back is told again by the next daemon, and one
                // that is killed forgets everything.
                Err(error @ HolderError::Deadline { .. }) => {
                    tracing::warn!(container = %container.id, %error, "removed without it");
                }
                other => drop(failures.note(other)),
            }
        }
        step("the holder has forgotten the container");
        failures.note(self.forget_in_runtime(&container.id).await);
        step("the runtime has forgotten the container");
        failures.note(self.parts.images.release(&container.id).await);
        step("the root filesystem is released");
        let (cgroups, path) = (Arc::clone(&self.parts.cgroups), container.cgroup());
        failures.note(
            blocking(move || {
                let cgroup = cgroups.open(&path)?;
                cgroup.kill()?;
                Ok(cgroup.remove()?)
            })
            .await,
        );
        failures.note(self.remove_volumes(&container.id).await);
        failures.into_result()?;
        step("the container's cgroup is removed");
        let state = self.parts.state.clone();
        let (pod_id, id) = (pod.id.clone(), container.id.clone());
        blocking(move || state.remove_container(&pod_id, &id)).await?;
        step("the container's record is removed");
        self.hide_container(pod, container);
        tracing::info!(container = %container.id, "container is removed");
        Ok(())
    }

    /// Goes on in a new file at the log's path; it exists when this returns, and
    /// nothing is written to the old one any more.
    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let container = self.container(id)?;
        if container.phase() != Phase::Running {
            return Err(Error::FailedPrecondition(format!(
                "container {id} is not running"
            )));
        }
        let pod = self.pod_of(&container)?;
        let directory = pod.config.log_directory.clone();
        let relative = container.config.log_path.clone();
        if log::path(&directory, &relative).is_empty() {
            return Err(Error::FailedPrecondition(format!(
                "container {id} has no log file"
            )));
        }
        let holder = pod.holder()?;
        let file = blocking(move || log::open(&directory, &relative)).await?;
        Ok(holder.reopen_log(&container.id, file).await?)
    }
}

/// To signal what has just ended is no failure.
fn ended_is_fine(result: Result<(), HolderError>) -> Result<(), Error> {
    match result {
        Err(HolderError::FailedPrecondition(_) | HolderError::NotFound(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
