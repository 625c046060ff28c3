//! Where the cgroups of pods are, and who makes them.

use std::sync::Arc;

use super::ids::is_id;
use crate::error::Error;
use crate::systemd::{BELOW_SCOPE, Scope, Units, expand, of_path};

/// How the kubelet names cgroups (RuntimeConfig.linux.cgroup_driver), and who makes
/// that of a pod.
#[derive(Debug)]
pub(crate) enum CgroupDriver {
    Cgroupfs,
    Systemd(Arc<dyn Units>),
}

#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) driver: CgroupDriver,
    /// Of pods that bring no parent: a path, or with systemd the path of a slice.
    root: String,
}

impl Places {
    /// `root` as configured: a path, or the name of a slice.
    pub(crate) fn new(driver: CgroupDriver, root: &str) -> Result<Self, Error> {
        let root = match driver {
            CgroupDriver::Cgroupfs => root.trim_end_matches('/').to_owned(),
            CgroupDriver::Systemd(_) => {
                let slice = of_path(root);
                expand(&slice)
                    .map_err(|why| Error::Invalid(format!("cgroup.root: {slice:?} {why}")))?
            }
        };
        Ok(Self { driver, root })
    }

    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn is_systemd(&self) -> bool {
        matches!(self.driver, CgroupDriver::Systemd(_))
    }

    /// The cgroup of a pod. With cgroupfs it is the kubelet's own where it brings one;
    /// with systemd it is in a scope of ours in the kubelet's slice.
    pub(super) fn pod(&self, parent: &str, id: &str) -> Result<String, Error> {
        if parent.is_empty() {
            return Ok(self.own(id));
        }
        let refused =
            |why: &str| Error::Invalid(format!("config.linux.cgroup_parent: {parent:?} {why}"));
        let parent = parent.trim_end_matches('/');
        let name = parent.rsplit('/').next().unwrap_or(parent);
        let is_slice = name.ends_with(".slice");
        match &self.driver {
            CgroupDriver::Cgroupfs if is_slice => Err(refused(
                "is a slice of systemd, and carpeld makes cgroups itself: \
                 set cgroup.driver to \"systemd\", or the kubelet's cgroupDriver to \"cgroupfs\"",
            )),
            CgroupDriver::Cgroupfs => Ok(parent.to_owned()),
            CgroupDriver::Systemd(_) if !is_slice => Err(refused(
                "is no slice of systemd: set cgroup.driver to \"cgroupfs\", \
                 or the kubelet's cgroupDriver to \"systemd\"",
            )),
            CgroupDriver::Systemd(_) => {
                let path = expand(name).map_err(refused)?;
                if parent.trim_start_matches('/') != name && parent != path {
                    return Err(refused(&format!("is not where that slice is: {path}")));
                }
                Ok(below(&path, id))
            }
        }
    }

    /// Of a pod that brings no parent, or whose record cannot be read.
    pub(super) fn own(&self, id: &str) -> String {
        if self.is_systemd() {
            below(&self.root, id)
        } else {
            format!("{}/{id}", self.root)
        }
    }

    /// The pod that a group in the root is of. None: it is not ours, be it that the
    /// kubelet's parent of pods is in our root.
    pub(super) fn pod_of_child<'a>(&self, name: &'a str) -> Option<&'a str> {
        let id = if self.is_systemd() {
            Scope::pod_of(name)?
        } else {
            name
        };
        is_id(id).then_some(id)
    }
}

fn below(slice: &str, id: &str) -> String {
    format!("{slice}/{}/{BELOW_SCOPE}", Scope::unit_of(id))
}

/// The scope to make for a pod's cgroup, if it is in one.
pub(super) fn scope_of(cgroup: &str, pod_id: &str, pid: i32) -> Option<Scope> {
    let (_, path) = Scope::in_path(cgroup)?;
    let slice = path.rsplit('/').nth(1)?;
    Some(Scope::new(pod_id, slice, u32::try_from(pid).ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{CgroupDriver, Places, scope_of};
    use crate::systemd::Systemd;

    fn cgroupfs() -> Places {
        Places::new(CgroupDriver::Cgroupfs, "/carpel/").unwrap()
    }

    fn systemd() -> Places {
        let units = Arc::new(Systemd::new(Path::new("/nonexistent")));
        Places::new(CgroupDriver::Systemd(units), "/carpel").unwrap()
    }

    #[test]
    fn with_cgroupfs_a_parent_is_taken_as_it_is() {
        let places = cgroupfs();
        assert_eq!(places.pod("", "17").unwrap(), "/carpel/17");
        assert_eq!(
            places.pod("/kubepods/pod1/", "17").unwrap(),
            "/kubepods/pod1"
        );
        let id = "0f".repeat(32);
        assert_eq!(places.pod_of_child(&id), Some(&*id));
        for other in ["17", "kubepods", &format!("{}/", &id[1..])] {
            assert_eq!(places.pod_of_child(other), None, "{other}");
        }
    }

    #[test]
    fn with_systemd_a_pod_has_a_scope_in_its_slice() {
        let places = systemd();
        assert_eq!(places.root(), "/carpel.slice");
        let own = "/carpel.slice/carpel-17.scope/pod";
        assert_eq!(places.pod("", "17").unwrap(), own);
        let path = "/kube.slice/kube-pod1.slice/carpel-17.scope/pod";
        for parent in [
            "kube-pod1.slice",
            "/kube-pod1.slice",
            "/kube.slice/kube-pod1.slice",
        ] {
            assert_eq!(places.pod(parent, "17").unwrap(), path);
        }
        let scope = scope_of(path, "17", 5).unwrap();
        assert_eq!(
            (&*scope.unit, &*scope.slice),
            ("carpel-17.scope", "kube-pod1.slice")
        );
        assert_eq!(scope_of("/carpel/17", "17", 5), None);
        let id = "0f".repeat(32);
        let unit = format!("carpel-{id}.scope");
        assert_eq!(places.pod_of_child(&unit), Some(&*id));
        for other in [
            "carpel-kubepods.slice",
            "carpel-17.scope",
            "session-1.scope",
            &id,
        ] {
            assert_eq!(places.pod_of_child(other), None, "{other}");
        }
    }

    #[test]
    fn the_other_drivers_parent_is_refused_with_the_setting() {
        for (places, parent) in [
            (cgroupfs(), "/test.slice"),
            (cgroupfs(), "kubepods-pod1.slice"),
            (systemd(), "/kubepods/pod1"),
            (systemd(), "/elsewhere/kube-pod1.slice"),
            (systemd(), "a--b.slice"),
        ] {
            let error = places.pod(parent, "17").unwrap_err().to_string();
            assert!(error.contains(parent), "{error}");
            if !parent.contains("--") && !parent.contains("elsewhere") {
                assert!(error.contains("cgroup.driver"), "{error}");
            }
        }
    }
}
