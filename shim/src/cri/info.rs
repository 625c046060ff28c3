//! The info maps of verbose answers: what tools read beyond the CRI.

use std::collections::HashMap;
use std::sync::Arc;

use carpel_images::engine::Image;
use carpel_proto::state::container_record::Phase;
use carpel_spec::intent::{ContainerConfig, NamespaceMode, PodConfig, Resources};
use serde_json::{Value, json};

use crate::config::Config;
use crate::handlers::NATIVE;
use crate::pod::{Container, Pod, Runtime};

/// Keys whose values are nobody's business.
const SECRET: [&str; 8] = [
    "auth",
    "client_secret",
    "identity_token",
    "passphrase",
    "password",
    "registry_token",
    "secret",
    "token",
];

type Info = HashMap<String, String>;

fn one(key: &str, value: &Value) -> Info {
    HashMap::from([(key.to_owned(), value.to_string())])
}

/// The configuration in force, and where things are.
pub(super) fn node(runtime: &Runtime, config: &Config) -> Info {
    let mut all = json!({
        "stateDir": runtime.run_dir(),
        "rootDir": config.paths.root,
        "imageEngine": runtime.images().name(),
        "networkDriver": runtime.network().name(),
        "defaultRuntimeName": config.runtime.default_handler,
        "cgroupVersion": runtime.cgroup_version(),
    });
    let file = serde_json::to_value(config).unwrap_or_default();
    if let (Value::Object(all), Value::Object(file)) = (&mut all, file) {
        all.extend(file.into_iter().map(|(key, value)| (key, redacted(value))));
    }
    one("config", &all)
}

/// Without passwords and the like, also those inside addresses.
fn redacted(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let hidden = SECRET.contains(&key.as_str()) && !value.is_object();
                let value = if hidden {
                    "(hidden)".into()
                } else {
                    redacted(value)
                };
                (key, value)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(list) => list.into_iter().map(redacted).collect(),
        Value::String(text) => without_login(&text).into(),
        other => other,
    }
}

/// `scheme://user:password@host/…` without what stands before the `@`.
fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://(hidden)@{host}{path}"),
        None => text.to_owned(),
    }
}

pub(super) async fn container(runtime: &Runtime, container: &Arc<Container>) -> Info {
    let spec = match runtime.spec_of(container).await {
        Ok(spec) => serde_json::to_value(&*spec).unwrap_or_default(),
        // One that was quarantined has none.
        Err(error) => {
            tracing::debug!(container = %container.id, %error, "no OCI configuration");
            Value::Null
        }
    };
    let view = container.view();
    let handler = runtime.pod_of(container).map(|pod| runtime_type(&pod));
    let info = json!({
        "sandboxID": view.pod_id,
        "pid": view.pid,
        "removing": view.status.phase == Phase::Removing,
        "snapshotKey": view.id,
        "snapshotter": runtime.images().name(),
        "runtimeType": handler.unwrap_or_default(),
        "cgroup": view.cgroup,
        "runtimeSpec": spec,
        "config": container_config(&view.config, &view.resources),
    });
    one("info", &info)
}

pub(super) fn pod(runtime: &Runtime, pod: &Pod) -> Info {
    let alive = pod.is_ready();
    let pid = if alive { pod.holder_pid() } else { 0 };
    let view = pod.view();
    let info = json!({
        "pid": pid,
        "processStatus": if alive { "running" } else { "stopped" },
        "netNamespaceClosed": !alive,
        "runtimeHandler": view.runtime_handler,
        "runtimeType": runtime_type(pod),
        "snapshotter": runtime.images().name(),
        "cgroup": view.cgroup,
        "addresses": view.addresses,
        "quarantine": pod.quarantine,
        "reason": pod.why(),
        "runtimeSpec": { "linux": {
            "cgroupsPath": view.cgroup,
            "namespaces": if alive { namespaces(&view.config, pid) } else { Vec::new() },
        }},
        "config": pod_config(&view.config),
    });
    one("info", &info)
}

pub(super) fn image(image: &Image) -> Info {
    let config: Value = serde_json::from_str(&image.config_json).unwrap_or_default();
    one(
        "info",
        &json!({ "chainID": image.chain_id, "imageSpec": config }),
    )
}

