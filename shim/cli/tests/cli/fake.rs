//! A runtime that keeps pods in memory: enough of the CRI for a client to talk to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use carpel_proto::cri;
use http::{Request, Response};
use prost::Message;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) pods: HashMap<String, (cri::PodSandboxConfig, bool)>,
    pub(crate) containers: HashMap<String, Container>,
    pub(crate) images: Vec<cri::Image>,
    /// Every call, in order.
    pub(crate) calls: Vec<String>,
    /// Calls that fail, and how.
    pub(crate) broken: HashMap<&'static str, (Code, &'static str)>,
    made: u32,
}

#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) pod: String,
    pub(crate) config: cri::ContainerConfig,
    pub(crate) state: cri::ContainerState,
    pub(crate) exit_code: i32,
    pub(crate) created_at: i64,
    pub(crate) grace: Option<i64>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn add_image(&self, tag: &str) {
        let mut state = self.state();
        let id = format!("sha256:{:064x}", state.images.len() + 1);
        let image = cri::Image {
            id,
            repo_tags: vec![tag.to_owned()],
            size: 4_200_000,
            ..Default::default()
        };
        state.images.push(image);
    }

    /// What a test looks at first: did this happen?
    pub(crate) fn called(&self, name: &str) -> usize {
        self.state()
            .calls
            .iter()
            .filter(|call| *call == name)
            .count()
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos()
        .try_into()
        .unwrap()
}

impl State {
    fn id(&mut self, prefix: char) -> String {
        self.made += 1;
        format!("{prefix}{:031x}", self.made)
    }

    fn image(&self, name: &str) -> Option<&cri::Image> {
        self.images
            .iter()
            .find(|image| image.id == name || image.repo_tags.iter().any(|t| t == name))
    }

    fn run_pod(&mut self, request: cri::RunPodSandboxRequest) -> cri::RunPodSandboxResponse {
        let id = self.id('a');
        self.pods
            .insert(id.clone(), (request.config.unwrap(), true));
        cri::RunPodSandboxResponse { pod_sandbox_id: id }
    }

    fn list_pods(&self, request: cri::ListPodSandboxRequest) -> cri::ListPodSandboxResponse {
        let wanted = request.filter.unwrap_or_default().label_selector;
        let fits = |labels: &HashMap<String, String>| {
            wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        };
        let pods = self
            .pods
            .iter()
            .filter(|(_, (config, _))| fits(&config.labels));
        let items = pods.map(|(id, (config, ready))| cri::PodSandbox {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: i32::from(!ready),
            created_at: now() - 65_000_000_000,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: String::new(),
        });
        cri::ListPodSandboxResponse {
            items: items.collect(),
        }
    }

    fn pod_status(&self, id: &str) -> Result<cri::PodSandboxStatusResponse, Status> {
        let (config, ready) = self
            .pods
            .get(id)
            .ok_or_else(|| Status::not_found(id.to_owned()))?;
        let network = cri::PodSandboxNetworkStatus {
            ip: "10.1.2.3".to_owned(),
            ..Default::default()
        };
        let status = cri::PodSandboxStatus {
            id: id.to_owned(),
            metadata: config.metadata.clone(),
            state: i32::from(!ready),
            created_at: now(),
            network: Some(network),
            ..Default::default()
        };
        Ok(cri::PodSandboxStatusResponse {
            status: Some(status),
            ..Default::default()
        })
    }

    fn create(&mut self, request: cri::CreateContainerRequest) -> cri::CreateContainerResponse {
        let id = self.id('c');
        let container = Container {
            pod: request.pod_sandbox_id,
            config: request.config.unwrap(),
            state: cri::ContainerState::ContainerCreated,
            exit_code: 0,
            created_at: now(),
            grace: None,
        };
        self.containers.insert(id.clone(), container);
        cri::CreateContainerResponse { container_id: id }
    }

    /// The command says what becomes of the container: `exit N` ends at once.
    fn start(&mut self, id: &str) -> Result<cri::StartContainerResponse, Status> {
        let log = self.log_path(id)?;
        let container = self
            .containers
            .get_mut(id)
            .ok_or_else(|| Status::not_found(id.to_owned()))?;
        container.state = cri::ContainerState::ContainerRunning;
        if let [exit, code] = container.config.command.as_slice()
            && exit == "exit"
        {
            container.state = cri::ContainerState::ContainerExited;
            container.exit_code = code.parse().unwrap();
        }
        fs::create_dir_all(Path::new(&log).parent().unwrap()).unwrap();
        let name = &container.config.metadata.as_ref().unwrap().name;
        fs::write(
            &log,
            format!("2026-11-23T10:00:00Z stdout F hello from {name}\n"),
        )
        .unwrap();
        Ok(cri::StartContainerResponse {})
    }

