//! `carpel load`

use std::path::Path;

use carpel_proto::admin::LoadImageRequest;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::args::Load;
use crate::client::Admin;
use crate::error::{CliError, Doing, Result};
use crate::out;

const CHUNK: usize = 1 << 20;

pub(super) async fn run(mut admin: Admin, args: Load) -> Result<()> {
    let source = open(&args.input).await?;
    let (chunks, stream) = mpsc::channel(2);
    let (failure, failed) = oneshot::channel();
    let reader = tokio::spawn(async move {
        if let Err(error) = read(source, args.name, &chunks).await {
            // Dropping the stream in the middle would look like the end of the archive: the
            // call is given up below before that happens.
            drop(failure.send(error));
            chunks.closed().await;
        }
    });
    let reply = tokio::select! {
        reply = admin.load_image(ReceiverStream::new(stream)) => reply,
        Ok(error) = failed => {
            return Err(CliError::io(format!("read {}", args.input.display()), error));
        }
    };
    reader.abort();
    let loaded = reply.doing(format_args!("load {}", args.input.display()))?;
    for image in loaded.images {
        let names = if image.names.is_empty() {
            vec![image.id]
        } else {
            image.names
        };
        names
            .iter()
            .try_for_each(|name| out::line(format!("image {name} loaded")))?;
    }
    Ok(())
}

type Source = Box<dyn AsyncRead + Send + Unpin>;

async fn open(path: &Path) -> Result<Source> {
    if path == Path::new("-") {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let file = File::open(path)
        .await
        .doing(format_args!("open {}", path.display()))?;
    Ok(Box::new(file))
}

async fn read(
    mut source: Source,
    name: String,
    chunks: &mpsc::Sender<LoadImageRequest>,
) -> std::io::Result<()> {
    let mut name = Some(name);
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        (&mut source)
            .take(CHUNK as u64)
            .read_to_end(&mut data)
            .await?;
        if data.is_empty() && name.is_none() {
            return Ok(());
        }
        let chunk = LoadImageRequest {
            data,
            name: name.take().unwrap_or_default(),
        };
        if chunks.send(chunk).await.is_err() {
            // The server has answered already; its answer says why.
            return Ok(());
        }
    }
}
