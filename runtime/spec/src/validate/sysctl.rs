//! Kernel parameters of a pod.

use crate::error::{Error, Result};
use crate::intent::{NamespaceMode, Namespaces};

/// Name with `.` between the parts; a dot that belongs to a part, as in an
/// interface's name, is written `/`. Both of sysctl(8)'s forms are taken: the
/// first separator tells which one it is.
pub fn sysctl_name(name: &str) -> Result<String> {
    let why = "is not a kernel parameter's name";
    let invalid = || Error::invalid("linux.sysctls", name, why);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(invalid());
    }
    let slashed = name
        .find(['.', '/'])
        .is_some_and(|at| name[at..].starts_with('/'));
    let dotted = if slashed {
        name.chars().map(swap).collect()
    } else {
        name.to_owned()
    };
    // A part of "/" alone would be ".", one of "//" "..".
    if dotted.split('.').any(|part| part.chars().all(|c| c == '/')) {
        return Err(invalid());
    }
    Ok(dotted)
}

fn swap(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

/// A parameter must be one that belongs to a namespace of the pod's own.
pub(super) fn check(name: &str, value: &str, namespaces: &Namespaces) -> Result<()> {
    let field = format!("linux.sysctls[{name}]");
    let dotted = sysctl_name(name)?;
    if value.contains(['\0', '\n', '\r', '+']) {
        return Err(Error::invalid(
            field,
            value,
            "has a NUL, newline or plus character",
        ));
    }
    if dotted.starts_with("net.") {
        if namespaces.network == NamespaceMode::Node {
            return Err(Error::invalid(
                field,
                value,
                "the pod uses the host's network",
            ));
        }
    } else if belongs_to_ipc(&dotted) {
        if namespaces.ipc == NamespaceMode::Node {
            return Err(Error::invalid(field, value, "the pod uses the host's IPC"));
        }
    } else {
        return Err(Error::invalid(field, value, "would change the whole host"));
    }
    Ok(())
}

fn belongs_to_ipc(name: &str) -> bool {
    let prefixes = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    name == "kernel.sem" || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    fn pod() -> Namespaces {
        Namespaces::default()
    }

    #[test]
    fn both_forms_give_one_name() {
        assert_eq!(
            sysctl_name("kernel.shm_rmid_forced").unwrap(),
            "kernel.shm_rmid_forced"
        );
        assert_eq!(
            sysctl_name("kernel/shm_rmid_forced").unwrap(),
            "kernel.shm_rmid_forced"
        );
        let canonical = "net.ipv4.conf.eth0/100.forwarding";
        assert_eq!(
            sysctl_name("net/ipv4/conf/eth0.100/forwarding").unwrap(),
            canonical
        );
        assert_eq!(sysctl_name(canonical).unwrap(), canonical);
    }

    #[test]
    fn only_the_pods_own_namespaces_are_touched() {
        for name in [
            "kernel.shm_rmid_forced",
            "fs.mqueue.msg_max",
            "kernel.sem",
            "net.core.somaxconn",
        ] {
            assert_eq!(check(name, "1", &pod()), Ok(()), "{name}");
        }
        for name in [
            "vm.swappiness",
            "kernel.core_pattern",
            "fs.file-max",
            "netx.a",
            "kernel.semx",
        ] {
            assert!(check(name, "1", &pod()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_namespace_of_the_host_is_left_alone() {
        let host = Namespaces {
            network: NamespaceMode::Node,
            ipc: NamespaceMode::Node,
            ..Namespaces::default()
        };
        for name in ["net.ipv4.ip_forward", "kernel.msgmax", "fs/mqueue/msg_max"] {
            let error = check(name, "1", &host).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn values_carry_nothing_into_another_setting() {
        for value in ["1\n2", "1+kernel.core_pattern=|/x", "1\0", "1\r"] {
            assert!(
                check("net.core.somaxconn", value, &pod()).is_err(),
                "{value:?}"
            );
        }
        assert_eq!(
            check("net.ipv4.ip_local_port_range", "1024 65535", &pod()),
            Ok(())
        );
    }

    proptest! {
        #[test]
        fn no_name_leaves_proc_sys(name in "[a-z./+\n]{0,12}") {
            if let Ok(dotted) = sysctl_name(&name) {
                let path: String = dotted.chars().map(swap).collect();
                prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path}");
            }
        }
    }
}
