//! Records as files: `pods/<pod>/record`, `pods/<pod>/containers/<container>/record`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use carpel_failpoint::step;
use carpel_proto::state::{ContainerRecord, PodRecord};
use prost::Message;

use super::frame;
use crate::error::Error;

/// Not for use on async threads: every call may wait for the disk.
#[derive(Debug, Clone)]
pub(crate) struct StateStore {
    pods: PathBuf,
}

/// Root's alone, on the way to records as well.
const MODE: u32 = 0o700;

/// One pod as it was found on disk.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) id: String,
    /// Or why it cannot be read.
    pub(crate) pod: Result<PodRecord, String>,
    pub(crate) containers: Vec<(String, Result<ContainerRecord, String>)>,
}

impl StateStore {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let pods = root.join("pods");
        make_dir(&pods)?;
        // Records hold what containers get in their environment.
        fs::set_permissions(root, fs::Permissions::from_mode(MODE))
            .map_err(Error::io(format!("protect {}", root.display())))?;
        Ok(Self { pods })
    }

    pub(crate) fn pod_dir(&self, pod: &str) -> PathBuf {
        self.pods.join(pod)
    }

    pub(crate) fn container_dir(&self, pod: &str, container: &str) -> PathBuf {
        self.pods.join(pod).join("containers").join(container)
    }

    pub(crate) fn save_pod(&self, record: &PodRecord) -> Result<(), Error> {
        let dir = self.pod_dir(&record.id);
        make_dir(&dir.join("containers"))?;
        step("the pod's directory is made");
        write_record(&dir, record)
    }

    pub(crate) fn save_container(&self, record: &ContainerRecord) -> Result<(), Error> {
        let dir = self.container_dir(&record.pod_id, &record.id);
        make_dir(&dir)?;
        step("the container's directory is made");
        write_record(&dir, record)
    }

    /// The OCI configuration a container was created with, for exec and inspection.
    /// Gives its checksum, for the record.
    pub(crate) fn save_spec(&self, pod: &str, container: &str, spec: &[u8]) -> Result<u32, Error> {
        write_file(&self.container_dir(pod, container), "spec.json", spec)?;
        Ok(crc32fast::hash(spec))
    }

    pub(crate) fn load_spec(
        &self,
        pod: &str,
        container: &str,
        crc32: Option<u32>,
    ) -> Result<Vec<u8>, Error> {
        let path = self.container_dir(pod, container).join("spec.json");
        let spec = fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
        // Records of earlier daemons have no checksum of it.
        if crc32.is_some_and(|crc32| crc32 != crc32fast::hash(&spec)) {
            return Err(Error::Internal(format!(
                "{} fails its checksum",
                path.display()
            )));
        }
        Ok(spec)
    }

    pub(crate) fn remove_pod(&self, pod: &str) -> Result<(), Error> {
        remove_tree(&self.pod_dir(pod))
    }

    pub(crate) fn remove_container(&self, pod: &str, container: &str) -> Result<(), Error> {
        remove_tree(&self.container_dir(pod, container))
    }

    /// Which of these pods have a directory, with the containers in it.
    pub(crate) fn recorded(&self, pods: &[String]) -> Vec<(String, Vec<String>)> {
        let with_containers = |pod: &String| {
            let dir = self.pod_dir(pod);
            let containers = names(&dir.join("containers")).unwrap_or_default();
            dir.exists().then(|| (pod.clone(), containers))
        };
        pods.iter().filter_map(with_containers).collect()
    }

    pub(crate) fn load(&self) -> Result<Vec<Loaded>, Error> {
        let mut all = Vec::new();
        for id in names(&self.pods)? {
            let dir = self.pod_dir(&id);
            if is_leftover(&dir) {
                continue;
            }
            let mut containers = Vec::new();
            let inside = names(&dir.join("containers")).unwrap_or_else(|error| {
                tracing::error!(pod = %id, %error, "cannot tell which containers it has");
                Vec::new()
            });
            for container in inside {
                let dir = self.container_dir(&id, &container);
                if !is_leftover(&dir) {
                    containers.push((container, read_record(&dir)));
                }
            }
            all.push(Loaded {
                pod: read_record(&dir),
                containers,
                id,
            });
        }
        Ok(all)
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(path)
        .map_err(Error::io(format!("create {}", path.display())))
}

