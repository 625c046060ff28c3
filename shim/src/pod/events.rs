//! What a holder tells without being asked.

use std::sync::Arc;

use carpel_proto::holder::ContainerState;
use tokio::sync::mpsc::UnboundedReceiver;

use super::container::Container;
use super::oom::oom_killed;
use super::pod::Pod;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::Error;
use crate::holder::HolderEvent;

/// Exit code of containers that we kill because their holder ended: 128 + SIGKILL.
const KILLED: i32 = 137;

impl Runtime {
    /// Follows the pod's holder until it is gone.
    pub(super) fn watch(&self, pod: Arc<Pod>, mut events: UnboundedReceiver<HolderEvent>) {
        let cgroups = Arc::clone(&self.parts.cgroups);
        let state = self.parts.state.clone();
        let follower = Follower { cgroups, state };
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    HolderEvent::ContainerExited(exit) => {
                        follower.container_exited(&pod, &exit).await
                    }
                    HolderEvent::PodInitExited => follower.init_exited(&pod).await,
                    HolderEvent::Gone => break,
                }
            }
            follower.holder_gone(&pod).await;
        });
    }
}

struct Follower {
    cgroups: Arc<carpel_cgroup::Hierarchies>,
    state: crate::state::StateStore,
}

impl Follower {
    async fn container_exited(&self, pod: &Arc<Pod>, exit: &ContainerState) {
        // A container that is being created reports its own failure.
        let Some(container) = pod.container(&exit.container_id) else {
            return;
        };
        let oom = oom_killed(&self.cgroups, &container).await;
        pod.container_ended(&container, exit, oom);
        tracing::info!(container = %container.id, code = exit.exit_code, oom, "container ended");
        let lost = exit.log.as_ref().map_or(0, |log| log.dropped_bytes);
        if lost > 0 {
            tracing::warn!(container = %container.id, lost, "bytes of its log are lost");
        }
        self.save(&container).await;
    }

    /// Without PID 1 of its shared PID namespace a pod can have no containers any more.
    async fn init_exited(&self, pod: &Arc<Pod>) {
        if !pod.is_ready_by_record() {
            return;
        }
        tracing::error!(pod = %pod.id, "PID 1 of the pod's shared PID namespace ended");
        pod.say_why("PID 1 of the pod's shared PID namespace ended");
        self.not_ready(pod).await;
    }

    async fn not_ready(&self, pod: &Arc<Pod>) {
        pod.stopped();
        if let Err(error) = pod.save(&self.state).await {
            tracing::error!(pod = %pod.id, %error, "cannot record that the pod is over");
        }
    }

    /// The pod is over, and so must be its processes: nobody would tell of them.
    async fn holder_gone(&self, pod: &Arc<Pod>) {
        let expected = !pod.is_ready_by_record();
        pod.detach();
        if expected {
            return;
        }
        tracing::error!(pod = %pod.id, "the pod's holder is gone");
        pod.say_why("the pod's holder is gone");
        self.not_ready(pod).await;
        for container in pod.containers() {
            if container.has_ended() {
                continue;
            }
            if let Err(error) = kill_cgroup(&self.cgroups, &container).await {
                tracing::error!(container = %container.id, %error, "cannot kill what is left");
            }
            let message = "the pod's holder ended; the container was killed";
            pod.container_lost(&container, KILLED, "HolderGone", message);
            self.save(&container).await;
        }
    }

    async fn save(&self, container: &Container) {
        if let Err(error) = container.save(&self.state).await {
            tracing::error!(container = %container.id, %error, "cannot record the container's end");
        }
    }
}

pub(super) async fn kill_cgroup(
    cgroups: &Arc<carpel_cgroup::Hierarchies>,
    container: &Container,
) -> Result<(), Error> {
    let (cgroups, path) = (Arc::clone(cgroups), container.cgroup());
    blocking(move || Ok(cgroups.open(&path)?.kill()?)).await
}
