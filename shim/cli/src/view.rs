//! What a runtime says about pods, containers and images, in the shape kubectl shows it.

use std::collections::{BTreeMap, HashMap};

use carpel_proto::cri;
use serde::Serialize;

use crate::{keys, time};

/// A list of objects, as `kubectl get -o json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<T>,
}

impl<T> List<T> {
    pub(crate) fn of(items: Vec<T>) -> Self {
        Self {
            api_version: "v1",
            kind: "List",
            items,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    api_version: &'static str,
    kind: &'static str,
    pub(crate) metadata: Metadata,
    pub(crate) status: PodStatus,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) creation_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub(crate) phase: &'static str,
    pub(crate) sandbox_id: String,
    pub(crate) sandbox_state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) runtime_handler: String,
    #[serde(rename = "podIP", skip_serializing_if = "String::is_empty")]
    pub(crate) pod_ip: String,
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) pod_ips: Vec<PodIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) init_container_statuses: Vec<Container>,
    pub(crate) container_statuses: Vec<Container>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: String,
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) image: String,
    #[serde(rename = "imageID")]
    pub(crate) image_id: String,
    pub(crate) ready: bool,
    pub(crate) restart_count: u32,
    pub(crate) state: State,
    #[serde(skip)]
    pub(crate) init: bool,
    #[serde(skip)]
    pub(crate) created_at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    #[serde(rename_all = "camelCase")]
    Waiting { reason: String },
    #[serde(rename_all = "camelCase")]
    Running { started_at: String },
    #[serde(rename_all = "camelCase")]
    Terminated {
        exit_code: i32,
        reason: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        message: String,
        started_at: String,
        finished_at: String,
    },
}

impl State {
    /// One word for a column.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Waiting { reason } => reason.clone(),
            Self::Running { .. } => "Running".to_owned(),
            Self::Terminated { reason, .. } => reason.clone(),
        }
    }

    fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Terminated { exit_code, .. } => Some(*exit_code),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Image {
    api_version: &'static str,
    kind: &'static str,
    pub(crate) id: String,
    pub(crate) repo_tags: Vec<String>,
    pub(crate) repo_digests: Vec<String>,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) username: String,
    pub(crate) pinned: bool,
}

/// A pod from its listing, its status and those of its latest containers.
pub(crate) fn pod(
    listed: &cri::PodSandbox,
    status: Option<&cri::PodSandboxStatus>,
    containers: &[cri::ContainerStatus],
) -> Pod {
    let (init, regular): (Vec<_>, Vec<_>) = containers
        .iter()
        .map(container)
        .partition(|container| container.init);
    let network = status.and_then(|status| status.network.as_ref());
    let ips: Vec<PodIp> = network
        .into_iter()
        .flat_map(|network| {
            let more = network.additional_ips.iter().map(|more| more.ip.clone());
            std::iter::once(network.ip.clone()).chain(more)
        })
        .filter(|ip| !ip.is_empty())
        .map(|ip| PodIp { ip })
        .collect();
    let ready = listed.state() == cri::PodSandboxState::SandboxReady;
    let metadata = listed.metadata.clone().unwrap_or_default();
    Pod {
        api_version: "v1",
        kind: "Pod",
        metadata: Metadata {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            creation_timestamp: time::rfc3339(listed.created_at),
            labels: sorted(&listed.labels),
            annotations: sorted(&listed.annotations),
        },
        status: PodStatus {
            phase: phase(ready, &regular),
            sandbox_id: listed.id.clone(),
            sandbox_state: if ready { "Ready" } else { "NotReady" },
            runtime_handler: listed.runtime_handler.clone(),
            pod_ip: ips.first().map(|ip| ip.ip.clone()).unwrap_or_default(),
            pod_ips: ips,
            init_container_statuses: init,
            container_statuses: regular,
        },
    }
}

