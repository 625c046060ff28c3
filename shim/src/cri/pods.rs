//! The pod calls.

use std::collections::HashMap;
use std::sync::Arc;

use carpel_proto::cri;
use prost::Message;

use super::chunks::chunks;
use super::filter::{id_matches, labels_match};
use super::{from_wire, info, to_wire};
use crate::error::Error;
use crate::pod::{PodView, RunRequest, Runtime, now_ns};

pub(super) async fn run(
    runtime: &Arc<Runtime>,
    request: cri::RunPodSandboxRequest,
) -> Result<cri::RunPodSandboxResponse, Error> {
    let config = request
        .config
        .ok_or_else(|| Error::Invalid("config: is missing".into()))?;
    let pod_sandbox_id = runtime
        .run_pod(RunRequest {
            received: config.encode_to_vec(),
            config: from_wire::pod_config(&config)?,
            runtime_handler: request.runtime_handler,
        })
        .await?;
    Ok(cri::RunPodSandboxResponse { pod_sandbox_id })
}

pub(super) fn status(
    runtime: &Runtime,
    request: &cri::PodSandboxStatusRequest,
) -> Result<cri::PodSandboxStatusResponse, Error> {
    let pod = runtime.pod(&request.pod_sandbox_id)?;
    let containers = pod.containers();
    Ok(cri::PodSandboxStatusResponse {
        status: Some(to_wire::pod_status(&pod.view())),
        info: if request.verbose {
            info::pod(runtime, &pod)
        } else {
            HashMap::new()
        },
        containers_statuses: containers
            .iter()
            .map(|c| to_wire::container_status(&c.view()))
            .collect(),
        timestamp: now_ns(),
    })
}

pub(super) fn list(
    runtime: &Runtime,
    request: cri::ListPodSandboxRequest,
) -> cri::ListPodSandboxResponse {
    cri::ListPodSandboxResponse {
        items: wanted(runtime, request.filter)
            .iter()
            .map(to_wire::pod)
            .collect(),
    }
}

pub(super) fn stream(
    runtime: &Runtime,
    request: cri::StreamPodSandboxesRequest,
) -> impl Iterator<Item = cri::StreamPodSandboxesResponse> + use<> {
    let pods = wanted(runtime, request.filter).into_iter();
    chunks(pods.map(|pod| to_wire::pod(&pod)))
        .map(|pod_sandboxes| cri::StreamPodSandboxesResponse { pod_sandboxes })
}

fn wanted(runtime: &Runtime, filter: Option<cri::PodSandboxFilter>) -> Vec<PodView> {
    let filter = filter.unwrap_or_default();
    let wanted = |pod: &PodView| {
        id_matches(&filter.id, &pod.id)
            && filter
                .state
                .is_none_or(|want| want.state == i32::from(to_wire::pod_state(pod)))
            && labels_match(&filter.label_selector, &pod.config.labels)
    };
    let pods = runtime.pods();
    pods.iter().map(|pod| pod.view()).filter(wanted).collect()
}
