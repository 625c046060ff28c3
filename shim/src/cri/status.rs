//! Version, Status, RuntimeConfig, UpdateRuntimeConfig.

use std::collections::HashMap;

use carpel_proto::cri;

use super::info;
use crate::config::Config;
use crate::error::Error;
use crate::pod::Runtime;

/// What the kubelet calls this API (CRI VersionResponse.version).
const KUBELET_API: &str = "0.1.0";

pub(super) fn version() -> cri::VersionResponse {
    cri::VersionResponse {
        version: KUBELET_API.into(),
        runtime_name: "carpel".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: "v1".into(),
    }
}

pub(super) async fn status(
    runtime: &Runtime,
    config: &Config,
    verbose: bool,
) -> cri::StatusResponse {
    let network = runtime.network().status().await;
    let condition = |kind: &str, status, reason: &str, message: &str| cri::RuntimeCondition {
        r#type: kind.into(),
        status,
        reason: reason.into(),
        message: message.into(),
    };
    let conditions = vec![
        condition("RuntimeReady", true, "", ""),
        condition(
            "NetworkReady",
            network.ready,
            &network.reason,
            &network.message,
        ),
    ];
    let handlers = runtime.handlers().describe().await;
    let handlers = handlers.into_iter().map(|handler| cri::RuntimeHandler {
        name: handler.name,
        features: Some(cri::RuntimeHandlerFeatures {
            recursive_read_only_mounts: handler.recursive_read_only_mounts,
            user_namespaces: false,
        }),
    });
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions }),
        info: if verbose {
            info::node(runtime, config)
        } else {
            HashMap::new()
        },
        runtime_handlers: handlers.collect(),
        features: Some(cri::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
            mount_options: true,
        }),
    }
}

pub(super) fn runtime_config(runtime: &Runtime) -> cri::RuntimeConfigResponse {
    let driver = if runtime.uses_systemd() {
        cri::CgroupDriver::Systemd
    } else {
        cri::CgroupDriver::Cgroupfs
    };
    cri::RuntimeConfigResponse {
        linux: Some(cri::LinuxRuntimeConfiguration {
            cgroup_driver: driver.into(),
        }),
    }
}

pub(super) async fn update(
    runtime: &Runtime,
    request: cri::UpdateRuntimeConfigRequest,
) -> Result<cri::UpdateRuntimeConfigResponse, Error> {
    let cidrs = request
        .runtime_config
        .and_then(|config| config.network_config)
        .map(|network| network.pod_cidr)
        .unwrap_or_default();
    // The kubelet sends both families in one string, and an empty one early on.
    let cidrs = cidrs
        .split(',')
        .map(str::trim)
        .filter(|cidr| !cidr.is_empty())
        .map(|cidr| {
            cidr.parse().map_err(|error| {
                Error::Invalid(format!(
                    "runtime_config.network_config.pod_cidr: {cidr:?} is no CIDR: {error}"
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if !cidrs.is_empty() {
        runtime.network().set_pod_cidrs(&cidrs).await?;
    }
    Ok(cri::UpdateRuntimeConfigResponse {})
}
