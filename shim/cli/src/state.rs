//! The directory of a pod made here: its logs and its emptyDir volumes.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use carpel_proto::cri;

use crate::error::{Doing, Result};

/// `STATE/pods/NAMESPACE_NAME_UID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodDir(PathBuf);

impl PodDir {
    /// `None` for a pod whose names are no plain file name: none that was made here.
    pub(crate) fn of(state: &Path, metadata: &cri::PodSandboxMetadata) -> Option<Self> {
        let parts = [&metadata.namespace, &metadata.name, &metadata.uid];
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let leaf = parts.map(String::as_str).join("_");
        let mut components = Path::new(&leaf).components();
        let plain =
            matches!(components.next(), Some(Component::Normal(one)) if one == leaf.as_str());
        (plain && components.next().is_none()).then(|| Self(state.join("pods").join(leaf)))
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }

    /// Makes the directory with its logs; what is above it is for root alone.
    pub(crate) fn make(&self) -> Result<()> {
        let private = |path: &Path| {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path);
            made.doing(format_args!("make {}", path.display()))
        };
        private(&self.0)?;
        fs::create_dir_all(self.logs()).doing(format_args!("make {}", self.logs().display()))
    }

    /// Makes an emptyDir: any user of the pod's containers may write there.
    pub(crate) fn make_volume(&self, name: &str) -> Result<PathBuf> {
        let path = self.volume(name);
        fs::create_dir_all(&path).doing(format_args!("make {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))
            .doing(format_args!("open {} to the pod", path.display()))?;
        Ok(path)
    }

    /// Removes all of it. A pod that was made elsewhere has none.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.doing(format_args!("remove {}", self.0.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> Option<PodDir> {
        let metadata = cri::PodSandboxMetadata {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            uid: "u".to_owned(),
            attempt: 0,
        };
        PodDir::of(Path::new("/s"), &metadata)
    }

    #[test]
    fn a_strange_name_leads_nowhere() {
        assert_eq!(
            dir("web"),
            Some(PodDir(PathBuf::from("/s/pods/default_web_u")))
        );
        for bad in ["", "a/b", "../x", "/etc", "a/../../.."] {
            assert_eq!(dir(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_volume_is_open_to_the_pod_and_goes_with_it() {
        let scratch = tempfile::tempdir().unwrap();
        let pod = PodDir(scratch.path().join("pods/p"));
        pod.make().unwrap();
        let volume = pod.make_volume("data").unwrap();
        assert_eq!(
            fs::metadata(&volume).unwrap().permissions().mode() & 0o7777,
            0o777
        );
        assert_eq!(
            fs::metadata(&pod.0).unwrap().permissions().mode() & 0o7777,
            0o700
        );
        fs::write(volume.join("x"), "x").unwrap();
        pod.remove().unwrap();
        assert!(!pod.0.exists());
        pod.remove().unwrap();
    }
}
