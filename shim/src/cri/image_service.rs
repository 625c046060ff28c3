//! `runtime.v1.ImageService`.

use std::collections::HashMap;
use std::sync::Arc;

use carpel_images::engine::{Credentials, Image, ImageEngine, NoProgress, PullRequest};
use carpel_images::reference::Reference;
use carpel_images::registry::is_for;
use carpel_proto::cri;
use carpel_proto::cri::image_service_server::ImageService;
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use super::chunks::chunks;
use super::{info, to_status, to_wire};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::pod::now_ns;

#[derive(Debug)]
pub(crate) struct ImageEdge(pub(crate) Arc<dyn ImageEngine>, pub(crate) Arc<Metrics>);

type Reply<T> = Result<Response<T>, Status>;

fn failed(error: impl Into<Error>) -> Status {
    to_status(error.into())
}

fn named(image: Option<cri::ImageSpec>) -> Result<String, Status> {
    match image {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(failed(Error::Invalid("image.image: is empty".into()))),
    }
}

#[tonic::async_trait]
impl ImageService for ImageEdge {
    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Reply<cri::ListImagesResponse> {
        let found = self.wanted(request.into_inner().filter).await?;
        let images = found.iter().map(to_wire::image).collect();
        Ok(Response::new(cri::ListImagesResponse { images }))
    }

    type StreamImagesStream = BoxStream<'static, Result<cri::StreamImagesResponse, Status>>;

    async fn stream_images(
        &self,
        request: Request<cri::StreamImagesRequest>,
    ) -> Reply<Self::StreamImagesStream> {
        let found = self.wanted(request.into_inner().filter).await?.into_iter();
        let messages = chunks(found.map(|image| to_wire::image(&image)))
            .map(|images| Ok(cri::StreamImagesResponse { images }));
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Reply<cri::ImageStatusResponse> {
        let request = request.into_inner();
        let image = self
            .0
            .status(&named(request.image)?)
            .await
            .map_err(failed)?;
        let info = match &image {
            Some(image) if request.verbose => info::image(image),
            _ => HashMap::new(),
        };
        let image = image.as_ref().map(to_wire::image);
        Ok(Response::new(cri::ImageStatusResponse { image, info }))
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Reply<cri::PullImageResponse> {
        let request = request.into_inner();
        let reference = named(request.image)?;
        let pull = PullRequest {
            credentials: credentials(request.auth, &reference).map_err(failed)?,
            reference,
            progress: Arc::new(NoProgress),
        };
        let pulled = self.1.pull(self.0.as_ref(), pull).await;
        let id = pulled.map_err(failed)?;
        Ok(Response::new(cri::PullImageResponse { image_ref: id.0 }))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Reply<cri::RemoveImageResponse> {
        self.0
            .remove(&named(request.into_inner().image)?)
            .await
            .map_err(failed)?;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Reply<cri::ImageFsInfoResponse> {
        let usage = self.0.usage().await.map_err(failed)?;
        let now = now_ns();
        let wire = |all: &[_]| all.iter().map(|fs| to_wire::filesystem(fs, now)).collect();
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: wire(&usage.images),
            container_filesystems: wire(&usage.containers),
        }))
    }
}

impl ImageEdge {
    async fn wanted(&self, filter: Option<cri::ImageFilter>) -> Result<Vec<Image>, Status> {
        let name = filter
            .and_then(|filter| filter.image)
            .map(|spec| spec.image)
            .unwrap_or_default();
        if name.is_empty() {
            return self.0.list().await.map_err(failed);
        }
        let found = self.0.status(&name).await.map_err(failed)?;
        Ok(found.into_iter().collect())
    }
}

/// The forms of CRI AuthConfig, of which a client fills in one. Those for another
/// server than the image's are none.
fn credentials(auth: Option<cri::AuthConfig>, image: &str) -> Result<Credentials, Error> {
    let Some(auth) = auth else {
        return Ok(Credentials::Anonymous);
    };
    let reference = Reference::parse(image).map_err(Error::from)?;
    if !is_for(&auth.server_address, &reference.registry) {
        return Ok(Credentials::Anonymous);
    }
    if !auth.username.is_empty() {
        return Ok(Credentials::Basic {
            username: auth.username,
            password: auth.password,
        });
    }
    if !auth.auth.is_empty() {
        return Credentials::from_docker_auth(&auth.auth).map_err(Error::from);
    }
    if !auth.identity_token.is_empty() {
        return Ok(Credentials::IdentityToken(auth.identity_token));
    }
    if !auth.registry_token.is_empty() {
        return Ok(Credentials::RegistryToken(auth.registry_token));
    }
    Ok(Credentials::Anonymous)
}
