//! After a start: all pods that an earlier daemon left, at once.

use std::sync::Arc;
use std::time::Duration;

use carpel_proto::state::container_record::Phase as ContainerPhase;
use carpel_proto::state::pod_record::Phase;
use carpel_proto::state::{ContainerRecord, PodRecord};
use carpel_spec::intent::{ContainerConfig, PodConfig};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::container::Container;
use super::pod::Pod;
use super::quarantine;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::Error;
use crate::state::Loaded;

/// For one pod; a holder that hangs holds up no other.
const LIMIT: Duration = Duration::from_secs(30);
/// Before the daemon serves; what takes longer goes on meanwhile.
const SOON: Duration = Duration::from_secs(2);
const RECOVERING: &str = "the pod is still being recovered: its holder has not answered yet";

/// Reads the configurations of records, which are in wire form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decode {
    pub(crate) pod: fn(&[u8]) -> Result<PodConfig, Error>,
    pub(crate) container: fn(&[u8]) -> Result<ContainerConfig, Error>,
}

/// A pod as its records tell it.
struct Found {
    pod: Arc<Pod>,
    /// Containers whose creation did not come to its end.
    unfinished: Vec<Arc<Container>>,
}

impl Runtime {
    /// Finds again what an earlier daemon left. When this returns everything is
    /// listed; pods that did not answer in time are recovered in the background.
    pub(crate) async fn recover(self: &Arc<Self>, decode: Decode) -> Result<(), Error> {
        let state = self.parts.state.clone();
        let found = blocking(move || state.load()).await?;
        let count = found.len();
        let mut known = Vec::with_capacity(count);
        let mut pods = JoinSet::new();
        for loaded in found {
            known.push(loaded.id.clone());
            let (found, this) = (self.list(loaded, decode), Arc::clone(self));
            pods.spawn(async move { this.recover_in_time(found).await });
        }
        let soon = Instant::now() + SOON;
        while let Ok(Some(ended)) = timeout_at(soon, pods.join_next()).await {
            if let Err(error) = ended {
                tracing::error!(%error, "the recovery of a pod crashed");
            }
        }
        if !pods.is_empty() {
            let late = pods.len();
            tracing::warn!(late, after = ?SOON, "serving while pods are still being recovered");
        }
        pods.detach_all();
        if let Err(error) = self.sweep(&known).await {
            tracing::error!(%error, "cannot clean up all that an earlier run left");
        }
        if count > 0 {
            tracing::info!(pods = self.pods().len(), records = count, "recovered");
        }
        Ok(())
    }

    /// Makes the pod and its containers visible, as far as their records go.
    fn list(&self, loaded: Loaded, decode: Decode) -> Found {
        let pod = match readable_pod(&loaded, decode) {
            Ok((record, config)) => Pod::new(record, config, Arc::clone(&self.feed), None),
            Err(why) => self.quarantined_pod(&loaded, why),
        };
        let pod = Arc::new(pod);
        pod.set_recovering(true);
        let phase = pod.record.read(PodRecord::phase);
        let visible = matches!(phase, Phase::Ready | Phase::NotReady);
        let mut unfinished = Vec::new();
        for (id, record) in loaded.containers {
            let container = match readable_container(record, decode) {
                Ok((record, config)) => Container::new(record, config),
                Err(why) => quarantine::container(&pod, id, why),
            };
            let container = Arc::new(container);
            if container.phase() == ContainerPhase::Creating {
                unfinished.push(Arc::clone(&container));
            } else {
                container.set_unknown(!container.has_ended());
                if visible {
                    self.index.add_container(&container);
                }
            }
            pod.add_container(container);
        }
        if visible {
            pod.say_why(RECOVERING);
            self.index.add_pod(&pod);
        }
        Found { pod, unfinished }
    }

    async fn recover_in_time(&self, found: Found) {
        let Found { pod, unfinished } = found;
        let _alone = pod.busy.write().await;
        let error = match timeout(LIMIT, self.recover_pod(&pod, unfinished)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(Error::Deadline {
                what: format!("recovery of pod {}", pod.id),
                after: LIMIT,
            }),
        };
        if let Some(error) = error {
            tracing::error!(pod = %pod.id, %error, "cannot recover the pod; it is NOTREADY");
            if pod.record.read(PodRecord::phase) != Phase::Removing {
                pod.set_phase(Phase::NotReady);
            }
            pod.say_why(&error.to_string());
            self.index.add_pod(&pod);
            for container in pod.containers() {
                container.set_unknown(!container.has_ended());
                self.index.add_container(&container);
            }
        } else if pod.is_ready_by_record() {
            pod.say_why("");
        }
        pod.recovered();
    }
}

fn readable_pod(loaded: &Loaded, decode: Decode) -> Result<(PodRecord, PodConfig), String> {
    let record = loaded.pod.as_ref().map_err(Clone::clone)?;
    if record.id != loaded.id {
        return Err(format!("is the record of pod {:?}", record.id));
    }
    let config = (decode.pod)(&record.config).map_err(|error| error.to_string())?;
    Ok((record.clone(), config))
}

fn readable_container(
    record: Result<ContainerRecord, String>,
    decode: Decode,
) -> Result<(ContainerRecord, ContainerConfig), String> {
    let record = record?;
    let config = (decode.container)(&record.config).map_err(|error| error.to_string())?;
    Ok((record, config))
}
