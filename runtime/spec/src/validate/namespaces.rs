//! Namespace modes that can be had together.

use crate::error::{Error, Result};
use crate::intent::{NamespaceMode, Namespaces, UserNamespace};

const FIELD: &str = "linux.security_context.namespace_options";

pub(super) fn pod(namespaces: &Namespaces) -> Result<()> {
    pod_or_node("network", namespaces.network)?;
    pod_or_node("ipc", namespaces.ipc)?;
    if namespaces.pid == NamespaceMode::Target {
        return Err(invalid(
            "pid",
            namespaces.pid,
            "a pod cannot join a container",
        ));
    }
    user(namespaces.user.as_ref())
}

/// A container has the pod's network and IPC; POD is also what a client that says
/// nothing sends.
pub(super) fn container(pod: &Namespaces, container: &Namespaces) -> Result<()> {
    inherited("network", pod.network, container.network)?;
    inherited("ipc", pod.ipc, container.ipc)?;
    if container.pid == NamespaceMode::Target && container.target_id.is_empty() {
        return Err(Error::invalid(
            format!("{FIELD}.target_id"),
            "",
            "is missing",
        ));
    }
    user(container.user.as_ref())
}

fn inherited(name: &str, pod: NamespaceMode, container: NamespaceMode) -> Result<()> {
    pod_or_node(name, container)?;
    if container == NamespaceMode::Node && pod != NamespaceMode::Node {
        return Err(invalid(name, container, "the pod has one of its own"));
    }
    Ok(())
}

fn pod_or_node(name: &str, mode: NamespaceMode) -> Result<()> {
    match mode {
        NamespaceMode::Pod | NamespaceMode::Node => Ok(()),
        other => Err(invalid(name, other, "is POD or NODE")),
    }
}

fn user(user: Option<&UserNamespace>) -> Result<()> {
    let field = format!("{FIELD}.userns_options");
    match user.map(|user| user.mode) {
        None | Some(NamespaceMode::Node) => Ok(()),
        Some(NamespaceMode::Pod) => Err(Error::unsupported(
            field,
            "user namespaces are not supported yet",
        )),
        Some(other) => Err(invalid("userns_options.mode", other, "is POD or NODE")),
    }
}

fn invalid(name: &str, mode: NamespaceMode, why: &str) -> Error {
    let mode = match mode {
        NamespaceMode::Pod => "POD",
        NamespaceMode::Container => "CONTAINER",
        NamespaceMode::Node => "NODE",
        NamespaceMode::Target => "TARGET",
    };
    Error::invalid(format!("{FIELD}.{name}"), mode, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [NamespaceMode; 4] = [
        NamespaceMode::Pod,
        NamespaceMode::Container,
        NamespaceMode::Node,
        NamespaceMode::Target,
    ];

    fn modes(network: NamespaceMode, pid: NamespaceMode, ipc: NamespaceMode) -> Namespaces {
        Namespaces {
            network,
            pid,
            ipc,
            ..Namespaces::default()
        }
    }

    #[test]
    fn a_pods_modes() {
        let possible = |mode| matches!(mode, NamespaceMode::Pod | NamespaceMode::Node);
        for mode in MODES {
            let base = NamespaceMode::Pod;
            assert_eq!(
                pod(&modes(mode, base, base)).is_ok(),
                possible(mode),
                "{mode:?}"
            );
            assert_eq!(
                pod(&modes(base, base, mode)).is_ok(),
                possible(mode),
                "{mode:?}"
            );
            let pid = mode != NamespaceMode::Target;
            assert_eq!(pod(&modes(base, mode, base)).is_ok(), pid, "{mode:?}");
        }
    }

    #[test]
    fn a_container_cannot_leave_its_pods_network() {
        let own = Namespaces::default();
        let host = modes(
            NamespaceMode::Node,
            NamespaceMode::Node,
            NamespaceMode::Node,
        );
        assert_eq!(container(&host, &own), Ok(()));
        assert_eq!(container(&host, &host), Ok(()));
        let error = container(&own, &host).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("namespace_options.network: \"NODE\""),
            "{error}"
        );
    }

    #[test]
    fn target_needs_an_id() {
        let mut wanted = modes(
            NamespaceMode::Pod,
            NamespaceMode::Target,
            NamespaceMode::Pod,
        );
        assert!(container(&Namespaces::default(), &wanted).is_err());
        wanted.target_id = "abc".to_owned();
        assert_eq!(container(&Namespaces::default(), &wanted), Ok(()));
    }

    #[test]
    fn user_namespaces_are_refused_rather_than_left_out() {
        let with = |mode| Namespaces {
            user: Some(UserNamespace {
                mode,
                ..UserNamespace::default()
            }),
            ..Namespaces::default()
        };
        assert_eq!(pod(&with(NamespaceMode::Node)), Ok(()));
        assert!(matches!(
            pod(&with(NamespaceMode::Pod)),
            Err(Error::Unsupported { .. })
        ));
        assert!(matches!(
            pod(&with(NamespaceMode::Target)),
            Err(Error::Invalid { .. })
        ));
    }
}
