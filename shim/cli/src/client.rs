//! The connection to a runtime.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carpel_proto::admin::admin_client::AdminClient;
use carpel_proto::cri::image_service_client::ImageServiceClient;
use carpel_proto::cri::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::args::Global;
use crate::error::{CliError, Result};

/// Largest message either way, as the kubelet has it.
const MAX_MESSAGE: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(5);

pub(crate) type Runtime = RuntimeServiceClient<Channel>;
pub(crate) type Images = ImageServiceClient<Channel>;
pub(crate) type Admin = AdminClient<Channel>;

/// An open connection and what the user said about it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    channel: Channel,
    admin_socket: PathBuf,
    timeout: Duration,
}

impl Session {
    pub(crate) async fn open(global: &Global) -> Result<Self> {
        let socket = path(&global.socket);
        let channel = connect(&socket).await.map_err(|reason| CliError::Connect {
            socket: socket.clone(),
            reason,
        })?;
        Ok(Self {
            channel,
            admin_socket: admin_socket(global),
            timeout: global.timeout,
        })
    }

    pub(crate) fn runtime(&self) -> Runtime {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn images(&self) -> Images {
        ImageServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// carpeld's own calls; `None` when this runtime has none.
    pub(crate) async fn admin_if_there(&self) -> Option<Admin> {
        let channel = connect(&self.admin_socket).await.ok()?;
        Some(admin_client(channel))
    }

    /// A request that is answered soon or not at all.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        self.request_within(message, Duration::ZERO)
    }

    /// A request that may take `extra` on top of the ordinary time.
    pub(crate) fn request_within<T>(&self, message: T, extra: Duration) -> Request<T> {
        let mut request = Request::new(message);
        // Zero is no limit.
        if !self.timeout.is_zero() {
            request.set_timeout(self.timeout.saturating_add(extra));
        }
        request
    }
}

/// carpeld's own calls, for a command that cannot do without.
pub(crate) async fn admin(global: &Global, what: &'static str) -> Result<Admin> {
    let socket = admin_socket(global);
    match connect(&socket).await {
        Ok(channel) => Ok(admin_client(channel)),
        Err(reason) => Err(CliError::NoAdmin {
            what,
            socket,
            reason,
        }),
    }
}

fn admin_client(channel: Channel) -> Admin {
    AdminClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

fn admin_socket(global: &Global) -> PathBuf {
    match &global.admin_socket {
        Some(socket) => path(socket),
        None => path(&global.socket).with_file_name("admin.sock"),
    }
}

/// Takes `unix:///run/x.sock` for `/run/x.sock`, as other CRI tools do.
fn path(socket: &Path) -> PathBuf {
    match socket
        .to_str()
        .and_then(|text| text.strip_prefix("unix://"))
    {
        Some(path) => PathBuf::from(path),
        None => socket.to_owned(),
    }
}

async fn connect(socket: &Path) -> std::result::Result<Channel, String> {
    let socket = socket.to_owned();
    // The URI gives the :authority; the connector ignores it and opens the socket.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .connect_with_connector(service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| root_cause(&error))
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses() {
        assert_eq!(
            path(Path::new("unix:///run/a.sock")),
            Path::new("/run/a.sock")
        );
        assert_eq!(path(Path::new("/run/a.sock")), Path::new("/run/a.sock"));
    }
}
