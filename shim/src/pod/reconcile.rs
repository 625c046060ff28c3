//! One pod after a start: what its record says, what its holder says, made one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carpel_proto::holder::{ContainerState, container_state::Status};
use carpel_proto::state::PodRecord;
use carpel_proto::state::container_record::Phase as ContainerPhase;
use carpel_proto::state::pod_record::Phase;

use super::container::{Container, UNKNOWN};
use super::events::kill_cgroup;
use super::oom::oom_killed;
use super::pod::Pod;
use super::runtime::Runtime;
use crate::error::{Error, Failures};
use crate::holder::{self, Connected, HolderError};

/// A holder that does not greet for so long is given up.
const GREETING: Duration = Duration::from_secs(20);

/// Why a pod goes without its holder.
enum NoHolder {
    Over(&'static str),
    /// It may well be there.
    Failed(Error),
}

impl Runtime {
    pub(super) async fn recover_pod(
        &self,
        pod: &Arc<Pod>,
        unfinished: Vec<Arc<Container>>,
    ) -> Result<(), Error> {
        match pod.record.read(PodRecord::phase) {
            Phase::Creating => {
                tracing::info!(pod = %pod.id, "undoing a pod that was not finished");
                self.take_down(pod).await?;
                self.delete_pod(pod).await
            }
            Phase::Removing => {
                self.take_down(pod).await?;
                self.delete_pod(pod).await
            }
            Phase::NotReady => {
                if pod.quarantine.is_none() {
                    pod.say_why("the pod was stopped");
                }
                self.end_all(pod, "the pod was stopped").await?;
                self.undo_containers(pod, unfinished).await?;
                self.take_down(pod).await
            }
            Phase::Ready => self.recover_ready(pod, unfinished).await,
        }
    }

    async fn recover_ready(
        &self,
        pod: &Arc<Pod>,
        unfinished: Vec<Arc<Container>>,
    ) -> Result<(), Error> {
        let Connected {
            client,
            hello,
            netns,
            events,
        } = match self.meet_holder(pod).await {
            Ok(connected) => connected,
            Err(NoHolder::Failed(error)) => return Err(error),
            Err(NoHolder::Over(why)) => {
                tracing::warn!(pod = %pod.id, why, "the pod is over");
                pod.stopped();
                pod.say_why(why);
                self.end_all(pod, why).await?;
                self.undo_containers(pod, unfinished).await?;
                return self.take_down(pod).await;
            }
        };
        pod.attach(client.clone(), netns, hello.pod_init_pid);
        if pod.record.read(|r| r.resources.is_some())
            && let Err(error) = self.write_pod_limits(pod).await
        {
            // The pod runs; with other limits than it should have.
            tracing::error!(pod = %pod.id, %error, "cannot set the pod's limits again");
        }
        self.undo_containers(pod, unfinished).await?;
        let mut said: HashMap<_, _> = hello
            .containers
            .into_iter()
            .map(|c| (c.container_id.clone(), c))
            .collect();
        for container in pod.containers() {
            let state = said.remove(&container.id);
            self.reconcile(pod, &container, state).await?;
            self.finish_update(&container).await?;
        }
        for id in said.into_keys() {
            match client.delete(&id).await {
                // One that was undone a moment ago.
                Ok(()) | Err(HolderError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.watch(Arc::clone(pod), events);
        Ok(())
    }

    async fn meet_holder(&self, pod: &Pod) -> Result<Connected, NoHolder> {
        let over = |why| Err(NoHolder::Over(why));
        if pod.record.read(|r| r.boot_id != self.parts.boot_id) {
            return over("the node was restarted");
        }
        let attached = pod.record.read(|r| r.network_attached);
        if attached && !self.parts.network.knows(&pod.id) {
            return over("the record of the pod's network is lost");
        }
        let dir = self.pod_run_dir(&pod.id);
        tokio::select! {
            connected = holder::connect(&dir, GREETING) => match connected {
                Ok(connected) => Ok(connected),
                Err(HolderError::Gone) => over("the pod's holder is gone"),
                Err(HolderError::Deadline { .. }) => over("the pod's holder does not answer"),
                Err(error) => Err(NoHolder::Failed(error.into())),
            },
            () = pod.given_up() => over("the pod was stopped while its holder did not answer"),
        }
    }

    /// One container: the record says what was known, the holder what is.
    async fn reconcile(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
        said: Option<ContainerState>,
    ) -> Result<(), Error> {
        match (container.phase(), said) {
            (ContainerPhase::Removing, _) => return self.delete_container(pod, container).await,
            (ContainerPhase::Exited, _) => return Ok(()),
            (_, None) => {
                let message = "the pod's holder does not know the container";
                pod.container_lost(container, UNKNOWN, "Unknown", message);
            }
            (_, Some(state)) => {
                container.set_pid(state.pid);
                match state.status() {
                    Status::Created => {
                        container.set_unknown(false);
                        return Ok(());
                    }
                    Status::Running => pod.container_started(container, state.started_at_ns),
                    Status::Exited => {
                        let oom = oom_killed(&self.parts.cgroups, container).await;
                        pod.container_ended(container, &state, oom);
                    }
                }
            }
        }
        container.save_if_possible(&self.parts.state).await;
        Ok(())
    }

    async fn end_all(&self, pod: &Arc<Pod>, why: &str) -> Result<(), Error> {
        for container in pod.containers() {
            if container.has_ended() || container.phase() == ContainerPhase::Removing {
                continue;
            }
            kill_cgroup(&self.parts.cgroups, &container).await?;
            pod.container_lost(&container, UNKNOWN, "Unknown", why);
            container.save_if_possible(&self.parts.state).await;
        }
        Ok(())
    }

    /// Containers whose creation did not come to its end.
    async fn undo_containers(
        &self,
        pod: &Arc<Pod>,
        unfinished: Vec<Arc<Container>>,
    ) -> Result<(), Error> {
        let mut failures = Failures::default();
        for container in unfinished {
            tracing::info!(container = %container.id, "undoing a container that was not finished");
            failures.note(self.delete_container(pod, &container).await);
        }
        failures.into_result()
    }
}
