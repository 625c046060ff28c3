//! The scope of a pod.

use zbus::zvariant::Value;

/// The pod's cgroup in its scope: what is below a scope is ours, the scope itself is
/// systemd's.
pub(crate) const BELOW_SCOPE: &str = "pod";

const PREFIX: &str = "carpel-";
const SUFFIX: &str = ".scope";

/// A transient unit for processes that we start ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) unit: String,
    pub(crate) slice: String,
    pod_id: String,
    /// The first process in it; a scope cannot be without one.
    pid: u32,
}

impl Scope {
    pub(crate) fn new(pod_id: &str, slice: &str, pid: u32) -> Self {
        Self {
            unit: Self::unit_of(pod_id),
            slice: slice.to_owned(),
            pod_id: pod_id.to_owned(),
            pid,
        }
    }

    pub(crate) fn unit_of(pod_id: &str) -> String {
        format!("{PREFIX}{pod_id}{SUFFIX}")
    }

    /// The pod whose scope has this name.
    pub(crate) fn pod_of(unit: &str) -> Option<&str> {
        unit.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)
    }

    /// The scope that a cgroup is in, and the cgroup of the scope.
    pub(crate) fn in_path(cgroup: &str) -> Option<(&str, &str)> {
        let mut end = 0;
        cgroup.split('/').find_map(|part| {
            end += part.len() + 1;
            Self::pod_of(part).map(|_| (part, &cgroup[..end - 1]))
        })
    }

    /// What systemd is told. None of it is a client's text: an annotation or a name
    /// must never become a property of a unit (CVE-2024-3154).
    pub(super) fn properties(&self) -> Vec<(&'static str, Value<'static>)> {
        vec![
            ("Description", format!("carpel pod {}", self.pod_id).into()),
            ("Slice", self.slice.clone().into()),
            ("Delegate", true.into()),
            ("DefaultDependencies", false.into()),
            ("PIDs", vec![self.pid].into()),
            // The pod's slice has its limit; systemd's default of a scope is too small.
            ("TasksMax", u64::MAX.into()),
            // A failed unit must not be left behind for us to reset.
            ("CollectMode", "inactive-or-failed".into()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn a_scope_is_found_in_a_path_and_names_its_pod() {
        let path = "/a.slice/carpel-17.scope/pod/c1";
        assert_eq!(
            Scope::in_path(path),
            Some(("carpel-17.scope", "/a.slice/carpel-17.scope"))
        );
        assert_eq!(Scope::in_path("/a.slice/other.scope/c1"), None);
        assert_eq!(Scope::in_path("/carpel/17"), None);
        assert_eq!(Scope::pod_of(&Scope::unit_of("17")), Some("17"));
    }

    #[test]
    fn systemd_is_told_these_properties_and_no_others() {
        let scope = Scope::new("17", "a-b.slice", 4711);
        let told: Vec<_> = scope
            .properties()
            .into_iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let text = told.join(" ");
        assert_eq!(told.len(), 7, "{text}");
        for part in ["carpel pod 17", "a-b.slice", "Bool(true)", "4711"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