fn runtime_type(pod: &Pod) -> String {
    match pod.runtime_handler() {
        // What a record calls the executor of our own.
        handler if handler.is_empty() => NATIVE.into(),
        handler => handler,
    }
}

/// The pod's own namespaces, by way of its holder.
fn namespaces(config: &PodConfig, pid: i32) -> Vec<Value> {
    let modes = &config.security.namespaces;
    let own_network = modes.network != NamespaceMode::Node;
    [
        ("network", "net", own_network),
        ("uts", "uts", own_network),
        ("ipc", "ipc", modes.ipc != NamespaceMode::Node),
    ]
    .into_iter()
    .filter(|(_, _, own)| *own)
    .map(|(kind, file, _)| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }))
    .collect()
}

fn container_config(config: &ContainerConfig, resources: &Resources) -> Value {
    let mounts = config.mounts.iter().map(|mount| {
        json!({
            "container_path": mount.container_path,
            "host_path": mount.host_path,
            "readonly": mount.readonly,
        })
    });
    let envs = config
        .envs
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": String::from_utf8_lossy(value) }));
    json!({
        "metadata": { "name": config.name, "attempt": config.attempt },
        "image": { "image": config.image, "user_specified_image": config.user_specified_image },
        "command": config.command,
        "args": config.args,
        "working_dir": config.working_dir,
        "envs": envs.collect::<Value>(),
        "mounts": mounts.collect::<Value>(),
        "labels": config.labels,
        "annotations": config.annotations,
        "log_path": config.log_path,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
        "linux": {
            "resources": self::resources(resources),
            "security_context": { "privileged": config.security.privileged },
        },
    })
}

fn pod_config(config: &PodConfig) -> Value {
    let ports = config.port_mappings.iter().map(|mapping| {
        json!({
            "container_port": mapping.container_port,
            "host_port": mapping.host_port,
            "host_ip": mapping.host_ip,
        })
    });
    json!({
        "metadata": {
            "name": config.name,
            "uid": config.uid,
            "namespace": config.namespace,
            "attempt": config.attempt,
        },
        "hostname": config.hostname,
        "log_directory": config.log_directory,
        "port_mappings": ports.collect::<Value>(),
        "labels": config.labels,
        "annotations": config.annotations,
        "linux": {
            "cgroup_parent": config.cgroup_parent,
            "sysctls": config.sysctls,
            "overhead": resources(&config.overhead),
            "resources": resources(&config.resources),
        },
    })
}

fn resources(resources: &Resources) -> Value {
    json!({
        "cpu_period": resources.cpu_period,
        "cpu_quota": resources.cpu_quota,
        "cpu_shares": resources.cpu_shares,
        "memory_limit_in_bytes": resources.memory_limit,
        "memory_swap_limit_in_bytes": resources.memory_swap_limit,
        "oom_score_adj": resources.oom_score_adj,
        "cpuset_cpus": resources.cpuset_cpus,
        "cpuset_mems": resources.cpuset_mems,
        "unified": resources.unified,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{redacted, without_login};

    #[test]
    fn no_secret_is_shown_wherever_it_stands() {
        let config = json!({
            "registries": {
                "a.example": {
                    "auth": "dXNlcjpwYXNz",
                    "password": "p4ss",
                    "ca_file": "/etc/ca.pem",
                    "mirrors": ["https://user:p4ss@mirror.example/x", "http://plain"],
                },
                "auth": { "insecure": true, "token": ["p4ss"] },
            },
        });
        let shown = redacted(config);
        let text = shown.to_string();
        assert!(!text.contains("p4ss") && !text.contains("dXNl"), "{text}");
        let registry = &shown["registries"]["a.example"];
        assert_eq!(registry["ca_file"], "/etc/ca.pem");
        assert_eq!(registry["mirrors"][1], "http://plain");
        assert_eq!(shown["registries"]["auth"]["insecure"], true);
    }

    #[test]
    fn only_a_login_is_cut_out_of_an_address() {
        for (text, shown) in [
            ("https://u:p@h:5000/a@b", "https://(hidden)@h:5000/a@b"),
            ("https://h/a@b", "https://h/a@b"),
            ("name@sha256:1", "name@sha256:1"),
            ("https://u@h", "https://(hidden)@h"),
        ] {
            assert_eq!(without_login(text), shown);
        }
    }
}
