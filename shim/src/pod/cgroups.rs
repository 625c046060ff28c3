//! The making and the end of pods' cgroups.

use std::sync::Arc;

use super::ids::short;
use super::place::{CgroupDriver, scope_of};
use super::pod::Pod;
use super::recorded::blocking;
use super::runtime::Runtime;
use crate::error::{Error, Failures};
use crate::systemd::Scope;

impl Pod {
    /// Whether systemd made a scope for it, under this configuration or an earlier one.
    pub(super) fn has_scope(&self) -> bool {
        Scope::in_path(&self.cgroup()).is_some()
    }
}

impl Runtime {
    /// Lets systemd make the pod's scope, with the holder in it.
    pub(super) async fn start_scope(&self, pod: &Pod, pid: i32) -> Result<(), Error> {
        match (
            &self.parts.places.driver,
            scope_of(&pod.cgroup(), &pod.id, pid),
        ) {
            (CgroupDriver::Systemd(units), Some(scope)) => units.start(&scope).await,
            (_, scope) => Err(Error::Internal(format!(
                "pod sandbox {} has no scope that could be made: {scope:?}",
                pod.id
            ))),
        }
    }

    /// Ends the scope that a cgroup is in. Its processes are dead and its cgroup is
    /// removed by us, which ends it as well: a systemd that does not answer is no
    /// reason to keep a pod.
    async fn stop_scope(&self, cgroup: &str) {
        let (CgroupDriver::Systemd(units), Some((unit, _))) =
            (&self.parts.places.driver, Scope::in_path(cgroup))
        else {
            return;
        };
        if let Err(error) = units.stop(unit).await {
            tracing::warn!(unit, %error, "systemd did not end the scope; its cgroup is removed");
        }
    }

    /// Kills what is left and removes the pod's cgroups. A parent that the kubelet
    /// gave is the kubelet's: only what is ours in it goes.
    pub(super) async fn remove_cgroups(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let mut paths: Vec<String> = pod.containers().iter().map(|c| c.cgroup()).collect();
        paths.push(format!("{}/holder-{}", pod.cgroup(), short(&pod.id)));
        let own = pod.cgroup();
        match Scope::in_path(&own) {
            Some((_, scope)) => paths.extend([own.clone(), scope.to_owned()]),
            None if pod.owns_cgroup() => paths.push(own.clone()),
            None => {}
        }
        let paths: Vec<String> = paths.into_iter().filter(|path| !path.is_empty()).collect();
        let mut failures = Failures::default();
        let (cgroups, to_kill) = (Arc::clone(&self.parts.cgroups), paths.clone());
        let killed = blocking(move || {
            let mut failures = Failures::default();
            for path in &to_kill {
                if let Some(cgroup) = failures.note(cgroups.open(path)) {
                    failures.note(cgroup.kill());
                }
            }
            failures.into_result()
        });
        failures.note(killed.await);
        self.stop_scope(&own).await;
        let cgroups = Arc::clone(&self.parts.cgroups);
        let removed = blocking(move || {
            let mut failures = Failures::default();
            for path in &paths {
                if let Some(cgroup) = failures.note(cgroups.open(path)) {
                    failures.note(cgroup.remove());
                }
            }
            failures.into_result()
        });
        failures.note(removed.await);
        failures.into_result()
    }

    /// Ends what is in our root and belongs to none of these pods.
    pub(super) async fn sweep_cgroups(&self, pods: &[String]) -> Result<(), Error> {
        let mut failures = Failures::default();
        let root = self.parts.places.root().to_owned();
        let (cgroups, place) = (Arc::clone(&self.parts.cgroups), root.clone());
        let found = blocking(move || Ok(cgroups.children(&place)?)).await;
        for name in failures.note(found).unwrap_or_default() {
            match self.parts.places.pod_of_child(&name) {
                Some(id) if !pods.iter().any(|pod| pod == id) => {}
                _ => continue,
            }
            let path = format!("{root}/{name}");
            let (cgroups, group) = (Arc::clone(&self.parts.cgroups), path.clone());
            failures.note(blocking(move || Ok(cgroups.open(&group)?.kill()?)).await);
            self.stop_scope(&path).await;
            let (cgroups, group) = (Arc::clone(&self.parts.cgroups), path);
            failures.note(blocking(move || Ok(cgroups.open(&group)?.remove()?)).await);
        }
        failures.into_result()
    }
}
