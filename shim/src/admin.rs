//! The admin service: what `carpel` can ask beyond the CRI.

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use carpel_images::Store;
use carpel_images::engine::{Credentials, LayerState, Progress, PullRequest};
use carpel_proto::admin::admin_server::Admin;
use carpel_proto::admin::{self as wire, layer_progress::Phase, pull_image_response::What};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::{Request, Response, Status, Streaming};

use crate::config::Config;
use crate::cri::to_status;
use crate::error::Error;
use crate::metrics::{Metrics, NodeView};
use crate::pod::Runtime;

/// Of an archive, in one message.
const CHUNK: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct AdminEdge {
    /// The configuration in force.
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) store: Arc<Store>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) node: Arc<NodeView>,
    pub(crate) started_at_ns: i64,
}

type Reply<T> = Result<Response<T>, Status>;
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn failed(error: impl Into<Error>) -> Status {
    to_status(error.into())
}

#[tonic::async_trait]
impl Admin for AdminEdge {
    async fn health(&self, _: Request<wire::HealthRequest>) -> Reply<wire::HealthResponse> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Response::new(wire::HealthResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at_ns: self.started_at_ns,
            pods: count(self.runtime.pods().len()),
            containers: count(self.runtime.containers().len()),
            pid: std::process::id(),
        }))
    }

    async fn dump_config(
        &self,
        _: Request<wire::DumpConfigRequest>,
    ) -> Reply<wire::DumpConfigResponse> {
        let toml = self
            .config
            .load()
            .to_toml()
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(wire::DumpConfigResponse { toml }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<wire::LoadImageRequest>>,
    ) -> Reply<wire::LoadImageResponse> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap_or_default();
        let name = (!first.name.is_empty()).then_some(first.name);
        let rest = messages.map(|message| match message {
            Ok(message) => Ok(bytes::Bytes::from(message.data)),
            Err(status) => Err(std::io::Error::other(status.to_string())),
        });
        let data = tokio_stream::once(Ok(bytes::Bytes::from(first.data))).chain(rest);
        let loaded = self
            .store
            .load(StreamReader::new(data), name.as_deref())
            .await
            .map_err(failed)?;
        let images = loaded
            .into_iter()
            .map(|image| wire::LoadedImage {
                id: image.id.0,
                names: image.names,
            })
            .collect();
        Ok(Response::new(wire::LoadImageResponse { images }))
    }

    async fn leftovers(
        &self,
        _: Request<wire::LeftoversRequest>,
    ) -> Reply<wire::LeftoversResponse> {
        let report = self.node.leftovers().await;
        let leftovers = report.leftovers.iter().map(|leftover| wire::Leftover {
            kind: leftover.kind.word().into(),
            name: leftover.name.clone(),
            what: leftover.what.clone(),
        });
        Ok(Response::new(wire::LeftoversResponse {
            leftovers: leftovers.collect(),
            failures: report.failures.clone(),
        }))
    }

    type SaveImageStream = Replies<wire::SaveImageResponse>;

    async fn save_image(
        &self,
        request: Request<wire::SaveImageRequest>,
    ) -> Reply<Self::SaveImageStream> {
        let images = request.into_inner().images;
        if images.is_empty() {
            return Err(failed(Error::Invalid("images: is empty".into())));
        }
        let (write, read) = tokio::io::duplex(2 * CHUNK);
        let store = Arc::clone(&self.store);
        let saving = tokio::spawn(async move { store.save(&images, write).await });
        let data = ReaderStream::with_capacity(read, CHUNK).map(|chunk| match chunk {
            Ok(data) => Ok(wire::SaveImageResponse {
                data: data.to_vec(),
            }),
            Err(error) => Err(Status::internal(error.to_string())),
        });
        let end = outcome(saving);
        Ok(Response::new(Box::pin(data.chain(end))))
    }

    type PullImageStream = Replies<wire::PullImageResponse>;

    async fn pull_image(
        &self,
        request: Request<wire::PullImageRequest>,
    ) -> Reply<Self::PullImageStream> {
        let request = request.into_inner();
        let credentials = match request.username.is_empty() {
            true => Credentials::Anonymous,
            false => Credentials::Basic {
                username: request.username,
                password: request.password,
            },
        };
        let (sender, receiver) = mpsc::channel(256);
        let pull = PullRequest {
            reference: request.image,
            credentials,
            progress: Arc::new(Reporter(sender.clone())),
        };
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        tokio::spawn(async move {
            let pulled = tokio::select! {
                pulled = metrics.pull(store.as_ref(), pull) => pulled,
                // The client is gone, and nobody else waits for this pull.
                () = sender.closed() => return,
            };
            let last = match pulled {
                Ok(id) => Ok(wire::PullImageResponse {
                    what: Some(What::ImageId(id.0)),
                }),
                Err(error) => Err(failed(error)),
            };
            drop(sender.send(last).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Tells a client how its pull goes. One that reads slowly misses reports.
#[derive(Debug)]
struct Reporter(mpsc::Sender<Result<wire::PullImageResponse, Status>>);

impl Progress for Reporter {
    fn layer(&self, digest: &str, state: LayerState) {
        let (phase, current, total) = match state {
            LayerState::Waiting => (Phase::Waiting, 0, 0),
            LayerState::Fetching { current, total } => (Phase::Fetching, current, total),
            LayerState::Unpacking => (Phase::Unpacking, 0, 0),
            LayerState::Done => (Phase::Done, 0, 0),
            LayerState::Exists => (Phase::Exists, 0, 0),
        };
        let layer = wire::LayerProgress {
            digest: digest.into(),
            phase: phase.into(),
            current,
            total,
        };
        drop(self.0.try_send(Ok(wire::PullImageResponse {
            what: Some(What::Layer(layer)),
        })));
    }
}

/// Nothing after a save that succeeded, its error after one that did not.
fn outcome(
    saving: tokio::task::JoinHandle<Result<(), carpel_images::engine::Error>>,
) -> impl Stream<Item = Result<wire::SaveImageResponse, Status>> {
    futures_util::stream::once(saving).filter_map(|saved| match saved {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(Err(failed(error))),
        Err(panic) => Some(Err(Status::internal(format!("saving crashed: {panic}")))),
    })
}
