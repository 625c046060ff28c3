//! After a start: what belongs to no record goes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carpel_cgroup::Hierarchies;

use super::ids::short;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::{Error, Failures};
use crate::holder;

/// In the pod's run directory: its cgroup, for when the record is lost.
pub(super) const CGROUP_NOTE: &str = "cgroup";
/// For a holder that no record knows.
const GREETING: Duration = Duration::from_secs(2);
const ID_LENGTH: usize = 64;

impl Runtime {
    /// Root filesystems, addresses, holders, cgroups and sockets of no pod. `known`
    /// are the pods that had a record at the start, recovered by now or not.
    pub(super) async fn sweep(&self, known: &[String]) -> Result<(), Error> {
        let mut failures = Failures::default();
        let mut containers: HashSet<String> =
            self.containers().iter().map(|c| c.id.clone()).collect();
        let mut pods: HashSet<String> = self.pods().iter().map(|pod| pod.id.clone()).collect();
        let state = self.parts.state.clone();
        let listed = |id: &&String| pods.contains(*id);
        let ids: Vec<String> = known.iter().filter(|id| !listed(id)).cloned().collect();
        // Those whose undoing goes on have records still.
        let recorded = failures.note(blocking(move || Ok(state.recorded(&ids))).await);
        for (pod, inside) in recorded.into_iter().flatten() {
            pods.insert(pod);
            containers.extend(inside);
        }
        if let Some(prepared) = failures.note(self.parts.images.prepared().await) {
            for key in prepared.iter().filter(|key| !containers.contains(*key)) {
                failures.note(self.parts.images.release(key).await);
            }
        }
        for handler in self.parts.handlers.oci() {
            failures.note(handler.sweep(|id| containers.contains(id)).await);
        }
        failures.note(self.sweep_volumes(containers).await);
        let list: Vec<String> = pods.iter().cloned().collect();
        failures.note(self.parts.network.gc(&list).await);
        for dir in strays(&self.parts.run.join("pods"), &pods) {
            failures.note(self.end_stray(&dir).await);
        }
        failures.note(self.sweep_cgroups(&list).await);
        failures.into_result()
    }

    /// A holder whose pod has no record, with all that it holds.
    async fn end_stray(&self, dir: &Path) -> Result<(), Error> {
        tracing::warn!(dir = %dir.display(), "removing what is left of a pod without a record");
        if let Ok(connected) = holder::connect(dir, GREETING).await
            && let Err(error) = connected.client.shutdown().await
        {
            tracing::warn!(dir = %dir.display(), %error, "cannot end a holder without a record");
        }
        let id = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let cgroup = self.noted_cgroup(&id);
        let (cgroups, dir) = (Arc::clone(&self.parts.cgroups), dir.to_owned());
        blocking(move || {
            let mut failures = Failures::default();
            if let Some(cgroup) = cgroup {
                failures.note(remove_inside(&cgroups, &cgroup, &id));
            }
            let what = format!("remove {}", dir.display());
            failures.note(std::fs::remove_dir_all(dir).map_err(Error::io(what)));
            failures.into_result()
        })
        .await
    }

    /// The pod's cgroup as it was noted in its run directory.
    pub(super) fn noted_cgroup(&self, pod_id: &str) -> Option<String> {
        let note = std::fs::read_to_string(self.pod_run_dir(pod_id).join(CGROUP_NOTE)).ok()?;
        let plain = note.starts_with('/') && !note.split('/').any(|part| part == "..");
        plain.then_some(note)
    }
}

/// Run directories of pods that nobody knows.
fn strays(run: &Path, pods: &HashSet<String>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    entries
        .filter(|entry| !pods.contains(&*entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

/// What is a pod's in its cgroup, which itself may be the kubelet's.
fn remove_inside(cgroups: &Hierarchies, cgroup: &str, pod_id: &str) -> Result<(), Error> {
    let mut failures = Failures::default();
    let holder = format!("holder-{}", short(pod_id));
    for name in failures.note(cgroups.children(cgroup)).unwrap_or_default() {
        if name == holder || is_id(&name) {
            failures.note(remove(cgroups, &format!("{cgroup}/{name}")));
        }
    }
    failures.into_result()
}

fn remove(cgroups: &Hierarchies, path: &str) -> Result<(), Error> {
    let mut failures = Failures::default();
    let cgroup = cgroups.open(path)?;
    failures.note(cgroup.kill());
    failures.note(cgroup.remove());
    failures.into_result()
}

fn is_id(name: &str) -> bool {
    name.len() == ID_LENGTH && name.bytes().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{is_id, strays};

    #[test]
    fn only_names_of_containers_are_taken_for_some() {
        assert!(is_id(&"0a".repeat(32)));
        for other in ["", "kubelet", &"0a".repeat(31), &"0g".repeat(32)] {
            assert!(!is_id(other), "{other:?}");
        }
    }

    #[test]
    fn directories_of_known_pods_are_no_strays() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["known", "stray"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let known = HashSet::from(["known".to_owned()]);
        assert_eq!(strays(dir.path(), &known), [dir.path().join("stray")]);
        assert!(strays(&dir.path().join("no"), &known).is_empty());
    }
}
