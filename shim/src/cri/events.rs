//! GetContainerEvents.

use carpel_proto::cri;
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::Status;

use super::{to_status, to_wire};
use crate::error::Error;
use crate::pod::Runtime;

/// Every event from now on, until the reader goes, falls behind, or the daemon ends.
pub(super) fn follow(
    runtime: &Runtime,
) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse, Status>>, Error> {
    let listener = runtime.feed().listen()?;
    let events = stream::unfold(Some(listener), |listener| async move {
        let mut listener = listener?;
        match listener.next().await {
            Ok(event) => Some((Ok(to_wire::event(&event)), Some(listener))),
            Err(error) => {
                tracing::info!(%error, "a reader of events is dropped");
                Some((Err(to_status(error)), None))
            }
        }
    });
    Ok(events.boxed())
}
