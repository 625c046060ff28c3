//! The CRI through an independent client crate, one call a method.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

type Result<T> = std::result::Result<T, Status>;

/// Largest message of a kubelet, in both directions.
const MESSAGE_LIMIT: usize = 16 << 20;

/// A connection that is made when first needed, and again after the daemon came back.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
    /// Of the pods it makes.
    handler: String,
}

impl Cri {
    /// Must be called inside a tokio runtime.
    pub fn new(socket: &Path) -> Self {
        Self::with_handler(socket, "")
    }

    /// The same for pods of a runtime handler.
    pub fn with_handler(socket: &Path, handler: &str) -> Self {
        let path: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self {
            channel,
            handler: handler.to_owned(),
        }
    }

    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// For calls that the client crate is too old for.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    pub async fn version(&self) -> Result<cri::VersionResponse> {
        let request = cri::VersionRequest {
            version: "0.1.0".to_owned(),
        };
        Ok(self.runtime().version(request).await?.into_inner())
    }

    pub async fn status(&self, verbose: bool) -> Result<cri::StatusResponse> {
        Ok(self
            .runtime()
            .status(cri::StatusRequest { verbose })
            .await?
            .into_inner())
    }

    pub async fn pull(&self, image: &str) -> Result<String> {
        self.pull_as(image, None).await
    }

    pub async fn pull_as(&self, image: &str, auth: Option<cri::AuthConfig>) -> Result<String> {
        let image = Some(crate::spec::image(image));
        let request = cri::PullImageRequest {
            image,
            auth,
            sandbox_config: None,
        };
        Ok(self
            .images()
            .pull_image(request)
            .await?
            .into_inner()
            .image_ref)
    }

    pub async fn image(&self, image: &str) -> Result<Option<cri::Image>> {
        Ok(self.image_verbose(image).await?.image)
    }

    pub async fn image_verbose(&self, image: &str) -> Result<cri::ImageStatusResponse> {
        let image = Some(crate::spec::image(image));
        let request = cri::ImageStatusRequest {
            image,
            verbose: true,
        };
        Ok(self.images().image_status(request).await?.into_inner())
    }

    pub async fn list_images(&self) -> Result<Vec<cri::Image>> {
        let request = cri::ListImagesRequest { filter: None };
        Ok(self
            .images()
            .list_images(request)
            .await?
            .into_inner()
            .images)
    }

    pub async fn remove_image(&self, image: &str) -> Result<()> {
        let request = cri::RemoveImageRequest {
            image: Some(crate::spec::image(image)),
        };
        self.images().remove_image(request).await.map(drop)
    }

    pub async fn run_pod(&self, config: &cri::PodSandboxConfig) -> Result<String> {
        let config = Some(config.clone());
        let request = cri::RunPodSandboxRequest {
            config,
            runtime_handler: self.handler.clone(),
        };
        Ok(self
            .runtime()
            .run_pod_sandbox(request)
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    pub async fn stop_pod(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.runtime().stop_pod_sandbox(request).await.map(drop)
    }

    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.runtime().remove_pod_sandbox(request).await.map(drop)
    }

    pub async fn pod(&self, id: &str) -> Result<cri::PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let reply = self
            .runtime()
            .pod_sandbox_status(request)
            .await?
            .into_inner();
        reply
            .status
            .ok_or_else(|| Status::data_loss("a reply without status"))
    }

    /// What the daemon tells of a pod beyond the CRI.
    pub async fn pod_info(&self, id: &str) -> Result<serde_json::Value> {
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let reply = self.runtime().pod_sandbox_status(request).await?;
        let info = reply.into_inner().info;
        let text = info
            .get("info")
            .ok_or_else(|| Status::data_loss("no info"))?;
        serde_json::from_str(text).map_err(|error| Status::data_loss(error.to_string()))
    }

    pub async fn pod_ip(&self, id: &str) -> Result<String> {
        Ok(self.pod(id).await?.network.unwrap_or_default().ip)
    }

    pub async fn list_pods(
        &self,
        filter: Option<cri::PodSandboxFilter>,
    ) -> Result<Vec<cri::PodSandbox>> {
        let request = cri::ListPodSandboxRequest { filter };
        Ok(self
            .runtime()
            .list_pod_sandbox(request)
            .await?
            .into_inner()
            .items)
    }

    pub async fn create(
        &self,
        pod: &str,
        config: &cri::ContainerConfig,
        pod_config: &cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        Ok(self
            .runtime()
            .create_container(request)
            .await?
            .into_inner()
            .container_id)
    }

    pub async fn start(&self, id: &str) -> Result<()> {
        let request = cri::StartContainerRequest {
            container_id: id.to_owned(),
        };
        self.runtime().start_container(request).await.map(drop)
    }

    /// Creates and starts.
    pub async fn run(
        &self,
        pod: &str,
        config: &cri::ContainerConfig,
        pod_config: &cri::PodSandboxConfig,
    ) -> Result<String> {
        let id = self.create(pod, config, pod_config).await?;
        self.start(&id).await?;
        Ok(id)
    }

    pub async fn stop(&self, id: &str, timeout: i64) -> Result<()> {
        let request = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout,
        };
        self.runtime().stop_container(request).await.map(drop)
    }

    pub async fn remove(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        self.runtime().remove_container(request).await.map(drop)
    }

    pub async fn container(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let reply = self.runtime().container_status(request).await?.into_inner();
        reply
            .status
            .ok_or_else(|| Status::data_loss("a reply without status"))
    }

    pub async fn list_containers(
        &self,
        filter: Option<cri::ContainerFilter>,
    ) -> Result<Vec<cri::Container>> {
        let request = cri::ListContainersRequest { filter };
        Ok(self
            .runtime()
            .list_containers(request)
            .await?
            .into_inner()
            .containers)
    }

    /// Runs `command` with a time-out in seconds, 0 for none.
    pub async fn exec(
        &self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<cri::ExecSyncResponse> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout,
        };
        Ok(self.runtime().exec_sync(request).await?.into_inner())
    }

    /// Standard output of a command that must end well.
    pub async fn output(&self, id: &str, command: &[&str]) -> Result<String> {
        let reply = self.exec(id, command, 30).await?;
        let stdout = String::from_utf8_lossy(&reply.stdout).into_owned();
        if reply.exit_code == 0 {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&reply.stderr);
        let code = reply.exit_code;
        Err(Status::aborted(format!(
            "{command:?} ended with {code}: {stdout}{stderr}"
        )))
    }

    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        self.runtime().reopen_container_log(request).await.map(drop)
    }

    pub async fn stats(&self, id: &str) -> Result<cri::ContainerStats> {
        let request = cri::ContainerStatsRequest {
            container_id: id.to_owned(),
        };
        let reply = self.runtime().container_stats(request).await?.into_inner();
        reply
            .stats
            .ok_or_else(|| Status::data_loss("a reply without stats"))
    }

    pub async fn list_stats(
        &self,
        filter: Option<cri::ContainerStatsFilter>,
    ) -> Result<Vec<cri::ContainerStats>> {
        let request = cri::ListContainerStatsRequest { filter };
        Ok(self
            .runtime()
            .list_container_stats(request)
            .await?
            .into_inner()
            .stats)
    }

    pub async fn update(&self, id: &str, linux: cri::LinuxContainerResources) -> Result<()> {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        let mut runtime = self.runtime();
        runtime.update_container_resources(request).await.map(drop)
    }

    /// The limits of a container as its status shows them.
    pub async fn resources(&self, id: &str) -> Result<cri::LinuxContainerResources> {
        let status = self.container(id).await?;
        let linux = status.resources.and_then(|resources| resources.linux);
        linux.ok_or_else(|| Status::data_loss("a status without resources"))
    }

    /// Waits until the container has ended and gives its last status.
    pub async fn wait_exit(&self, id: &str) -> Result<cri::ContainerStatus> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.container(id).await?;
            if status.state() == cri::ContainerState::ContainerExited {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(Status::new(
                    Code::Cancelled,
                    format!("container {id} has not ended in 30 s: {status:?}"),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
