//! The calls that tell what containers and pods use.

use std::sync::Arc;

use carpel_proto::cri;
use carpel_proto::state::container_record::Phase;
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::Status;

use super::chunks::chunks;
use super::filter::{id_matches, labels_match};
use super::{to_status, usage};
use crate::error::Error;
use crate::pod::{Container, Pod, Runtime};

/// Pods or containers that a stream looks at in one go.
const BATCH: usize = 50;

type Streamed<T> = BoxStream<'static, Result<T, Status>>;

pub(super) async fn container(
    runtime: &Runtime,
    request: &cri::ContainerStatsRequest,
) -> Result<cri::ContainerStatsResponse, Error> {
    let container = runtime.container(&request.container_id)?;
    let used = runtime.container_usage(container).await?;
    Ok(cri::ContainerStatsResponse {
        stats: Some(usage::container(&used)),
    })
}

pub(super) async fn containers(
    runtime: &Runtime,
    request: cri::ListContainerStatsRequest,
) -> Result<cri::ListContainerStatsResponse, Error> {
    let used = runtime
        .containers_usage(wanted_containers(runtime, request.filter))
        .await?;
    Ok(cri::ListContainerStatsResponse {
        stats: used.iter().map(usage::container).collect(),
    })
}

pub(super) fn stream_containers(
    runtime: &Arc<Runtime>,
    request: cri::StreamContainerStatsRequest,
) -> Streamed<cri::StreamContainerStatsResponse> {
    let wanted = wanted_containers(runtime, request.filter);
    let look = |runtime: Arc<Runtime>, batch| async move {
        let used = runtime.containers_usage(batch).await?;
        Ok(used.iter().map(usage::container).collect())
    };
    in_batches(runtime, wanted, look, |container_stats| {
        cri::StreamContainerStatsResponse { container_stats }
    })
}

fn wanted_containers(
    runtime: &Runtime,
    filter: Option<cri::ContainerStatsFilter>,
) -> Vec<Arc<Container>> {
    let filter = filter.unwrap_or_default();
    let mut containers = runtime.containers();
    containers.retain(|container| {
        matches!(container.phase(), Phase::Created | Phase::Running)
            && id_matches(&filter.id, &container.id)
            && id_matches(&filter.pod_sandbox_id, &container.pod_id)
            && labels_match(&filter.label_selector, &container.config.labels)
    });
    containers
}

pub(super) async fn pod(
    runtime: &Runtime,
    request: &cri::PodSandboxStatsRequest,
) -> Result<cri::PodSandboxStatsResponse, Error> {
    let pod = runtime.pod(&request.pod_sandbox_id)?;
    let used = runtime.pod_usage(pod).await?;
    Ok(cri::PodSandboxStatsResponse {
        stats: Some(usage::pod(&used)),
    })
}

pub(super) async fn pods(
    runtime: &Runtime,
    request: cri::ListPodSandboxStatsRequest,
) -> Result<cri::ListPodSandboxStatsResponse, Error> {
    let used = runtime
        .pods_usage(wanted_pods(runtime, request.filter))
        .await?;
    Ok(cri::ListPodSandboxStatsResponse {
        stats: used.iter().map(usage::pod).collect(),
    })
}

pub(super) fn stream_pods(
    runtime: &Arc<Runtime>,
    request: cri::StreamPodSandboxStatsRequest,
) -> Streamed<cri::StreamPodSandboxStatsResponse> {
    let wanted = wanted_pods(runtime, request.filter);
    let look = |runtime: Arc<Runtime>, batch| async move {
        let used = runtime.pods_usage(batch).await?;
        Ok(used.iter().map(usage::pod).collect())
    };
    in_batches(runtime, wanted, look, |pod_sandbox_stats| {
        cri::StreamPodSandboxStatsResponse { pod_sandbox_stats }
    })
}

fn wanted_pods(runtime: &Runtime, filter: Option<cri::PodSandboxStatsFilter>) -> Vec<Arc<Pod>> {
    let filter = filter.unwrap_or_default();
    let mut pods = runtime.pods();
    pods.retain(|pod| {
        pod.is_ready()
            && id_matches(&filter.id, &pod.id)
            && labels_match(&filter.label_selector, &pod.config.labels)
    });
    pods
}

/// Looks at the next batch only when the messages of the last one were taken.
pub(super) fn in_batches<I, T, R, F>(
    runtime: &Arc<Runtime>,
    all: Vec<I>,
    look: impl Fn(Arc<Runtime>, Vec<I>) -> F + Send + 'static,
    message: impl Fn(Vec<T>) -> R + Send + Copy + 'static,
) -> Streamed<R>
where
    I: Clone + Send + 'static,
    T: prost::Message + 'static,
    R: Send + 'static,
    F: Future<Output = Result<Vec<T>, Error>> + Send + 'static,
{
    let runtime = Arc::clone(runtime);
    let batches: Vec<Vec<I>> = all.chunks(BATCH).map(<[I]>::to_vec).collect();
    stream::iter(batches)
        .then(move |batch| look(Arc::clone(&runtime), batch))
        .flat_map(move |looked| {
            let messages: Vec<Result<R, Status>> = match looked {
                Ok(items) => chunks(items).map(|chunk| Ok(message(chunk))).collect(),
                Err(error) => vec![Err(to_status(error))],
            };
            stream::iter(messages)
        })
        .boxed()
}
