//! Records on disk. Written to a temporary name and renamed: a crash of the
//! daemon leaves the old one or the new one. Not synced, for what they tell of
//! (devices, rules) dies with the kernel that would lose them.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use carpel_failpoint::step;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::record::PodRecord;
use crate::driver::Error;
use crate::error::{context, invalid};

const NODE: &str = "node.json";
const PODS: &str = "pods";
const SUFFIX: &str = ".json";
const TEMPORARY: &str = ".tmp";

/// What is remembered about the node as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeRecord {
    /// The config's pod CIDRs when `pod_cidrs` was set: a new config wins.
    pub(super) configured: Vec<IpNet>,
    pub(super) pod_cidrs: Vec<IpNet>,
    /// Given out last, of each family.
    pub(super) last: Vec<std::net::IpAddr>,
    /// The boot that the rest is about.
    pub(super) boot_id: String,
    pub(super) made_bridge: bool,
    /// Settings that we changed, with their old values, first change first.
    pub(super) settings: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let pods = dir.join(PODS);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&pods)
            .map_err(context(|| format!("create {}", pods.display())))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    pub(super) fn node(&self) -> Result<NodeRecord, Error> {
        let path = self.dir.join(NODE);
        match fs::read(&path) {
            Ok(bytes) => Ok(parse(&path, &bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "starting with an empty record of the node");
                NodeRecord::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NodeRecord::default()),
            Err(error) => Err(context(|| format!("read {}", path.display()))(error)),
        }
    }

    pub(super) fn write_node(&self, node: &NodeRecord) -> Result<(), Error> {
        write(&self.dir.join(NODE), node)
    }

    /// All pods' records. One that cannot be read was cut short by a power loss,
    /// and its pod with it: it is told of and removed, as are unfinished writes.
    pub(super) fn pods(&self) -> Result<Vec<PodRecord>, Error> {
        let dir = self.dir.join(PODS);
        let what = || format!("read {}", dir.display());
        let mut pods = Vec::new();
        for entry in fs::read_dir(&dir).map_err(context(what))? {
            let path = entry.map_err(context(what))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.ends_with(TEMPORARY) {
                remove(&path)?;
            }
            let Some(id) = name.strip_suffix(SUFFIX) else {
                continue;
            };
            let bytes = fs::read(&path).map_err(context(|| format!("read {}", path.display())))?;
            match parse::<PodRecord>(&path, &bytes) {
                Ok(pod) if pod.pod_id == id => pods.push(pod),
                Ok(_) => {
                    tracing::warn!(path = %path.display(), "record of another pod removed");
                    remove(&path)?;
                }
                Err(error) => {
                    tracing::warn!(%error, "unreadable record removed");
                    remove(&path)?;
                }
            }
        }
        Ok(pods)
    }

    pub(super) fn write_pod(&self, pod: &PodRecord) -> Result<(), Error> {
        write(&self.pod_path(&pod.pod_id), pod)
    }

    pub(super) fn remove_pod(&self, pod_id: &str) -> Result<(), Error> {
        remove(&self.pod_path(pod_id))
    }

    /// Removes the directories and what is ours in them, when no pod is left.
    pub(super) fn destroy(&self) -> Result<(), Error> {
        remove(&self.dir.join(NODE))?;
        for dir in [&self.dir.join(PODS), &self.dir] {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(context(|| format!("remove {}", dir.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn pod_path(&self, pod_id: &str) -> PathBuf {
        self.dir.join(PODS).join(format!("{pod_id}{SUFFIX}"))
    }
}

/// All pods' records that can be read, without touching anything.
pub(super) fn look(dir: &Path) -> Result<Vec<PodRecord>, Error> {
    let dir = dir.join(PODS);
    let what = || format!("read {}", dir.display());
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(context(what)(error)),
    };
    let mut pods = Vec::new();
    for entry in entries {
        let path = entry.map_err(context(what))?.path();
        // One that has just gone, or is being written, is no record.
        if path.extension().is_some_and(|end| end == "json")
            && let Ok(bytes) = fs::read(&path)
            && let Ok(pod) = serde_json::from_slice(&bytes)
        {
            pods.push(pod);
        }
    }
    Ok(pods)
}

/// Names this boot of the machine.
pub(super) fn boot_id() -> Result<String, Error> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(PATH).map_err(context(|| format!("read {PATH}")))?;
    Ok(id.trim().to_owned())
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| invalid(path.display().to_string(), error.to_string()))
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let what = || format!("write {}", path.display());
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(io::Error::from)
        .map_err(context(what))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    fs::write(&temporary, bytes).map_err(context(what))?;
    step("a record of the network is written under another name");
    fs::rename(&temporary, path).map_err(context(what))?;
    step("a record of the network is in its place");
    Ok(())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(context(|| format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::record::{Phase, PodAddress};
    use crate::driver::{HostPort, Protocol};

    fn pod(id: &str) -> PodRecord {
        PodRecord {
            pod_id: id.into(),
            pod: "ns/name".into(),
            phase: Phase::Intended,
            boot_id: "boot".into(),
            host_interface: "cpl0".into(),
            addresses: vec![PodAddress {
                address: "10.88.0.2/16".parse().unwrap(),
                gateway: "10.88.0.1".parse().unwrap(),
            }],
            host_ports: vec![HostPort {
                protocol: Protocol::Udp,
                host_port: 53,
                container_port: 5353,
                host_ip: None,
            }],
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.write_pod(&pod("a")).unwrap();
        assert_eq!(store.pods().unwrap(), [pod("a")]);
        store.remove_pod("a").unwrap();
        store.remove_pod("a").unwrap();
        assert!(store.pods().unwrap().is_empty());

        assert_eq!(store.node().unwrap(), NodeRecord::default());
        let node = NodeRecord {
            made_bridge: true,
            ..NodeRecord::default()
        };
        store.write_node(&node).unwrap();
        assert_eq!(store.node().unwrap(), node);
        store.destroy().unwrap();
        assert!(!dir.path().exists());
    }

    #[test]
    fn what_a_crash_left_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.write_pod(&pod("good")).unwrap();
        let pods = dir.path().join(PODS);
        fs::write(pods.join("cut.json"), "{\"pod_id\": \"cu").unwrap();
        fs::write(pods.join("empty.json"), "").unwrap();
        fs::write(pods.join("new.json.tmp"), "{").unwrap();
        fs::write(dir.path().join(NODE), "").unwrap();
        assert_eq!(store.pods().unwrap(), [pod("good")]);
        assert_eq!(fs::read_dir(&pods).unwrap().count(), 1);
        assert_eq!(store.node().unwrap(), NodeRecord::default());
    }
}
