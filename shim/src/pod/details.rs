//! What running pods use, in all the detail that metrics have.

use std::path::Path;
use std::sync::Arc;

use carpel_cgroup::{Hierarchies, Hugepages};

use super::pod::Pod;
use super::processes::Processes;
use super::recorded::blocking;
use super::runtime::Runtime;
use super::stats::{ContainerUsage, PodUsage};
use crate::error::Error;

#[derive(Debug)]
pub(crate) struct PodDetails {
    /// Its containers are in `containers`.
    pub(crate) used: PodUsage,
    pub(crate) containers: Vec<ContainerDetails>,
}

#[derive(Debug)]
pub(crate) struct ContainerDetails {
    pub(crate) used: ContainerUsage,
    pub(crate) processes: Processes,
    pub(crate) hugepages: Vec<Hugepages>,
    pub(crate) disk: Disk,
}

/// The filesystem of writable layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) device: String,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

impl Runtime {
    /// Of all pods that are ready, with their running containers.
    pub(crate) async fn pods_details(&self, pods: Vec<Arc<Pod>>) -> Result<Vec<PodDetails>, Error> {
        let used = self.pods_usage(pods).await?;
        let filesystem = self.filesystem().await?;
        let cgroups = Arc::clone(&self.parts.cgroups);
        blocking(move || {
            let disk = disk(Path::new(&*filesystem))?;
            Ok(used
                .into_iter()
                .map(|mut used| PodDetails {
                    containers: std::mem::take(&mut used.containers)
                        .into_iter()
                        .filter_map(|used| container(&cgroups, used, &disk))
                        .collect(),
                    used,
                })
                .collect())
        })
        .await
    }
}

/// None for one that has gone meanwhile.
fn container(cgroups: &Hierarchies, used: ContainerUsage, disk: &Disk) -> Option<ContainerDetails> {
    let look = || -> Result<_, carpel_cgroup::Error> {
        let cgroup = cgroups.open(&used.container.cgroup)?;
        Ok((cgroup.members()?, cgroup.hugepages()?))
    };
    match look() {
        Ok((pids, hugepages)) => Some(ContainerDetails {
            processes: Processes::count(&pids, used.container.pid),
            hugepages,
            disk: disk.clone(),
            used,
        }),
        Err(error) => {
            tracing::debug!(container = %used.container.id, %error, "no metrics");
            None
        }
    }
}

fn disk(path: &Path) -> Result<Disk, Error> {
    let failed = |errno: rustix::io::Errno| {
        Error::io(format!("look at the filesystem of {}", path.display()))(errno.into())
    };
    let filesystem = rustix::fs::statvfs(path).map_err(failed)?;
    let device = rustix::fs::stat(path).map_err(failed)?.st_dev;
    Ok(Disk {
        device: device_name(rustix::fs::major(device), rustix::fs::minor(device)),
        bytes: filesystem.f_blocks * filesystem.f_frsize,
        inodes: filesystem.f_files,
        inodes_free: filesystem.f_ffree,
    })
}

/// `/dev/sda1`, or the numbers of what is no block device.
pub(crate) fn device_name(major: u32, minor: u32) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    match link.as_deref().ok().and_then(Path::file_name) {
        Some(name) => format!("/dev/{}", name.to_string_lossy()),
        None => format!("{major}:{minor}"),
    }
}
