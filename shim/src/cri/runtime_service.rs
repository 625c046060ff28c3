//! `runtime.v1.RuntimeService`: one line a call.

use std::sync::Arc;

use arc_swap::ArcSwap;
use carpel_proto::cri;
use carpel_proto::cri::runtime_service_server::RuntimeService;
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use super::{containers, events, metrics, pods, resources, stats, status, to_status};
use crate::config::Config;
use crate::pod::Runtime;

#[derive(Debug)]
pub(crate) struct RuntimeEdge(
    pub(crate) Arc<Runtime>,
    /// The configuration in force.
    pub(crate) Arc<ArcSwap<Config>>,
);

type Reply<T> = Result<Response<T>, Status>;

fn reply<T>(result: Result<T, crate::error::Error>) -> Reply<T> {
    result.map(Response::new).map_err(to_status)
}

type Streamed<T> = BoxStream<'static, Result<T, Status>>;

fn streamed<T: Send + 'static>(
    messages: impl Iterator<Item = T> + Send + 'static,
) -> Reply<Streamed<T>> {
    Ok(Response::new(stream::iter(messages.map(Ok)).boxed()))
}

/// What is not there yet; each stands in docs/cri-support.md.
fn not_yet<T>(call: &str) -> Reply<T> {
    Err(Status::unimplemented(format!(
        "{call} is not implemented yet"
    )))
}

#[tonic::async_trait]
impl RuntimeService for RuntimeEdge {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Reply<cri::VersionResponse> {
        reply(Ok(status::version()))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Reply<cri::StatusResponse> {
        reply(Ok(status::status(
            &self.0,
            &self.1.load(),
            request.into_inner().verbose,
        )
        .await))
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Reply<cri::RuntimeConfigResponse> {
        reply(Ok(status::runtime_config(&self.0)))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Reply<cri::UpdateRuntimeConfigResponse> {
        reply(status::update(&self.0, request.into_inner()).await)
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Reply<cri::RunPodSandboxResponse> {
        reply(pods::run(&self.0, request.into_inner()).await)
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Reply<cri::StopPodSandboxResponse> {
        let stopped = self.0.stop_pod(&request.into_inner().pod_sandbox_id).await;
        reply(stopped.map(|()| cri::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Reply<cri::RemovePodSandboxResponse> {
        let removed = self
            .0
            .remove_pod(&request.into_inner().pod_sandbox_id)
            .await;
        reply(removed.map(|()| cri::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Reply<cri::PodSandboxStatusResponse> {
        reply(pods::status(&self.0, &request.into_inner()))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Reply<cri::ListPodSandboxResponse> {
        reply(Ok(pods::list(&self.0, request.into_inner())))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Reply<cri::CreateContainerResponse> {
        reply(containers::create(&self.0, request.into_inner()).await)
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Reply<cri::StartContainerResponse> {
        let started = self
            .0
            .start_container(&request.into_inner().container_id)
            .await;
        reply(started.map(|()| cri::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Reply<cri::StopContainerResponse> {
        let request = request.into_inner();
        let grace = containers::seconds("timeout", request.timeout).map_err(to_status)?;
        let stopped = self.0.stop_container(&request.container_id, grace).await;
        reply(stopped.map(|()| cri::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Reply<cri::RemoveContainerResponse> {
        let removed = self
            .0
            .remove_container(&request.into_inner().container_id)
            .await;
        reply(removed.map(|()| cri::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Reply<cri::ListContainersResponse> {
        reply(Ok(containers::list(&self.0, request.into_inner())))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Reply<cri::ContainerStatusResponse> {
        reply(containers::status(&self.0, &request.into_inner()).await)
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Reply<cri::ReopenContainerLogResponse> {
        let reopened = self.0.reopen_log(&request.into_inner().container_id).await;
        reply(reopened.map(|()| cri::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Reply<cri::ExecSyncResponse> {
        reply(containers::exec_sync(&self.0, request.into_inner()).await)
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Reply<cri::ContainerStatsResponse> {
        reply(stats::container(&self.0, &request.into_inner()).await)
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Reply<cri::ListContainerStatsResponse> {
        reply(stats::containers(&self.0, request.into_inner()).await)
    }

    type StreamPodSandboxesStream = Streamed<cri::StreamPodSandboxesResponse>;
    type StreamContainersStream = Streamed<cri::StreamContainersResponse>;
    type StreamContainerStatsStream = Streamed<cri::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Streamed<cri::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Streamed<cri::StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = Streamed<cri::ContainerEventResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Reply<Self::StreamPodSandboxesStream> {
        streamed(pods::stream(&self.0, request.into_inner()))
    }

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Reply<Self::StreamContainersStream> {
        streamed(containers::stream(&self.0, request.into_inner()))
    }

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Reply<Self::StreamContainerStatsStream> {
        let stream = stats::stream_containers(&self.0, request.into_inner());
        Ok(Response::new(stream))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Reply<Self::StreamPodSandboxStatsStream> {
        let stream = stats::stream_pods(&self.0, request.into_inner());
        Ok(Response::new(stream))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Reply<Self::StreamPodSandboxMetricsStream> {
        Ok(Response::new(metrics::stream(&self.0)))
    }

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Reply<Self::GetContainerEventsStream> {
        reply(events::follow(&self.0))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Reply<cri::UpdateContainerResourcesResponse> {
        reply(resources::update_container(&self.0, request.into_inner()).await)
    }

    async fn exec(&self, _: Request<cri::ExecRequest>) -> Reply<cri::ExecResponse> {
        not_yet("Exec")
    }

    async fn attach(&self, _: Request<cri::AttachRequest>) -> Reply<cri::AttachResponse> {
        not_yet("Attach")
    }

    async fn port_forward(
        &self,
        _: Request<cri::PortForwardRequest>,
    ) -> Reply<cri::PortForwardResponse> {
        not_yet("PortForward")
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Reply<cri::PodSandboxStatsResponse> {
        reply(stats::pod(&self.0, &request.into_inner()).await)
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Reply<cri::ListPodSandboxStatsResponse> {
        reply(stats::pods(&self.0, request.into_inner()).await)
    }

    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Reply<cri::CheckpointContainerResponse> {
        not_yet("CheckpointContainer")
    }

    async fn checkpoint_pod(
        &self,
        _: Request<cri::CheckpointPodRequest>,
    ) -> Reply<cri::CheckpointPodResponse> {
        not_yet("CheckpointPod")
    }

    async fn restore_pod(
        &self,
        _: Request<cri::RestorePodRequest>,
    ) -> Reply<cri::RestorePodResponse> {
        not_yet("RestorePod")
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Reply<cri::ListMetricDescriptorsResponse> {
        reply(Ok(metrics::descriptors(&self.0)))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Reply<cri::ListPodSandboxMetricsResponse> {
        reply(metrics::pods(&self.0).await)
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Reply<cri::UpdatePodSandboxResourcesResponse> {
        reply(resources::update_pod(&self.0, request.into_inner()).await)
    }
}
