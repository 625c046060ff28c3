//! The calls of a pod's life, the same for every runtime.

use anyhow::Context;
use carpel_conformance::spec;
use k8s_cri::v1 as cri;

use crate::subject::Subject;

/// A pod with one running container.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pod: String,
    pub(crate) container: String,
}

/// As the kubelet asks for one that shares no PID namespace.
fn pod_config(subject: &Subject) -> cri::PodSandboxConfig {
    let mut config = spec::pod("bench");
    spec::pod_security(&mut config).namespace_options = Some(namespaces());
    config.linux.get_or_insert_default().cgroup_parent = subject.cgroup_parent();
    config
}

fn namespaces() -> cri::NamespaceOption {
    use cri::NamespaceMode::{Container, Pod};
    spec::namespaces(Pod, Container, Pod)
}

fn container_config() -> cri::ContainerConfig {
    let mut config = spec::container("main", spec::BUSYBOX, &["/bin/sleep", "100000"]);
    spec::security(&mut config).namespace_options = Some(namespaces());
    spec::security(&mut config).seccomp = Some(cri::SecurityProfile::default());
    config
}

/// RunPodSandbox, CreateContainer, StartContainer.
pub(crate) async fn start(subject: &Subject) -> anyhow::Result<Running> {
    // Boxed, for it is large and fifty of them stand at once.
    Box::pin(make(subject)).await
}

async fn make(subject: &Subject) -> anyhow::Result<Running> {
    let (pod_config, cri) = (pod_config(subject), subject.cri());
    let request = cri::RunPodSandboxRequest {
        config: Some(pod_config.clone()),
        runtime_handler: subject.handler.to_owned(),
    };
    let reply = cri.runtime().run_pod_sandbox(request).await;
    let pod = reply.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
    let container = cri
        .create(&pod, &container_config(), &pod_config)
        .await
        .context("CreateContainer")?;
    cri.start(&container).await.context("StartContainer")?;
    Ok(Running { pod, container })
}

pub(crate) async fn exec(subject: &Subject, running: &Running) -> anyhow::Result<()> {
    let done = subject
        .cri()
        .exec(&running.container, &["/bin/true"], 10)
        .await?;
    anyhow::ensure!(done.exit_code == 0, "true ended with {}", done.exit_code);
    Ok(())
}

pub(crate) async fn remove_container(subject: &Subject, running: &Running) -> anyhow::Result<()> {
    subject.cri().stop(&running.container, 0).await?;
    Ok(subject.cri().remove(&running.container).await?)
}

pub(crate) async fn remove_pod(subject: &Subject, running: &Running) -> anyhow::Result<()> {
    subject.cri().stop_pod(&running.pod).await?;
    Ok(subject.cri().remove_pod(&running.pod).await?)
}
