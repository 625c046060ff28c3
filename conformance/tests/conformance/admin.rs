//! The daemon's own admin service.

use carpel_conformance::Node;
use carpel_proto::admin::admin_client::AdminClient;
use carpel_proto::admin::{DumpConfigRequest, HealthRequest, LoadImageRequest, SaveImageRequest};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::checks::{Outcome, node};

async fn connect(node: &Node) -> anyhow::Result<AdminClient<Channel>> {
    let path = node.admin_socket().to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            tokio::net::UnixStream::connect(path)
                .await
                .map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    Ok(AdminClient::new(
        endpoint.connect_with_connector(connector).await?,
    ))
}

/// Loads an archive and gives the names of what was in it.
pub(crate) async fn load(node: &Node, archive: Vec<u8>) -> anyhow::Result<Vec<String>> {
    let chunks: Vec<_> = archive
        .chunks(1 << 20)
        .map(|data| LoadImageRequest {
            data: data.to_vec(),
            name: String::new(),
        })
        .collect();
    let request = tokio_stream::iter(chunks);
    let reply = connect(node).await?.load_image(request).await?.into_inner();
    Ok(reply
        .images
        .into_iter()
        .flat_map(|image| image.names)
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_configuration_are_told() -> Outcome {
    let node = node().await?;
    let mut client = connect(&node).await?;
    let health = client.health(HealthRequest {}).await?.into_inner();
    assert_eq!((health.pods, health.containers), (0, 0));
    assert!(health.started_at_ns > 0);
    let config = client
        .dump_config(DumpConfigRequest {})
        .await?
        .into_inner()
        .toml;
    assert!(
        config.contains("ctbridge0") && config.contains("[paths]"),
        "{config}"
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_image_can_be_loaded_again() -> Outcome {
    let node = node().await?;
    let name = carpel_conformance::spec::BUSYBOX;
    let id = node.cri().image(name).await?.expect("the image").id;
    let request = SaveImageRequest {
        images: vec![name.to_owned()],
    };
    let mut stream = connect(&node)
        .await?
        .save_image(request)
        .await?
        .into_inner();
    let mut archive = Vec::new();
    while let Some(part) = stream.message().await? {
        archive.extend(part.data);
    }
    node.cri().remove_image(&id).await?;
    assert_eq!(load(&node, archive).await?, [name]);
    assert_eq!(node.cri().image(name).await?.expect("the image").id, id);
    node.rebase()?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_none_is_refused() -> Outcome {
    let node = node().await?;
    let images = node.cri().list_images().await?.len();
    for wrong in [
        b"not an archive at all".to_vec(),
        vec![0; 10240],
        Vec::new(),
    ] {
        let error = load(&node, wrong).await.expect_err("this is no archive");
        let status = error
            .downcast_ref::<tonic::Status>()
            .expect("an answer of the daemon");
        let codes = [
            tonic::Code::InvalidArgument,
            tonic::Code::FailedPrecondition,
        ];
        assert!(codes.contains(&status.code()), "{status}");
    }
    assert_eq!(node.cri().list_images().await?.len(), images);
    node.assert_clean().await?;
    node.finish().await
}
