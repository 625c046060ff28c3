//! StopPodSandbox and RemovePodSandbox.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use carpel_failpoint::step;
use carpel_proto::state::pod_record::Phase;
use futures_util::future::join_all;

use super::container::Container;
use super::pod::Pod;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::{Error, Failures};
use crate::holder::{self, HolderError};

/// For work that runs in the pod to end before it is ended.
const SETTLE: Duration = Duration::from_secs(60);

impl Runtime {
    /// Ends all containers and gives the network back. An unknown pod is no error.
    pub(crate) async fn stop_pod(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let pod = match self.pod(id) {
            Ok(pod) => pod,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let this = Arc::clone(self);
        let work = || async move { this.stop_now(&pod).await.map(|()| String::new()) };
        self.operations
            .join(format!("stop-pod {id}"), work)
            .await
            .map(drop)
    }

    /// Removes the pod and its containers, running or not. An unknown pod is no error.
    pub(crate) async fn remove_pod(self: &Arc<Self>, id: &str) -> Result<(), Error> {
        let pod = match self.pod(id) {
            Ok(pod) => pod,
            Err(Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let this = Arc::clone(self);
        let work = || async move { this.remove_now(&pod).await.map(|()| String::new()) };
        self.operations
            .join(format!("remove-pod {id}"), work)
            .await
            .map(drop)
    }

    async fn stop_now(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        if pod.is_recovering() {
            pod.give_up();
        }
        if pod.stopped() {
            pod.say_why("the pod was stopped");
            pod.save_if_possible(&self.parts.state).await;
        }
        let _alone = tokio::time::timeout(SETTLE, pod.busy.write())
            .await
            .map_err(|_| Error::Deadline {
                what: format!("other work in pod sandbox {}", pod.id),
                after: SETTLE,
            })?;
        if pod.is_down() {
            return Ok(());
        }
        self.take_down(pod).await?;
        tracing::info!(pod = %pod.id, "pod is stopped");
        Ok(())
    }

    async fn remove_now(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        self.stop_now(pod).await?;
        self.delete_pod(pod).await
    }

    /// What is left of a stopped pod: containers' files, records.
    pub(super) async fn delete_pod(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        pod.set_phase(Phase::Removing);
        let mut failures = Failures::default();
        for removed in join_all(
            pod.containers()
                .iter()
                .map(|c| self.delete_container(pod, c)),
        )
        .await
        {
            failures.note(removed);
        }
        failures.into_result()?;
        step("the pod's containers are removed");
        let (state, id) = (self.parts.state.clone(), pod.id.clone());
        blocking(move || state.remove_pod(&id)).await?;
        step("the pod's record is removed");
        self.hide_pod(pod);
        tracing::info!(pod = %pod.id, "pod is removed");
        Ok(())
    }

    /// Ends every process of the pod and undoes all that its start did, however far
    /// that came; what is gone already is no failure.
    pub(super) async fn take_down(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let mut failures = Failures::default();
        for killed in join_all(pod.containers().iter().map(|c| self.kill_in_pod(pod, c))).await {
            failures.note(killed);
        }
        step("the pod's containers are killed");
        // The kernel takes its time to delete a device, and the holder to end.
        let (ended, torn) = tokio::join!(self.end_holder(pod), self.disconnect(pod));
        failures.note(ended);
        failures.note(torn);
        step("holder and network are gone");
        failures.note(self.remove_cgroups(pod).await);
        step("the pod's cgroups are removed");
        let dir = self.pod_run_dir(&pod.id);
        failures.note(blocking(move || remove_dir(&dir)).await);
        step("the pod's run directory is removed");
        pod.detach();
        if pod.record.read(|r| r.phase()) != Phase::Creating {
            pod.save_if_possible(&self.parts.state).await;
        }
        failures.into_result()?;
        pod.set_down();
        Ok(())
    }

    async fn kill_in_pod(&self, pod: &Arc<Pod>, container: &Arc<Container>) -> Result<(), Error> {
        if container.has_ended() {
            return Ok(());
        }
        self.kill_container(pod, container).await
    }

    async fn disconnect(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        if pod.record.read(|r| r.network_attached) {
            self.parts.network.teardown(&pod.id).await?;
            pod.record.change(|r| r.network_attached = false);
        }
        Ok(())
    }

    async fn end_holder(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let client = match pod.try_holder() {
            Some(client) => client,
            // A holder that this daemon has not met yet, or one that is gone.
            None => match holder::connect(&self.pod_run_dir(&pod.id), Duration::from_secs(2)).await
            {
                Ok(connected) => connected.client,
                Err(_) => return Ok(()),
            },
        };
        match client.shutdown().await {
            Err(error @ HolderError::Deadline { .. }) => {
                tracing::warn!(pod = %pod.id, %error, "the holder will be killed");
                Ok(())
            }
            done => Ok(done?),
        }
    }
}

fn remove_dir(dir: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