    fn log_path(&self, id: &str) -> Result<String, Status> {
        let container = self
            .containers
            .get(id)
            .ok_or_else(|| Status::not_found(id.to_owned()))?;
        let (pod, _) = &self.pods[&container.pod];
        Ok(format!(
            "{}/{}",
            pod.log_directory, container.config.log_path
        ))
    }

    fn list_containers(&self, request: cri::ListContainersRequest) -> cri::ListContainersResponse {
        let pod = request.filter.unwrap_or_default().pod_sandbox_id;
        let all = self
            .containers
            .iter()
            .filter(|(_, c)| pod.is_empty() || c.pod == pod);
        let containers = all.map(|(id, c)| cri::Container {
            id: id.clone(),
            pod_sandbox_id: c.pod.clone(),
            metadata: c.config.metadata.clone(),
            image: c.config.image.clone(),
            state: c.state.into(),
            created_at: c.created_at,
            labels: c.config.labels.clone(),
            annotations: c.config.annotations.clone(),
            ..Default::default()
        });
        cri::ListContainersResponse {
            containers: containers.collect(),
        }
    }

    fn container_status(&self, id: &str) -> Result<cri::ContainerStatusResponse, Status> {
        let log_path = self.log_path(id)?;
        let container = self.containers[id].clone();
        let status = cri::ContainerStatus {
            id: id.to_owned(),
            metadata: container.config.metadata,
            state: container.state.into(),
            exit_code: container.exit_code,
            created_at: container.created_at,
            image: container.config.image,
            annotations: container.config.annotations,
            log_path,
            ..Default::default()
        };
        Ok(cri::ContainerStatusResponse {
            status: Some(status),
            info: HashMap::new(),
        })
    }

    fn stop(&mut self, request: &cri::StopContainerRequest) -> cri::StopContainerResponse {
        if let Some(container) = self.containers.get_mut(&request.container_id) {
            container.state = cri::ContainerState::ContainerExited;
            container.exit_code = 143;
            container.grace = Some(request.timeout);
        }
        cri::StopContainerResponse {}
    }

    fn stop_pod(&mut self, id: &str) -> cri::StopPodSandboxResponse {
        if let Some((_, ready)) = self.pods.get_mut(id) {
            *ready = false;
        }
        cri::StopPodSandboxResponse {}
    }

    fn remove_pod(&mut self, id: &str) -> cri::RemovePodSandboxResponse {
        self.pods.remove(id);
        self.containers.retain(|_, container| container.pod != id);
        cri::RemovePodSandboxResponse {}
    }

    /// `echo WORDS`, `fail CODE`, anything else is not there.
    fn exec(request: &cri::ExecSyncRequest) -> cri::ExecSyncResponse {
        let words: Vec<&str> = request.cmd.iter().map(String::as_str).collect();
        let reply = |stdout: String, stderr: &str, exit_code| cri::ExecSyncResponse {
            stdout: stdout.into_bytes(),
            stderr: stderr.as_bytes().to_vec(),
            exit_code,
        };
        match words.as_slice() {
            ["echo", words @ ..] => reply(words.join(" ") + "\n", "", 0),
            ["fail", code] => reply(String::new(), "it failed\n", code.parse().unwrap()),
            _ => reply(String::new(), "not found\n", 127),
        }
    }

    fn pull(&mut self, image: cri::ImageSpec) -> Result<cri::PullImageResponse, Status> {
        if image.image.contains("missing") {
            return Err(Status::not_found(format!(
                "{}: the registry has no such image",
                image.image
            )));
        }
        let id = format!("sha256:{:064x}", self.images.len() + 1);
        let image = cri::Image {
            id: id.clone(),
            repo_tags: vec![image.image],
            size: 1,
            ..Default::default()
        };
        self.images.push(image);
        Ok(cri::PullImageResponse { image_ref: id })
    }
}

