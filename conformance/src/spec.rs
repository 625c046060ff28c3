//! Pod and container configurations to start from; tests change what they need.

use std::sync::atomic::{AtomicU32, Ordering};

use k8s_cri::v1 as cri;

/// Busybox with what the tests call; its own files, not links, under `/bin`.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// nginx on port 80.
pub const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";
/// Busybox and our helpers: `/echo`, `/count`, `/syscalls`.
pub const TOOLS: &str = "carpel.test/tools:1";

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub fn image(reference: &str) -> cri::ImageSpec {
    cri::ImageSpec {
        image: reference.to_owned(),
        ..Default::default()
    }
}

/// A pod with a network of its own; the name need not be unique.
pub fn pod(name: &str) -> cri::PodSandboxConfig {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{number}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        linux: Some(cri::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

/// The same with a folder for logs.
pub fn logging_pod(name: &str, directory: &std::path::Path) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        log_directory: directory.display().to_string(),
        ..pod(name)
    }
}

/// A container that logs to `NAME.log` if its pod has a folder for logs.
pub fn container(name: &str, from: &str, command: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(image(from)),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

pub fn shell(name: &str, script: &str) -> cri::ContainerConfig {
    container(name, BUSYBOX, &["/bin/sh", "-c", script])
}

/// Runs until it is told to stop, and ends at once then.
pub fn sleeper(name: &str) -> cri::ContainerConfig {
    container(
        name,
        BUSYBOX,
        &["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
    )
}

pub fn port(protocol: cri::Protocol, host_port: i32, container_port: i32) -> cri::PortMapping {
    cri::PortMapping {
        protocol: protocol.into(),
        container_port,
        host_port,
        host_ip: String::new(),
    }
}

pub fn pod_security(config: &mut cri::PodSandboxConfig) -> &mut cri::LinuxSandboxSecurityContext {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

pub fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

pub fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config
        .linux
        .get_or_insert_default()
        .resources
        .get_or_insert_default()
}

pub fn namespaces(
    network: cri::NamespaceMode,
    pid: cri::NamespaceMode,
    ipc: cri::NamespaceMode,
) -> cri::NamespaceOption {
    cri::NamespaceOption {
        network: network.into(),
        pid: pid.into(),
        ipc: ipc.into(),
        ..Default::default()
    }
}
