//! Kernel settings of the pod's own namespaces.

use std::path::PathBuf;

use carpel_proto::holder::Setup;

use crate::error::{Context, Error, Result};

/// Where a setting lies, and what is written there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sysctl {
    path: PathBuf,
    value: String,
}

impl Sysctl {
    /// Takes only what belongs to a namespace that the pod gets of its own: all else
    /// would change the host.
    pub(crate) fn parse(name: &str, value: &str, setup: &Setup) -> Result<Self> {
        let refuse = |why: &str| Error::Invalid(format!("sysctl {name:?}: {why}"));
        if value.contains(['\n', '\0']) {
            return Err(refuse("its value holds a newline or NUL"));
        }
        let parts = split(name);
        let plain = |part: &String| !matches!(part.as_str(), "" | "." | "..");
        if !parts.iter().all(plain) || name.contains('\0') {
            return Err(refuse("not the name of a setting"));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let own = match parts.as_slice() {
            ["net", _, ..] => setup.network,
            ["fs", "mqueue", _] => setup.ipc,
            ["kernel", name] if name.starts_with("shm") || name.starts_with("msg") => setup.ipc,
            ["kernel", "sem"] => setup.ipc,
            ["kernel", "domainname"] => setup.uts,
            _ => return Err(refuse("not a setting of a namespace")),
        };
        if !own {
            return Err(refuse("the pod has no namespace of its own for it"));
        }
        let mut path = PathBuf::from("/proc/sys");
        path.extend(parts);
        Ok(Self {
            path,
            value: value.to_owned(),
        })
    }

    pub(crate) fn write(&self) -> Result<()> {
        std::fs::write(&self.path, &self.value).during(format!(
            "write {:?} to {}",
            self.value,
            self.path.display()
        ))
    }
}

/// With dots as separators, a slash stands for a dot within a part, as in
/// `net.ipv4.conf.eth0/1.forwarding`; the first separator tells which it is.
fn split(name: &str) -> Vec<String> {
    let separator = name.chars().find(|c| matches!(c, '.' | '/'));
    match separator {
        Some('/') => name.split('/').map(str::to_owned).collect(),
        _ => name.split('.').map(|part| part.replace('/', ".")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Result<String> {
        let setup = Setup {
            network: true,
            ipc: true,
            ..Setup::default()
        };
        let sysctl = Sysctl::parse(name, "1", &setup)?;
        Ok(sysctl.path.display().to_string())
    }

    #[test]
    fn names_become_paths() {
        let tcp = "/proc/sys/net/ipv4/tcp_syncookies";
        assert_eq!(path("net.ipv4.tcp_syncookies").unwrap(), tcp);
        assert_eq!(path("net/ipv4/tcp_syncookies").unwrap(), tcp);
        let vlan = "/proc/sys/net/ipv4/conf/eth0.1/forwarding";
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding").unwrap(), vlan);
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding").unwrap(), vlan);
        assert_eq!(
            path("kernel.shm_rmid_forced").unwrap(),
            "/proc/sys/kernel/shm_rmid_forced"
        );
        assert_eq!(
            path("fs.mqueue.msg_max").unwrap(),
            "/proc/sys/fs/mqueue/msg_max"
        );
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for name in [
            "",
            "net",
            "net..ipv4",
            "net/../kernel/core_pattern",
            "net/ipv4/../../kernel/panic",
            "/etc/passwd",
            "net.//.//.kernel.panic",
            "kernel.core_pattern",
            "kernel.msg/../panic",
            "kernel/msg/../panic",
            "vm.swappiness",
            "kernel.hostname",
        ] {
            assert!(matches!(path(name), Err(Error::Invalid(_))), "{name}");
        }
    }

    #[test]
    fn the_hosts_settings_are_refused() {
        let host = Setup::default();
        for name in ["net.ipv4.ip_forward", "kernel.sem", "kernel.domainname"] {
            assert!(Sysctl::parse(name, "1", &host).is_err(), "{name}");
        }
    }

    #[test]
    fn a_value_is_one_line() {
        let setup = Setup {
            network: true,
            ..Setup::default()
        };
        assert!(Sysctl::parse("net.a", "1\n2", &setup).is_err());
        assert!(Sysctl::parse("net.a", "1\0", &setup).is_err());
    }
}
