//! `carpel save`

use std::path::{Path, PathBuf};

use carpel_proto::admin::{SaveImageRequest, SaveImageResponse};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tonic::Streaming;

use crate::args::Save;
use crate::client::Admin;
use crate::error::{Doing, Result};
use crate::out;

pub(super) async fn run(mut admin: Admin, args: Save) -> Result<()> {
    let doing = format!("save {}", args.images.join(", "));
    let stream = admin
        .save_image(SaveImageRequest {
            images: args.images,
        })
        .await
        .doing(&doing)?;
    if args.output == Path::new("-") {
        return to_stdout(stream, &doing).await;
    }
    let partial = beside(&args.output);
    let written = to_file(stream, &partial, &doing).await;
    if written.is_err() {
        // What is half written is of no use; the error that matters is the first.
        drop(fs::remove_file(&partial).await);
        return written;
    }
    fs::rename(&partial, &args.output)
        .await
        .doing(format_args!("rename to {}", args.output.display()))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

async fn to_stdout(mut stream: Streaming<SaveImageResponse>, doing: &str) -> Result<()> {
    while let Some(chunk) = next(&mut stream, doing).await? {
        out::bytes(&chunk)?;
    }
    Ok(())
}

async fn to_file(mut stream: Streaming<SaveImageResponse>, path: &Path, doing: &str) -> Result<()> {
    let write = || format!("write {}", path.display());
    let mut file = File::create_new(path).await.doing(write())?;
    while let Some(chunk) = next(&mut stream, doing).await? {
        file.write_all(&chunk).await.doing(write())?;
    }
    file.sync_all().await.doing(write())
}

async fn next(stream: &mut Streaming<SaveImageResponse>, doing: &str) -> Result<Option<Vec<u8>>> {
    let message = stream
        .message()
        .await
        .map(tonic::Response::new)
        .doing(doing)?;
    Ok(message.map(|message| message.data))
}
