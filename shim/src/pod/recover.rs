//! After a start: what the records say, what the holders say, made one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use carpel_proto::holder::{ContainerState, container_state::Status};
use carpel_proto::state::container_record::Phase as ContainerPhase;
use carpel_proto::state::pod_record::Phase;
use carpel_proto::state::{ContainerRecord, PodRecord};
use carpel_spec::intent::{ContainerConfig, PodConfig};
use futures_util::future::join_all;

use super::container::Container;
use super::events::kill_cgroup;
use super::ids::short;
use super::oom::oom_killed;
use super::pod::Pod;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::{Error, Failures};
use crate::holder::{self, Connected, HolderError};
use crate::state::Loaded;

/// For one pod; a holder that hangs holds up no other.
const LIMIT: Duration = Duration::from_secs(30);
const GREETING: Duration = Duration::from_secs(5);
/// Exit code of a container whose end nobody saw.
const UNKNOWN: i32 = 255;

/// Reads the configurations of records, which are in wire form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decode {
    pub(crate) pod: fn(&[u8]) -> Result<PodConfig, Error>,
    pub(crate) container: fn(&[u8]) -> Result<ContainerConfig, Error>,
}

impl Runtime {
    /// Finds again what an earlier daemon left, all pods at once.
    pub(crate) async fn recover(self: &Arc<Self>, decode: Decode) -> Result<(), Error> {
        let state = self.parts.state.clone();
        let found = blocking(move || state.load()).await?;
        let count = found.len();
        join_all(
            found
                .into_iter()
                .map(|loaded| self.recover_in_time(loaded, decode)),
        )
        .await;
        if let Err(error) = self.sweep().await {
            tracing::error!(%error, "cannot clean up all that an earlier run left");
        }
        if count > 0 {
            tracing::info!(pods = self.pods().len(), records = count, "recovered");
        }
        Ok(())
    }