/// Answers the calls of one of the two services of the CRI.
async fn answer(fake: Fake, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let broken = {
        let mut state = fake.state();
        state.calls.push(name.clone());
        state.broken.get(name.as_str()).copied()
    };
    if let Some((code, message)) = broken {
        return Status::new(code, message).into_http();
    }
    let state = || fake.state();
    match name.as_str() {
        "Version" => {
            unary(request, |_: cri::VersionRequest| {
                Ok(cri::VersionResponse {
                    version: "0.1.0".to_owned(),
                    runtime_name: "fake".to_owned(),
                    runtime_version: "1.2.3".to_owned(),
                    runtime_api_version: "v1".to_owned(),
                })
            })
            .await
        }
        "Status" => unary(request, |_: cri::StatusRequest| Ok(ready())).await,
        "RunPodSandbox" => unary(request, |q| Ok(state().run_pod(q))).await,
        "ListPodSandbox" => unary(request, |q| Ok(state().list_pods(q))).await,
        "PodSandboxStatus" => {
            unary(request, |q: cri::PodSandboxStatusRequest| {
                state().pod_status(&q.pod_sandbox_id)
            })
            .await
        }
        "StopPodSandbox" => {
            unary(request, |q: cri::StopPodSandboxRequest| {
                Ok(state().stop_pod(&q.pod_sandbox_id))
            })
            .await
        }
        "RemovePodSandbox" => {
            unary(request, |q: cri::RemovePodSandboxRequest| {
                Ok(state().remove_pod(&q.pod_sandbox_id))
            })
            .await
        }
        "CreateContainer" => unary(request, |q| Ok(state().create(q))).await,
        "StartContainer" => {
            unary(request, |q: cri::StartContainerRequest| {
                state().start(&q.container_id)
            })
            .await
        }
        "StopContainer" => unary(request, |q| Ok(state().stop(&q))).await,
        "ListContainers" => unary(request, |q| Ok(state().list_containers(q))).await,
        "ContainerStatus" => {
            unary(request, |q: cri::ContainerStatusRequest| {
                state().container_status(&q.container_id)
            })
            .await
        }
        "ExecSync" => unary(request, |q| Ok(State::exec(&q))).await,
        _ => image_answer(&fake, &name, request).await,
    }
}

async fn image_answer(fake: &Fake, name: &str, request: Request<Body>) -> Response<Body> {
    let state = || fake.state();
    match name {
        "ListImages" => {
            unary(request, |_: cri::ListImagesRequest| {
                Ok(cri::ListImagesResponse {
                    images: state().images.clone(),
                })
            })
            .await
        }
        "ImageStatus" => {
            unary(request, |q: cri::ImageStatusRequest| {
                let image = state().image(&q.image.unwrap_or_default().image).cloned();
                Ok(cri::ImageStatusResponse {
                    image,
                    info: HashMap::new(),
                })
            })
            .await
        }
        "PullImage" => {
            unary(request, |q: cri::PullImageRequest| {
                state().pull(q.image.unwrap_or_default())
            })
            .await
        }
        "RemoveImage" => {
            unary(request, |q: cri::RemoveImageRequest| {
                let name = q.image.unwrap_or_default().image;
                let id = state().image(&name).map(|image| image.id.clone());
                state()
                    .images
                    .retain(|image| Some(&image.id) != id.as_ref());
                Ok(cri::RemoveImageResponse {})
            })
            .await
        }
        other => Status::unimplemented(other.to_owned()).into_http(),
    }
}

fn ready() -> cri::StatusResponse {
    let condition = |kind: &str| cri::RuntimeCondition {
        r#type: kind.to_owned(),
        status: true,
        ..Default::default()
    };
    let conditions = vec![condition("RuntimeReady"), condition("NetworkReady")];
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions }),
        ..Default::default()
    }
}

async fn unary<Q, R>(
    request: Request<Body>,
    answer: impl FnOnce(Q) -> Result<R, Status> + Send,
) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    R: Message + Default + Send + 'static,
{
    let mut answer = Some(answer);
    let service = service_fn(move |request: tonic::Request<Q>| {
        let reply = answer.take().map(|answer| answer(request.into_inner()));
        std::future::ready(
            reply
                .unwrap_or_else(|| Err(Status::internal("twice")))
                .map(tonic::Response::new),
        )
    });
    Grpc::new(ProstCodec::<R, Q>::default())
        .unary(service, request)
        .await
}

#[derive(Clone)]
pub(crate) struct RuntimeEnd(pub(crate) Fake);
#[derive(Clone)]
pub(crate) struct ImageEnd(pub(crate) Fake);

impl NamedService for RuntimeEnd {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl NamedService for ImageEnd {
    const NAME: &'static str = "runtime.v1.ImageService";
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn boxed(fake: &Fake, request: Request<Body>) -> Answer {
    let fake = fake.clone();
    Box::pin(async move { Ok(answer(fake, request).await) })
}

impl Service<Request<Body>> for RuntimeEnd {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        boxed(&self.0, request)
    }
}

impl Service<Request<Body>> for ImageEnd {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        boxed(&self.0, request)
    }
}
