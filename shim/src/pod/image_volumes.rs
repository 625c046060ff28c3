//! The anonymous volumes of containers: `<root>/volumes/<container>/<number>`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use carpel_failpoint::step;
use carpel_spec::ImageVolume;

use super::recorded::blocking;
use super::runtime::Runtime;
use crate::copy_up::{Fault, copy_up};
use crate::error::{Error, Failures};

impl Runtime {
    /// Makes a volume for each of these paths of the container's image, filled with
    /// what the image has there.
    pub(super) async fn make_volumes(
        &self,
        container: &str,
        rootfs: &OwnedFd,
        paths: Vec<String>,
    ) -> Result<Vec<ImageVolume>, Error> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let parent = self.parts.volumes.join(container);
        let rootfs = rootfs
            .try_clone()
            .map_err(Error::io("keep the root filesystem"))?;
        blocking(move || {
            fs::create_dir(&parent).map_err(Error::io(format!("make {}", parent.display())))?;
            let make = |(number, destination): (usize, String)| {
                let source = parent.join(number.to_string());
                step("a volume is about to be made");
                make(&rootfs, &destination, &source)?;
                step("a volume is made");
                Ok(ImageVolume {
                    destination,
                    source: source.display().to_string(),
                })
            };
            paths.into_iter().enumerate().map(make).collect()
        })
        .await
    }

    /// That there are none is no error.
    pub(super) async fn remove_volumes(&self, container: &str) -> Result<(), Error> {
        let path = self.parts.volumes.join(container);
        blocking(move || remove(&path)).await
    }

    /// Removes those of containers that no record tells of.
    pub(super) async fn sweep_volumes(&self, containers: HashSet<String>) -> Result<(), Error> {
        let volumes = self.parts.volumes.clone();
        blocking(move || {
            let mut failures = Failures::default();
            let what = || format!("list {}", volumes.display());
            for entry in fs::read_dir(&volumes).map_err(Error::io(what()))? {
                let Some(entry) = failures.note(entry.map_err(Error::io(what()))) else {
                    continue;
                };
                let known = entry
                    .file_name()
                    .to_str()
                    .is_some_and(|name| containers.contains(name));
                if !known {
                    failures.note(remove(&entry.path()));
                }
            }
            failures.into_result()
        })
        .await
    }
}

fn make(rootfs: &OwnedFd, destination: &str, source: &PathBuf) -> Result<(), Error> {
    let what = format!("make volume {}", source.display());
    fs::create_dir(source).map_err(Error::io(&*what))?;
    let to = File::open(source).map_err(Error::io(&*what))?;
    copy_up(rootfs.as_fd(), Path::new(destination), to.into()).map_err(|fault| match fault {
        Fault::Image(why) => Error::FailedPrecondition(why),
        Fault::Io { what, source } => Error::io(what)(source),
    })
}

fn remove(path: &Path) -> Result<(), Error> {
    match carpel_images::remove_tree(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io(format!("remove {}", path.display()))),
    }
}
