//! Which namespaces a container makes, joins and inherits.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use crate::error::{Error, Result};
use crate::intent::NamespaceMode;
use crate::plan::Input;

/// The PID namespace mode in effect. [`NamespaceMode::Pod`] is also what a client
/// that says nothing sends, so it means whatever the pod has.
pub(crate) fn pid_mode(pod: NamespaceMode, container: NamespaceMode) -> NamespaceMode {
    match container {
        NamespaceMode::Pod => pod,
        other => other,
    }
}

/// Network, ipc and uts are not listed: the container inherits the holder's.
pub(crate) fn list(input: &Input<'_>) -> Result<Vec<LinuxNamespace>> {
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    let modes = &input.container.security.namespaces;
    match pid_mode(input.pod.security.namespaces.pid, modes.pid) {
        NamespaceMode::Container => namespaces.push(namespace(LinuxNamespaceType::Pid, None)),
        NamespaceMode::Pod => {
            let why = "the pod has no process that holds its PID namespace";
            let pid = input
                .pod_init_pid
                .ok_or_else(|| Error::invalid("namespace_options.pid", "POD", why))?;
            namespaces.push(namespace(LinuxNamespaceType::Pid, Some(pid)));
        }
        NamespaceMode::Target => {
            let why = "is not a running container of this pod";
            let pid = input.target_pid.ok_or_else(|| {
                Error::invalid("namespace_options.target_id", &modes.target_id, why)
            })?;
            namespaces.push(namespace(LinuxNamespaceType::Pid, Some(pid)));
        }
        NamespaceMode::Node => {}
    }
    if !input.container.security.privileged {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    Ok(namespaces)
}

fn namespace(kind: LinuxNamespaceType, of: Option<i32>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace.set_path(of.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/pid"))));
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::Fixture;

    fn pid(fixture: &Fixture) -> Result<Option<Option<PathBuf>>> {
        let namespaces = list(&fixture.input())?;
        Ok(namespaces
            .into_iter()
            .find(|namespace| namespace.typ() == LinuxNamespaceType::Pid)
            .map(|namespace| namespace.path().clone()))
    }

    #[test]
    fn pid_namespace_of_every_mode() {
        let mut fixture = Fixture {
            pod_init_pid: Some(77),
            target_pid: Some(88),
            ..Fixture::default()
        };
        let mut of = |mode| {
            fixture.container.security.namespaces.pid = mode;
            pid(&fixture).unwrap()
        };
        assert_eq!(of(NamespaceMode::Container), Some(None));
        assert_eq!(of(NamespaceMode::Pod), Some(Some("/proc/77/ns/pid".into())));
        assert_eq!(
            of(NamespaceMode::Target),
            Some(Some("/proc/88/ns/pid".into()))
        );
        assert_eq!(of(NamespaceMode::Node), None);
    }

    #[test]
    fn a_container_that_says_nothing_gets_what_the_pod_has() {
        let mut fixture = Fixture::default();
        fixture.pod.security.namespaces.pid = NamespaceMode::Container;
        assert_eq!(pid(&fixture).unwrap(), Some(None));
        fixture.pod.security.namespaces.pid = NamespaceMode::Node;
        assert_eq!(pid(&fixture).unwrap(), None);
    }

    #[test]
    fn a_namespace_to_join_must_exist() {
        let mut fixture = Fixture {
            pod_init_pid: None,
            ..Fixture::default()
        };
        assert!(pid(&fixture).unwrap_err().to_string().contains("pid"));
        fixture.container.security.namespaces.pid = NamespaceMode::Target;
        fixture.container.security.namespaces.target_id = "gone".to_owned();
        assert!(pid(&fixture).unwrap_err().to_string().contains("\"gone\""));
    }

    #[test]
    fn privileged_sees_the_hosts_cgroups() {
        let mut fixture = Fixture::default();
        let has = |fixture: &Fixture| {
            let list = list(&fixture.input()).unwrap();
            list.iter()
                .any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup)
        };
        assert!(has(&fixture));
        fixture.container.security.privileged = true;
        assert!(!has(&fixture));
    }
}
