//! `carpel create`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};

use super::{start, undo};
use crate::args::{Create, Global};
use crate::client::Session;
use crate::error::{CliError, Doing, Result};
use crate::manifest::{self, Pod};
use crate::{out, resolve};

/// Far more than any manifest; less than would hurt.
const MAX_MANIFEST: u64 = 4 << 20;

pub(super) async fn run(global: &Global, args: Create) -> Result<()> {
    let pods = read(&args.files)?;
    let session = Session::open(global).await?;
    let existing = resolve::all_pods(&session).await?;
    for pod in &pods {
        let name = &pod.name.value;
        let same = existing.iter().find(|other| {
            resolve::name(other) == name && resolve::namespace(other) == pod.namespace
        });
        if let Some(same) = same {
            let id = resolve::short(&same.id);
            let message = format!(
                "pod {}/{name} exists already ({id}); delete it first",
                pod.namespace
            );
            return Err(CliError::refused(message));
        }
    }
    for pod in &pods {
        let plan = start::Plan::new(&session, pod, &global.state_dir, &args)?;
        let result = tokio::select! {
            result = start::run(&plan) => result,
            interrupted = interrupted() => Err(interrupted),
        };
        if let Err(error) = result {
            if !args.keep {
                undo::run(&plan).await;
            }
            return Err(error);
        }
        out::line(format!("pod/{} created", pod.name.value))?;
    }
    Ok(())
}

/// Every pod of the files, or every mistake in them.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Pod>> {
    let (mut pods, mut found) = (Vec::new(), Vec::new());
    for file in files {
        let name = if file == Path::new("-") {
            "stdin".to_owned()
        } else {
            file.display().to_string()
        };
        match manifest::load(&text(file)?) {
            Ok(more) => pods.extend(more),
            Err(mistakes) => found.extend(mistakes.into_iter().map(|m| (name.clone(), m))),
        }
    }
    if !found.is_empty() {
        return Err(CliError::Manifest { found });
    }
    for (index, pod) in pods.iter().enumerate() {
        let key = |pod: &Pod| (pod.namespace.clone(), pod.name.value.clone());
        if pods[..index].iter().any(|other| key(other) == key(pod)) {
            let message = format!("{}/{} is in two files", pod.namespace, pod.name.value);
            return Err(CliError::refused(message));
        }
    }
    Ok(pods)
}

fn text(file: &Path) -> Result<String> {
    let doing = || format!("read {}", file.display());
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(file).doing(doing())?)
    };
    let mut text = String::new();
    source
        .take(MAX_MANIFEST + 1)
        .read_to_string(&mut text)
        .doing(doing())?;
    if text.len() as u64 > MAX_MANIFEST {
        return Err(CliError::refused(format!(
            "{}: larger than 4 MiB",
            file.display()
        )));
    }
    Ok(text)
}

/// Resolves when the user gives up.
async fn interrupted() -> CliError {
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            CliError::refused("interrupted")
        }
        (Err(error), _) | (_, Err(error)) => CliError::io("watch for signals", error),
    }
}
