//! The calls that change limits.

use std::sync::Arc;

use carpel_proto::cri;

use super::from_wire;
use crate::error::Error;
use crate::pod::Runtime;

/// The request's annotations say nothing of limits.
pub(super) async fn update_container(
    runtime: &Arc<Runtime>,
    request: cri::UpdateContainerResourcesRequest,
) -> Result<cri::UpdateContainerResourcesResponse, Error> {
    let update = request.linux.as_ref().map(from_wire::resources);
    runtime
        .update_container(&request.container_id, update.unwrap_or_default())
        .await?;
    Ok(cri::UpdateContainerResourcesResponse {})
}

pub(super) async fn update_pod(
    runtime: &Arc<Runtime>,
    request: cri::UpdatePodSandboxResourcesRequest,
) -> Result<cri::UpdatePodSandboxResourcesResponse, Error> {
    let given = |wire: &Option<cri::LinuxContainerResources>| {
        wire.as_ref().map(from_wire::resources).unwrap_or_default()
    };
    let (overhead, resources) = (given(&request.overhead), given(&request.resources));
    runtime
        .update_pod(&request.pod_sandbox_id, overhead, resources)
        .await?;
    Ok(cri::UpdatePodSandboxResourcesResponse {})
}
