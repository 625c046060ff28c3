//! `carpel rmi`

use carpel_proto::cri::RemoveImageRequest;

use super::images;
use crate::args::Rmi;
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::out;

pub(super) async fn run(session: &Session, args: &Rmi) -> Result<()> {
    let mut failed = None;
    for name in &args.images {
        match remove(session, name, args.ignore_not_found).await {
            Err(CliError::Closed) => return Err(CliError::Closed),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    out::note(earlier.to_string());
                }
            }
            Ok(()) => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn remove(session: &Session, name: &str, ignore_not_found: bool) -> Result<()> {
    // RemoveImage of an unknown name succeeds; the user wants to know.
    match images::require(session, name).await {
        Err(error) if error.is_not_found() && ignore_not_found => return Ok(()),
        result => drop(result?),
    }
    let request = session.request(RemoveImageRequest {
        image: Some(images::spec(name)),
    });
    session
        .images()
        .remove_image(request)
        .await
        .doing(format_args!("remove image {name}"))?;
    out::line(format!("image {name} removed"))
}
