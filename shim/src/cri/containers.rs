//! The container calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carpel_proto::cri;
use prost::Message;

use super::chunks::chunks;
use super::filter::{id_matches, labels_match};
use super::{MAX_MESSAGE, from_wire, info, to_wire};
use crate::error::Error;
use crate::pod::{ContainerView, CreateRequest, Runtime};

pub(super) async fn create(
    runtime: &Arc<Runtime>,
    request: cri::CreateContainerRequest,
) -> Result<cri::CreateContainerResponse, Error> {
    let config = request
        .config
        .ok_or_else(|| Error::Invalid("config: is missing".into()))?;
    let has_security_context = config
        .linux
        .as_ref()
        .is_some_and(|linux| linux.security_context.is_some());
    let container_id = runtime
        .create_container(CreateRequest {
            pod_id: request.pod_sandbox_id,
            received: config.encode_to_vec(),
            config: from_wire::container_config(&config)?,
            has_security_context,
        })
        .await?;
    Ok(cri::CreateContainerResponse { container_id })
}

pub(super) fn seconds(field: &str, value: i64) -> Result<Duration, Error> {
    u64::try_from(value)
        .map(Duration::from_secs)
        .map_err(|_| Error::Invalid(format!("{field}: {value} is negative")))
}

pub(super) fn list(
    runtime: &Runtime,
    request: cri::ListContainersRequest,
) -> cri::ListContainersResponse {
    cri::ListContainersResponse {
        containers: wanted(runtime, request.filter)
            .iter()
            .map(to_wire::container)
            .collect(),
    }
}

pub(super) fn stream(
    runtime: &Runtime,
    request: cri::StreamContainersRequest,
) -> impl Iterator<Item = cri::StreamContainersResponse> + use<> {
    let containers = wanted(runtime, request.filter).into_iter();
    chunks(containers.map(|container| to_wire::container(&container)))
        .map(|containers| cri::StreamContainersResponse { containers })
}

fn wanted(runtime: &Runtime, filter: Option<cri::ContainerFilter>) -> Vec<ContainerView> {
    let filter = filter.unwrap_or_default();
    let wanted = |container: &ContainerView| {
        let state = i32::from(to_wire::container_state(
            container.status.phase,
            container.status.unknown,
        ));
        id_matches(&filter.id, &container.id)
            && id_matches(&filter.pod_sandbox_id, &container.pod_id)
            && filter.state.is_none_or(|want| want.state == state)
            && labels_match(&filter.label_selector, &container.config.labels)
    };
    let containers = runtime.containers();
    containers
        .iter()
        .map(|container| container.view())
        .filter(wanted)
        .collect()
}

pub(super) async fn status(
    runtime: &Runtime,
    request: &cri::ContainerStatusRequest,
) -> Result<cri::ContainerStatusResponse, Error> {
    let container = runtime.container(&request.container_id)?;
    let info = if request.verbose {
        info::container(runtime, &container).await
    } else {
        HashMap::new()
    };
    Ok(cri::ContainerStatusResponse {
        status: Some(to_wire::container_status(&container.view())),
        info,
    })
}

pub(super) async fn exec_sync(
    runtime: &Runtime,
    request: cri::ExecSyncRequest,
) -> Result<cri::ExecSyncResponse, Error> {
    let limit = seconds("timeout", request.timeout)?;
    let limit = (!limit.is_zero()).then_some(limit);
    let mut output = runtime
        .exec_sync(&request.container_id, &request.cmd, limit)
        .await?;
    fit(&mut output.stdout, &mut output.stderr, MOST_OUTPUT);
    Ok(cri::ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.exit_code,
    })
}

/// Clients take a message of at most this; a few bytes are for the rest of it.
const MOST_OUTPUT: usize = MAX_MESSAGE - 64;

/// Cuts the ends off two streams that are too long together, of the longer one first.
fn fit(one: &mut Vec<u8>, other: &mut Vec<u8>, room: usize) {
    let (short, long) = if one.len() < other.len() {
        (one, other)
    } else {
        (other, one)
    };
    short.truncate(room / 2);
    long.truncate(room - short.len());
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn two_streams_share_the_room_and_the_shorter_keeps_what_it_can() {
        for (lengths, expected) in [
            ((3, 4), (3, 4)),
            ((20, 3), (7, 3)),
            ((3, 20), (3, 7)),
            ((20, 20), (5, 5)),
        ] {
            let (mut one, mut other) = (vec![0; lengths.0], vec![0; lengths.1]);
            fit(&mut one, &mut other, 10);
            assert_eq!((one.len(), other.len()), expected);
        }
    }
}
