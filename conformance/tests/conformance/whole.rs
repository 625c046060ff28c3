//! A client of the whole CRI: the independent client crate knows an older one, without
//! the streams of lists and without pressure.

use carpel_conformance::Node;
use carpel_proto::cri::image_service_client::ImageServiceClient;
use carpel_proto::cri::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Unread bytes that a client takes on; small, so that a test can be a slow reader.
const WINDOW: u32 = 65_535;

async fn channel(node: &Node) -> anyhow::Result<Channel> {
    let path = node.socket().to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// On a connection of its own.
pub(crate) async fn runtime(node: &Node) -> anyhow::Result<RuntimeServiceClient<Channel>> {
    Ok(RuntimeServiceClient::new(channel(node).await?).max_decoding_message_size(16 << 20))
}

/// On a connection of its own.
pub(crate) async fn images(node: &Node) -> anyhow::Result<ImageServiceClient<Channel>> {
    Ok(ImageServiceClient::new(channel(node).await?).max_decoding_message_size(16 << 20))
}
