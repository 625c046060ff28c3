//! Fields that are newer than the client crate, through our own types.

use carpel_conformance::Node;
use carpel_proto::cri as ours;
use carpel_proto::cri::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1 as cri;
use prost::Message;
use tonic::Status;

/// Creates a container whose configuration `change` has completed.
pub(crate) async fn create(
    node: &Node,
    pod: &str,
    config: &cri::ContainerConfig,
    change: impl FnOnce(&mut ours::ContainerConfig),
) -> Result<String, Status> {
    let bytes = config.encode_to_vec();
    let mut config = ours::ContainerConfig::decode(&bytes[..])
        .map_err(|error| Status::internal(error.to_string()))?;
    change(&mut config);
    let request = ours::CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(config),
        sandbox_config: None,
    };
    let mut client = RuntimeServiceClient::new(node.cri().channel());
    let created = client.create_container(request).await?;
    Ok(created.into_inner().container_id)
}

pub(crate) async fn status(node: &Node, id: &str) -> Result<ours::ContainerStatus, Status> {
    let request = ours::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    let mut client = RuntimeServiceClient::new(node.cri().channel());
    let answer = client.container_status(request).await?.into_inner();
    answer.status.ok_or_else(|| Status::internal("no status"))
}