impl Pod {
    /// As `1/2`: containers that run, of all.
    pub(crate) fn ready(&self) -> String {
        let all = &self.status.container_statuses;
        format!(
            "{}/{}",
            all.iter().filter(|container| container.ready).count(),
            all.len()
        )
    }

    /// What kubectl's STATUS column would say.
    pub(crate) fn word(&self) -> String {
        let all = &self.status.container_statuses;
        let running = all.iter().any(|container| container.ready);
        let failed = all
            .iter()
            .find(|container| container.state.exit_code().is_some_and(|c| c != 0));
        match (self.status.sandbox_state, failed) {
            ("NotReady", _) => "Stopped".to_owned(),
            (_, Some(failed)) => failed.state.word(),
            (_, None) if running => "Running".to_owned(),
            (_, None) if self.status.phase == "Succeeded" => "Completed".to_owned(),
            (_, None) => match self.status.init_container_statuses.iter().find(|c| c.ready) {
                Some(_) => "Init".to_owned(),
                None => "Created".to_owned(),
            },
        }
    }
}

fn phase(ready: bool, containers: &[Container]) -> &'static str {
    let codes: Vec<Option<i32>> = containers.iter().map(|c| c.state.exit_code()).collect();
    let ended = !codes.is_empty() && codes.iter().all(Option::is_some);
    match (ended, ready) {
        (true, _) if codes.iter().all(|code| *code == Some(0)) => "Succeeded",
        (true, _) | (false, false) => "Failed",
        (false, true) if containers.iter().any(|container| container.ready) => "Running",
        (false, true) => "Pending",
    }
}

/// One container from its status.
pub(crate) fn container(status: &cri::ContainerStatus) -> Container {
    let metadata = status.metadata.clone().unwrap_or_default();
    let image = status.image.clone().unwrap_or_default();
    let named = [image.user_specified_image, image.image];
    Container {
        name: metadata.name,
        container_id: status.id.clone(),
        image: named
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default(),
        image_id: if status.image_id.is_empty() {
            &status.image_ref
        } else {
            &status.image_id
        }
        .clone(),
        ready: status.state() == cri::ContainerState::ContainerRunning,
        restart_count: metadata.attempt,
        state: state(status),
        init: status.annotations.contains_key(keys::INIT),
        created_at: status.created_at,
    }
}

fn state(status: &cri::ContainerStatus) -> State {
    match status.state() {
        cri::ContainerState::ContainerRunning => State::Running {
            started_at: time::rfc3339(status.started_at),
        },
        cri::ContainerState::ContainerExited => State::Terminated {
            exit_code: status.exit_code,
            reason: match (status.reason.as_str(), status.exit_code) {
                ("", 0) => "Completed".to_owned(),
                ("", _) => "Error".to_owned(),
                (reason, _) => reason.to_owned(),
            },
            message: status.message.clone(),
            started_at: time::rfc3339(status.started_at),
            finished_at: time::rfc3339(status.finished_at),
        },
        cri::ContainerState::ContainerCreated => State::Waiting {
            reason: "Created".to_owned(),
        },
        cri::ContainerState::ContainerUnknown => State::Waiting {
            reason: "Unknown".to_owned(),
        },
    }
}

/// One image.
pub(crate) fn image(image: &cri::Image) -> Image {
    Image {
        api_version: "v1",
        kind: "Image",
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: image.uid.as_ref().map(|uid| uid.value),
        username: image.username.clone(),
        pinned: image.pinned,
    }
}

