//! `carpel save`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use carpel_proto::admin::{SaveImageRequest, SaveImageResponse};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tonic::Streaming;

use crate::args::Save;
use crate::client::Admin;
use crate::error::{CliError, Doing, Result};
use crate::out;

pub(super) async fn run(mut admin: Admin, args: Save) -> Result<()> {
    check(&args, std::io::stdout().is_terminal())?;
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

/// Binary data helps nobody on a screen.
fn check(args: &Save, terminal: bool) -> Result<()> {
    if args.output == Path::new("-") && terminal {
        let why = "an archive is not printed on a terminal: name a file with -o, or redirect";
        return Err(CliError::Usage(why.to_owned()));
    }
    if args.output.is_dir() {
        let why = format!("{} is a directory: name a file", args.output.display());
        return Err(CliError::Usage(why));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::{Save, check};

    #[test]
    fn an_archive_goes_to_no_terminal_and_no_directory() {
        let to = |output: &str| Save {
            images: vec!["a".to_owned()],
            output: output.into(),
        };
        assert!(check(&to("-"), true).is_err());
        check(&to("-"), false).unwrap();
        check(&to("/nowhere/a.tar"), true).unwrap();
        assert!(check(&to("/"), false).is_err());
    }
}