fn write_record(dir: &Path, record: &impl Message) -> Result<(), Error> {
    write_file(dir, "record", &frame::encode(record))
}

/// Old or new, never half. Not flushed to the disk: after a power cut no process
/// of the pod is left, and the checksum tells a lost record.
fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.new"));
    fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(Error::io(format!("write {}", temporary.display())))?;
    step("a file of the state is written under another name");
    fs::rename(&temporary, &path).map_err(Error::io(format!("write {}", path.display())))?;
    step("a file of the state is in its place");
    Ok(())
}

fn read_record<M: Message + Default>(dir: &Path) -> Result<M, String> {
    let path = dir.join("record");
    let bytes = fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    frame::decode(&bytes).map_err(|e| format!("{} {e}", path.display()))
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Whether a directory has no record, and then removes it: its record is the first
/// thing that is made and, should a removal break off, may be the first that goes.
fn is_leftover(dir: &Path) -> bool {
    let record = dir.join("record");
    match fs::symlink_metadata(&record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::info!(dir = %dir.display(), "removing a directory without a record");
            if let Err(error) = remove_tree(dir) {
                tracing::error!(%error, "it stays");
            }
            true
        }
        _ => false,
    }
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("list {}", dir.display()))(error)),
    };
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::StateStore;
    use carpel_proto::state::{ContainerRecord, PodRecord};

    #[test]
    fn what_stood_open_is_closed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        StateStore::open(dir.path()).unwrap();
        let mode = dir.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn records_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open(dir.path()).unwrap();
        let pod = PodRecord {
            id: "p".into(),
            ..PodRecord::default()
        };
        let container = ContainerRecord {
            id: "c".into(),
            pod_id: "p".into(),
            ..ContainerRecord::default()
        };
        store.save_pod(&pod).unwrap();
        store.save_container(&container).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].pod, Ok(pod));
        assert_eq!(loaded[0].containers, vec![("c".to_owned(), Ok(container))]);
        store.remove_pod("p").unwrap();
        assert!(store.load().unwrap().is_empty());
    }

    #[test]
    fn a_changed_specification_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open(dir.path()).unwrap();
        let container = ContainerRecord {
            id: "c".into(),
            pod_id: "p".into(),
            ..ContainerRecord::default()
        };
        store.save_container(&container).unwrap();
        let crc32 = Some(store.save_spec("p", "c", b"{}").unwrap());
        assert_eq!(store.load_spec("p", "c", crc32).unwrap(), b"{}");
        let file = dir.path().join("pods/p/containers/c/spec.json");
        std::fs::write(&file, b"[]").unwrap();
        assert_eq!(store.load_spec("p", "c", None).unwrap(), b"[]");
        let error = store.load_spec("p", "c", crc32).unwrap_err().to_string();
        assert!(
            error.contains("spec.json") && error.contains("checksum"),
            "{error}"
        );
    }

    #[test]
    fn what_is_recorded_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("pods/p/containers/c")).unwrap();
        let asked = ["p".to_owned(), "q".to_owned()];
        assert_eq!(
            store.recorded(&asked),
            [("p".to_owned(), vec!["c".to_owned()])]
        );
    }

    #[test]
    fn what_has_no_record_yet_or_any_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open(dir.path()).unwrap();
        store
            .save_pod(&PodRecord {
                id: "p".into(),
                ..PodRecord::default()
            })
            .unwrap();
        for half in ["pods/q/containers", "pods/p/containers/c"] {
            std::fs::create_dir_all(dir.path().join(half)).unwrap();
        }
        let loaded = store.load().unwrap();
        assert_eq!((loaded.len(), loaded[0].containers.len()), (1, 0));
        assert!(!dir.path().join("pods/q").exists());
        assert!(!dir.path().join("pods/p/containers/c").exists());
    }

    #[test]
    fn a_broken_record_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open(dir.path()).unwrap();
        for id in ["a", "b"] {
            store
                .save_pod(&PodRecord {
                    id: id.into(),
                    ..PodRecord::default()
                })
                .unwrap();
        }
        std::fs::write(dir.path().join("pods/a/record"), b"").unwrap();
        let mut loaded = store.load().unwrap();
        loaded.sort_by(|x, y| x.id.cmp(&y.id));
        assert!(loaded[0].pod.as_ref().unwrap_err().contains("cut short"));
        assert!(loaded[1].pod.is_ok());
    }
}
