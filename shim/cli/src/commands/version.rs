//! `carpel version`

use carpel_proto::cri::VersionRequest;

use crate::args::Global;
use crate::client::Session;
use crate::error::{Doing, Result};
use crate::out;

pub(super) async fn run(global: &Global) -> Result<()> {
    out::line(format!("Client: carpel {}", env!("CARGO_PKG_VERSION")))?;
    let session = Session::open(global).await?;
    let request = session.request(VersionRequest {
        version: "v1".to_owned(),
    });
    let server = session
        .runtime()
        .version(request)
        .await
        .doing("ask for the version")?;
    out::line(format!(
        "Server: {} {} (CRI {})",
        server.runtime_name, server.runtime_version, server.runtime_api_version
    ))
}
