//! A pod's configuration.

use super::{namespaces, path, ports, sysctl};
use crate::error::{Error, Result};
use crate::intent::PodConfig;

/// Length of the kernel's field.
const HOSTNAME_MAX: usize = 64;

/// Checks all of a pod's configuration that needs no look at the host.
pub fn pod(config: &PodConfig) -> Result<()> {
    let metadata = [
        ("name", &config.name),
        ("namespace", &config.namespace),
        ("uid", &config.uid),
    ];
    if config.name.is_empty() {
        return Err(Error::invalid("metadata.name", "", "is missing"));
    }
    for (name, value) in metadata {
        path::plain(&format!("metadata.{name}"), value)?;
    }
    hostname(&config.hostname)?;
    if !config.log_directory.is_empty() {
        path::absolute("log_directory", &config.log_directory)?;
    }
    cgroup_parent(&config.cgroup_parent)?;
    ports::check(&config.port_mappings)?;
    namespaces::pod(&config.security.namespaces)?;
    for (name, value) in &config.sysctls {
        sysctl::check(name, value, &config.security.namespaces)?;
    }
    Ok(())
}

/// A name for a UTS namespace; empty asks for none. Stricter than the kernel, as it
/// becomes a line of `/etc/hosts`.
pub fn hostname(name: &str) -> Result<()> {
    if name.len() > HOSTNAME_MAX {
        let why = format!("is longer than {HOSTNAME_MAX} bytes");
        return Err(Error::invalid("hostname", name, why));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !name.chars().all(allowed) || name.starts_with(['-', '.']) {
        let why =
            "is made of letters, digits, '-', '.' and '_', and begins with none of '-' and '.'";
        return Err(Error::invalid("hostname", name, why));
    }
    Ok(())
}

fn cgroup_parent(parent: &str) -> Result<()> {
    if parent.is_empty() {
        return Ok(());
    }
    // With systemd the kubelet sends the name of a slice, which is no path.
    let slice = parent.ends_with(".slice") && !parent.contains('/');
    if slice {
        return path::plain("linux.cgroup_parent", parent);
    }
    path::absolute("linux.cgroup_parent", parent)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config() -> PodConfig {
        PodConfig {
            name: "p".to_owned(),
            ..PodConfig::default()
        }
    }

    #[test]
    fn a_bare_pod_is_fine() {
        assert_eq!(pod(&config()), Ok(()));
    }

    #[test]
    fn every_part_is_looked_at() {
        let with = |change: fn(&mut PodConfig)| {
            let mut config = config();
            change(&mut config);
            match pod(&config).unwrap_err() {
                Error::Invalid { field, .. } | Error::Unsupported { field, .. } => field,
            }
        };
        assert_eq!(with(|c| c.name.clear()), "metadata.name");
        assert_eq!(with(|c| c.uid = "a\nb".to_owned()), "metadata.uid");
        assert_eq!(with(|c| c.hostname = "a\nb".to_owned()), "hostname");
        assert_eq!(
            with(|c| c.log_directory = "logs".to_owned()),
            "log_directory"
        );
        assert_eq!(
            with(|c| c.log_directory = "/a/../b".to_owned()),
            "log_directory"
        );
        assert_eq!(
            with(|c| c.cgroup_parent = "/../x".to_owned()),
            "linux.cgroup_parent"
        );
        assert_eq!(
            with(|c| c.sysctls = BTreeMap::from([("vm.x".to_owned(), "1".to_owned())])),
            "linux.sysctls[vm.x]"
        );
        assert_eq!(
            with(|c| c.security.namespaces.network = crate::intent::NamespaceMode::Target),
            "linux.security_context.namespace_options.network"
        );
    }

    #[test]
    fn hostnames() {
        for name in ["", "web-0", "Test_Host.example.org", &"a".repeat(64)] {
            assert_eq!(hostname(name), Ok(()), "{name}");
        }
        for name in [
            "a b",
            "a\n1.2.3.4 b",
            "-a",
            ".",
            "..",
            "a/b",
            "\0",
            "é",
            &"a".repeat(65),
        ] {
            assert!(hostname(name).is_err(), "{name}");
        }
    }
}