    /// The pod of a record; a record that cannot be read gives one that can only be removed.
    fn pod_of_record(&self, loaded: &Loaded, decode: Decode) -> Pod {
        let readable = loaded
            .pod
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|record| {
                let config = (decode.pod)(&record.config).map_err(|error| error.to_string())?;
                Ok((record.clone(), config))
            });
        match readable {
            Ok((record, config)) => Pod::new(record, config, Arc::clone(&self.feed), None),
            Err(why) => {
                tracing::error!(pod = %loaded.id, %why, "pod record is quarantined");
                let mut record = PodRecord {
                    id: loaded.id.clone(),
                    cgroup: self.parts.places.own(&loaded.id),
                    network_attached: true,
                    ..PodRecord::default()
                };
                record.set_phase(Phase::NotReady);
                let name = format!("quarantined-{}", short(&loaded.id));
                let config = PodConfig {
                    uid: loaded.id.clone(),
                    name,
                    ..PodConfig::default()
                };
                Pod::new(record, config, Arc::clone(&self.feed), Some(why))
            }
        }
    }

    async fn recover_in_time(&self, loaded: Loaded, decode: Decode) {
        let id = loaded.id.clone();
        let pod = Arc::new(self.pod_of_record(&loaded, decode));
        let recovered = tokio::time::timeout(LIMIT, self.recover_pod(&pod, loaded, decode)).await;
        let error = match recovered {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::Deadline {
                what: format!("recovery of pod {id}"),
                after: LIMIT,
            },
        };
        tracing::error!(pod = %id, %error, "cannot recover the pod; it is NOTREADY");
        pod.stopped();
        self.index.add_pod(&pod);
    }

    async fn recover_pod(
        &self,
        pod: &Arc<Pod>,
        loaded: Loaded,
        decode: Decode,
    ) -> Result<(), Error> {
        let mut unfinished = Vec::new();
        for (id, record) in loaded.containers {
            let container = Arc::new(container_of(pod, id, record, decode));
            if container.phase() == ContainerPhase::Creating {
                unfinished.push(Arc::clone(&container));
            } else {
                self.index.add_container(&container);
            }
            pod.add_container(container);
        }
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
                self.index.add_pod(pod);
                self.end_all(pod, "the pod was stopped").await?;
                self.undo_containers(pod, unfinished).await?;
                self.take_down(pod).await
            }
            Phase::Ready => {
                self.recover_ready(pod, unfinished).await?;
                self.index.add_pod(pod);
                Ok(())
            }
        }
    }

    async fn recover_ready(
        &self,
        pod: &Arc<Pod>,
        unfinished: Vec<Arc<Container>>,
    ) -> Result<(), Error> {
        let same_boot = pod.record.read(|r| r.boot_id == self.parts.boot_id);
        let connected = if same_boot {
            holder::connect(&self.pod_run_dir(&pod.id), GREETING)
                .await
                .ok()
        } else {
            None
        };
        let Some(connected) = connected else {
            let why = if same_boot {
                "the pod's holder is gone"
            } else {
                "the node was restarted"
            };
            tracing::warn!(pod = %pod.id, why, "the pod is over");
            pod.stopped();
            self.end_all(pod, why).await?;
            self.undo_containers(pod, unfinished).await?;
            return self.take_down(pod).await;
        };
        let Connected {
            client,
            hello,
            netns,
            events,
        } = connected;
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
                    Status::Created => return Ok(()),
                    Status::Running => pod.container_started(container, state.started_at_ns),
                    Status::Exited => {
                        let oom = oom_killed(&self.parts.cgroups, container).await;
                        pod.container_ended(container, &state, oom);
                    }
                }
            }
        }
        container.save(&self.parts.state).await
    }

    async fn end_all(&self, pod: &Arc<Pod>, why: &str) -> Result<(), Error> {
        for container in pod.containers() {
            if container.has_ended() || container.phase() == ContainerPhase::Removing {
                continue;
            }
            kill_cgroup(&self.parts.cgroups, &container).await?;
            pod.container_lost(&container, UNKNOWN, "Unknown", why);
            container.save(&self.parts.state).await?;
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

    /// What belongs to no record: root filesystems, addresses, cgroups, sockets.
    async fn sweep(&self) -> Result<(), Error> {
        let mut failures = Failures::default();
        let containers: HashSet<String> = self.containers().iter().map(|c| c.id.clone()).collect();
        if let Some(prepared) = failures.note(self.parts.images.prepared().await) {
            for key in prepared.iter().filter(|key| !containers.contains(*key)) {
                failures.note(self.parts.images.release(key).await);
            }
        }
        for handler in self.parts.handlers.oci() {
            failures.note(handler.sweep(|id| containers.contains(id)).await);
        }
        failures.note(self.sweep_volumes(containers).await);
        let pods: Vec<String> = self.pods().iter().map(|pod| pod.id.clone()).collect();
        failures.note(self.parts.network.gc(&pods).await);
        failures.note(self.sweep_cgroups(&pods).await);
        let run = self.parts.run.join("pods");
        failures.note(
            blocking(move || {
                let mut failures = Failures::default();
                for entry in std::fs::read_dir(&run).into_iter().flatten().flatten() {
                    if !pods.iter().any(|pod| entry.file_name() == pod.as_str()) {
                        let path = entry.path();
                        let what = format!("remove {}", path.display());
                        failures.note(std::fs::remove_dir_all(path).map_err(Error::io(what)));
                    }
                }
                failures.into_result()
            })
            .await,
        );
        failures.into_result()
    }
}

fn container_of(
    pod: &Pod,
    id: String,
    record: Result<ContainerRecord, String>,
    decode: Decode,
) -> Container {
    let readable = record.and_then(|record| {
        let config = (decode.container)(&record.config).map_err(|error| error.to_string())?;
        Ok((record, config))
    });
    match readable {
        Ok((record, config)) => Container::new(record, config),
        Err(why) => {
            tracing::error!(container = %id, %why, "container record is quarantined");
            let name = format!("quarantined-{}", short(&id));
            let mut record = ContainerRecord {
                cgroup: format!("{}/{id}", pod.cgroup()),
                id,
                pod_id: pod.id.clone(),
                exit_code: UNKNOWN,
                reason: "Unknown".into(),
                message: why,
                ..ContainerRecord::default()
            };
            record.set_phase(ContainerPhase::Exited);
            Container::new(
                record,
                ContainerConfig {
                    name,
                    ..ContainerConfig::default()
                },
            )
        }
    }
}
