//! Where the built binaries, the tools and the caches are.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is a folder of the workspace")
}

/// One of the binaries under test, by name.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let directory = std::env::var_os("CARPEL_BIN_DIR")
        .map_or_else(|| workspace().join("target/carpel"), PathBuf::from);
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is missing: run `make build`, or set CARPEL_BIN_DIR to the folder of the built binaries",
        path.display()
    );
    Ok(path)
}

/// A tool that `make setup` puts in the cache, by name.
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let path = cache().join("bin").join(name);
    ensure!(
        path.is_file(),
        "{} is missing: run `make setup`",
        path.display()
    );
    Ok(path)
}

/// What is kept between runs, outside version control.
pub fn cache() -> PathBuf {
    std::env::var_os("CARPEL_CACHE_DIR").map_or_else(|| workspace().join(".cache"), PathBuf::from)
}

/// A new folder for one node: short, because socket paths are; open to others,
/// because user namespaces look through it.
pub(crate) fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let parent = std::env::var_os("CARPEL_TEST_DIR").map_or_else(|| "/tmp".into(), PathBuf::from);
    let directory = tempfile::Builder::new()
        .prefix("ct-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(&parent)
        .with_context(|| format!("make a folder in {}", parent.display()))?;
    Ok(directory)
}
