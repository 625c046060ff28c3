//! Makes ready what a pod mounts: checks host paths, makes emptyDirs and subPaths.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{CliError, Doing, Result};
use crate::manifest::Pod;
use crate::manifest::model::{HostPathCheck, VolumeSource};
use crate::state::PodDir;

/// Where volumes and their subPaths are on this host.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    pub(crate) sub_paths: BTreeMap<(String, String), PathBuf>,
}

pub(crate) fn prepare(pod: &Pod, dir: &PodDir) -> Result<Places> {
    let mut places = Places::default();
    for volume in &pod.volumes {
        let name = &volume.name.value;
        let path = match &volume.source {
            VolumeSource::EmptyDir => dir.make_volume(name)?,
            VolumeSource::HostPath { path, check } => {
                let path = PathBuf::from(&path.value);
                check_host_path(&path, *check)
                    .map_err(|message| CliError::refused(format!("volume {name}: {message}")))?;
                path
            }
        };
        places.volumes.insert(name.clone(), path);
    }
    for mount in pod.all_containers().flat_map(|container| &container.mounts) {
        let Some(sub_path) = &mount.sub_path else {
            continue;
        };
        let Some(volume) = places.volumes.get(&mount.volume.value) else {
            continue;
        };
        let path = resolve_below(volume, &sub_path.value)?;
        places
            .sub_paths
            .insert((mount.volume.value.clone(), sub_path.value.clone()), path);
    }
    Ok(places)
}

/// The real place of `sub_path`, made as a directory when it is not there. A symbolic link
/// must not lead out of the volume.
fn resolve_below(volume: &Path, sub_path: &str) -> Result<PathBuf> {
    let root = volume
        .canonicalize()
        .doing(format_args!("open {}", volume.display()))?;
    let mut place = root.clone();
    for part in Path::new(sub_path) {
        let next = place.join(part);
        place = match next.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir(&next).doing(format_args!("make {}", next.display()))?;
                next
            }
            Err(error) => return Err(CliError::io(format!("open {}", next.display()), error)),
        };
        if !place.starts_with(&root) {
            let message = format!("subPath {sub_path:?} leads out of {}", volume.display());
            return Err(CliError::refused(message));
        }
    }
    Ok(place)
}

fn check_host_path(path: &Path, check: HostPathCheck) -> std::result::Result<(), String> {
    let shown = path.display();
    let make = |result: std::io::Result<()>| result.map_err(|e| format!("make {shown}: {e}"));
    match check {
        HostPathCheck::None => return Ok(()),
        HostPathCheck::DirectoryOrCreate if !path.exists() => {
            return make(fs::create_dir_all(path));
        }
        HostPathCheck::FileOrCreate if !path.exists() => {
            let mut options = fs::OpenOptions::new();
            let made = options.create_new(true).write(true).mode(0o644).open(path);
            return make(made.map(drop));
        }
        _ => {}
    }
    let kind = fs::metadata(path)
        .map_err(|error| format!("hostPath {shown}: {error}"))?
        .file_type();
    let (fits, what) = match check {
        HostPathCheck::None => (true, ""),
        HostPathCheck::DirectoryOrCreate | HostPathCheck::Directory => {
            (kind.is_dir(), "a directory")
        }
        HostPathCheck::FileOrCreate | HostPathCheck::File => (kind.is_file(), "a file"),
        HostPathCheck::Socket => (kind.is_socket(), "a socket"),
        HostPathCheck::CharDevice => (kind.is_char_device(), "a character device"),
        HostPathCheck::BlockDevice => (kind.is_block_device(), "a block device"),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("hostPath {shown} is not {what}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sub_paths_stay_below_their_volume() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let volume = root.join("v");
        fs::create_dir(&volume).unwrap();
        assert_eq!(resolve_below(&volume, "a/b").unwrap(), volume.join("a/b"));
        assert!(volume.join("a/b").is_dir());
        symlink("/etc", volume.join("out")).unwrap();
        symlink("a", volume.join("in")).unwrap();
        assert_eq!(resolve_below(&volume, "in/b").unwrap(), volume.join("a/b"));
        let error = resolve_below(&volume, "out/ssh").unwrap_err().to_string();
        assert!(error.contains("leads out of"), "{error}");
        assert!(!Path::new("/etc/ssh/made-by-test").exists());
    }

    #[test]
    fn host_paths_are_checked_and_made() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        assert_eq!(
            check_host_path(&path("d/e"), HostPathCheck::DirectoryOrCreate),
            Ok(())
        );
        assert!(path("d/e").is_dir());
        assert_eq!(
            check_host_path(&path("f"), HostPathCheck::FileOrCreate),
            Ok(())
        );
        assert!(path("f").is_file());
        assert_eq!(check_host_path(&path("f"), HostPathCheck::File), Ok(()));
        assert!(check_host_path(&path("f"), HostPathCheck::Directory).is_err());
        assert!(check_host_path(&path("f"), HostPathCheck::Socket).is_err());
        assert!(check_host_path(&path("none"), HostPathCheck::Directory).is_err());
        assert_eq!(check_host_path(&path("none"), HostPathCheck::None), Ok(()));
        assert_eq!(
            check_host_path(Path::new("/dev/null"), HostPathCheck::CharDevice),
            Ok(())
        );
    }
}
