//! ListMetricDescriptors, ListPodSandboxMetrics, StreamPodSandboxMetrics.

mod catalogue;
mod samples;

use std::sync::Arc;

use carpel_proto::cri;
use futures_util::stream::BoxStream;
use tonic::Status;

use super::stats::in_batches;
use crate::error::Error;
use crate::pod::Runtime;

pub(super) fn descriptors(runtime: &Runtime) -> cri::ListMetricDescriptorsResponse {
    cri::ListMetricDescriptorsResponse {
        descriptors: catalogue::descriptors(runtime.tells_pressure()),
    }
}

pub(super) async fn pods(runtime: &Runtime) -> Result<cri::ListPodSandboxMetricsResponse, Error> {
    let details = runtime.pods_details(runtime.pods()).await?;
    Ok(cri::ListPodSandboxMetricsResponse {
        pod_metrics: details.iter().map(samples::of_pod).collect(),
    })
}

pub(super) fn stream(
    runtime: &Arc<Runtime>,
) -> BoxStream<'static, Result<cri::StreamPodSandboxMetricsResponse, Status>> {
    let look = |runtime: Arc<Runtime>, batch| async move {
        let details = runtime.pods_details(batch).await?;
        Ok(details.iter().map(samples::of_pod).collect())
    };
    in_batches(runtime, runtime.pods(), look, |pod_sandbox_metrics| {
        cri::StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        }
    })
}
