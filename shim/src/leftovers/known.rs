//! The pods and containers that have a record.

use std::collections::BTreeSet;
use std::path::Path;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) pods: BTreeSet<String>,
    pub(crate) containers: BTreeSet<String>,
}

impl Known {
    /// By the names of the records' directories.
    pub(crate) fn read(root: &Path) -> Self {
        let dir = root.join("state/pods");
        let pods = names(&dir);
        let containers = pods
            .iter()
            .flat_map(|pod| names(&dir.join(pod).join("containers")))
            .collect();
        Self { pods, containers }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.pods.extend(other.pods);
        self.containers.extend(other.containers);
    }
}

/// What is in a directory; one that is not there is empty.
pub(super) fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Known;

    #[test]
    fn records_are_known_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Known::read(dir.path()), Known::default());
        std::fs::create_dir_all(dir.path().join("state/pods/p/containers/c")).unwrap();
        std::fs::create_dir_all(dir.path().join("state/pods/q")).unwrap();
        let known = Known::read(dir.path());
        assert_eq!(known.pods, ["p", "q"].map(str::to_owned).into());
        assert_eq!(known.containers, ["c".to_owned()].into());
    }
}
