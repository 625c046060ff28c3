//! `carpel config`

use carpel_proto::admin::DumpConfigRequest;

use crate::client::Admin;
use crate::error::{Doing, Result};
use crate::out;

pub(super) async fn run(mut admin: Admin) -> Result<()> {
    let config = admin
        .dump_config(DumpConfigRequest {})
        .await
        .doing("read the configuration")?;
    out::text(&config.toml)
}
