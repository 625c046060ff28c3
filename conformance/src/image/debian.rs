//! Programs of installed Debian packages, with the libraries they need, and our own helpers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::Layer;

/// Name of this machine's architecture in images.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Adds the program at `source` under `path`, and its libraries where it looks for them.
pub(super) fn program(layer: Layer, source: &str, path: &str) -> anyhow::Result<Layer> {
    let mut layer = layer.file(path, &read(source)?, 0o755);
    for library in libraries(source)? {
        let inside = library.trim_start_matches('/');
        if !layer.has(inside) {
            layer = layer.file(inside, &read(&library)?, 0o755);
        }
    }
    Ok(layer)
}

fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {path} (run `make setup`)"))
}

fn libraries(program: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("run ldd")?;
    ensure!(
        output.status.success(),
        "ldd {program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let paths = text.lines().filter_map(|line| {
        let path = line.rsplit("=>").next()?.split('(').next()?.trim();
        path.starts_with('/').then(|| path.to_owned())
    });
    Ok(paths.collect())
}

/// Names that busybox answers to.
pub(super) fn applets() -> anyhow::Result<Vec<String>> {
    let output = Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .context("run busybox")?;
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(ToOwned::to_owned)
        .collect())
}

pub(super) fn helper_sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("helpers")
}

/// One of our helpers, as a static program.
pub fn helper(name: &str) -> anyhow::Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join(name);
    let status = Command::new("gcc")
        .args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"])
        .arg(&program)
        .arg(helper_sources().join(format!("{name}.c")))
        .status()
        .context("run gcc (run `make setup`)")?;
    ensure!(status.success(), "gcc does not compile {name}.c");
    Ok(std::fs::read(program)?)
}
