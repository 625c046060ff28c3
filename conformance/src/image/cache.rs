//! The set of test images, kept between runs.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context;
use sha2::{Digest, Sha256};

use super::{Content, catalogue, debian};

/// All images of the catalogue; made once, and again when what they are made of changes.
pub fn test_images() -> anyhow::Result<Content> {
    static IMAGES: OnceLock<Result<Content, String>> = OnceLock::new();
    IMAGES
        .get_or_init(|| load_or_build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn load_or_build() -> anyhow::Result<Content> {
    let parent = crate::paths::cache().join("images");
    let directory = parent.join(version()?);
    if directory.is_dir() {
        return Content::read(&directory);
    }
    let content = catalogue::build().context("build the test images")?;
    std::fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix("new-")
        .tempdir_in(&parent)?;
    content
        .write(scratch.path())
        .context("keep the test images")?;
    // Another process may have been quicker; its set is the same.
    std::fs::rename(scratch.path(), &directory).ok();
    Ok(content)
}

/// Changes with everything that the images are made of.
fn version() -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    for source in ["catalogue.rs", "debian.rs", "build.rs", "layer.rs"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("src/image")
            .join(source);
        hash.update(std::fs::read(path)?);
    }
    let mut helpers: Vec<PathBuf> = std::fs::read_dir(debian::helper_sources())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    helpers.sort();
    let programs = [
        "/bin/busybox",
        "/usr/bin/pgrep",
        "/usr/bin/ipcs",
        "/usr/sbin/nginx",
    ];
    for path in helpers.into_iter().chain(programs.map(PathBuf::from)) {
        let data = std::fs::read(&path)
            .with_context(|| format!("read {} (run `make setup`)", path.display()))?;
        hash.update(data);
    }
    let text = hash
        .finalize()
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Ok(text[..16].to_owned())
}

#[cfg(test)]
mod tests {
    use super::test_images;

    #[test]
    fn the_set_has_every_image_of_critest() {
        let images = test_images().unwrap();
        for name in [
            "e2e-test-images/busybox:1.29-2",
            "e2e-test-images/nginx:1.14-2",
            "e2e-test-images/httpd:2.4.39-4",
            "e2e-test-images/nonewprivs:1.3",
            "k8s-staging-cri-tools/test-image-predefined-group:latest",
            "k8s-staging-cri-tools/test-image-tag:test",
            "pause:3.9",
        ] {
            assert!(images.digest(name).is_some(), "{name}");
        }
        let digest =
            |number| images.digest(&format!("k8s-staging-cri-tools/test-image-{number}:latest"));
        assert_ne!(digest(1), digest(2));
        let tag =
            |number| images.digest(&format!("k8s-staging-cri-tools/test-image-tags:{number}"));
        assert_eq!(tag(1), tag(3));
    }
}