fn sorted(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// As `4.2MB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut tenths = bytes / 100;
    if tenths < 10 {
        return format!("{bytes}B");
    }
    for unit in units {
        if tenths < 10_000 || unit == "TB" {
            let small = tenths < 1000;
            return if small {
                format!("{}.{}{unit}", tenths / 10, tenths % 10)
            } else {
                format!("{}{unit}", tenths / 10)
            };
        }
        tenths /= 1000;
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, state: cri::ContainerState, exit_code: i32) -> cri::ContainerStatus {
        cri::ContainerStatus {
            metadata: Some(cri::ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            state: state.into(),
            exit_code,
            ..cri::ContainerStatus::default()
        }
    }

    fn shown(
        state: cri::PodSandboxState,
        containers: &[cri::ContainerStatus],
    ) -> (String, String, &'static str) {
        let listed = cri::PodSandbox {
            state: state.into(),
            ..cri::PodSandbox::default()
        };
        let pod = pod(&listed, None, containers);
        (pod.ready(), pod.word(), pod.status.phase)
    }

    #[test]
    fn the_columns_of_a_pod() {
        use cri::ContainerState::{
            ContainerCreated as C, ContainerExited as E, ContainerRunning as R,
        };
        use cri::PodSandboxState::{SandboxNotready, SandboxReady};
        let (a, b) = (status("a", R, 0), status("b", E, 0));
        let (c, d) = (status("c", E, 3), status("d", C, 0));
        let row = |ready: &str, word: &str, phase| (ready.to_owned(), word.to_owned(), phase);
        assert_eq!(
            shown(SandboxReady, &[a.clone(), a.clone()]),
            row("2/2", "Running", "Running")
        );
        assert_eq!(
            shown(SandboxReady, &[a.clone(), b.clone()]),
            row("1/2", "Running", "Running")
        );
        assert_eq!(
            shown(SandboxReady, &[a, c.clone()]),
            row("1/2", "Error", "Running")
        );
        assert_eq!(
            shown(SandboxReady, std::slice::from_ref(&b)),
            row("0/1", "Completed", "Succeeded")
        );
        assert_eq!(
            shown(SandboxReady, &[b.clone(), c]),
            row("0/2", "Error", "Failed")
        );
        assert_eq!(shown(SandboxReady, &[d]), row("0/1", "Created", "Pending"));
        assert_eq!(
            shown(SandboxNotready, &[b]),
            row("0/1", "Stopped", "Succeeded")
        );
        assert_eq!(shown(SandboxReady, &[]), row("0/0", "Created", "Pending"));
    }

    #[test]
    fn the_reason_of_the_runtime_wins() {
        let mut killed = status("a", cri::ContainerState::ContainerExited, 137);
        killed.reason = "OOMKilled".to_owned();
        assert_eq!(container(&killed).state.word(), "OOMKilled");
    }

    #[test]
    fn init_containers_are_not_counted() {
        let mut init = status("i", cri::ContainerState::ContainerExited, 0);
        init.annotations
            .insert(keys::INIT.to_owned(), "true".to_owned());
        let run = status("a", cri::ContainerState::ContainerRunning, 0);
        let (ready, word, _) = shown(cri::PodSandboxState::SandboxReady, &[init, run]);
        assert_eq!((ready.as_str(), word.as_str()), ("1/1", "Running"));
    }

    #[test]
    fn sizes() {
        assert_eq!(size(999), "999B");
        assert_eq!(size(1500), "1.5kB");
        assert_eq!(size(4_200_000), "4.2MB");
        assert_eq!(size(319_000_000), "319MB");
        assert_eq!(size(2_500_000_000), "2.5GB");
    }

    #[test]
    fn json_is_as_kubectl_writes_it() {
        let listed = cri::PodSandbox {
            id: "p".to_owned(),
            ..cri::PodSandbox::default()
        };
        let network = cri::PodSandboxNetworkStatus {
            ip: "10.0.0.2".to_owned(),
            ..Default::default()
        };
        let sandbox = cri::PodSandboxStatus {
            network: Some(network),
            ..Default::default()
        };
        let run = status("a", cri::ContainerState::ContainerRunning, 0);
        let json = serde_json::to_value(pod(&listed, Some(&sandbox), &[run])).unwrap();
        assert_eq!(json["status"]["podIP"], "10.0.0.2");
        assert_eq!(json["status"]["podIPs"][0]["ip"], "10.0.0.2");
        assert!(json["status"]["containerStatuses"][0]["state"]["running"].is_object());
    }
}
