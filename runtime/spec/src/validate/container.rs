//! A container's configuration.

use super::{namespaces, path};
use crate::capability;
use crate::devices;
use crate::error::{Error, Result};
use crate::intent::{ContainerConfig, Mount, PodConfig, Propagation, Resources};

/// Files of `/proc` that tools replace with a view of the container's own.
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/uptime",
];

/// Checks all of a container's configuration that needs neither image nor host.
pub fn container(pod: &PodConfig, config: &ContainerConfig) -> Result<()> {
    if config.name.is_empty() {
        return Err(Error::invalid("metadata.name", "", "is missing"));
    }
    path::plain("metadata.name", &config.name)?;
    if config.image.is_empty() {
        return Err(Error::invalid("image.image", "", "is missing"));
    }
    path::log_path(&config.log_path)?;
    if !config.working_dir.is_empty() {
        working_dir(&config.working_dir)?;
    }
    envs(&config.envs)?;
    for (index, wanted) in config.mounts.iter().enumerate() {
        mount(&format!("mounts[{index}]"), wanted)?;
    }
    duplicates(&config.mounts)?;
    for (index, device) in config.devices.iter().enumerate() {
        let field = format!("devices[{index}]");
        path::absolute(&format!("{field}.host_path"), &device.host_path)?;
        if !device.container_path.is_empty() {
            path::absolute(&format!("{field}.container_path"), &device.container_path)?;
        }
        devices::permissions(&field, &device.permissions)?;
    }
    capability::validate(&config.security)?;
    hidden("masked_paths", &config.security.masked_paths)?;
    hidden("readonly_paths", &config.security.readonly_paths)?;
    namespaces::container(&pod.security.namespaces, &config.security.namespaces)?;
    resources(&config.resources)
}

fn working_dir(path: &str) -> Result<()> {
    path::plain("working_dir", path)?;
    if !path.starts_with('/') {
        return Err(Error::invalid(
            "working_dir",
            path,
            "is not an absolute path",
        ));
    }
    Ok(())
}

fn envs(envs: &[(String, Vec<u8>)]) -> Result<()> {
    for (index, (name, value)) in envs.iter().enumerate() {
        if name.is_empty() || name.contains(['=', '\0']) {
            let why = "is empty or has a '=' or NUL character";
            return Err(Error::invalid(format!("envs[{index}].key"), name, why));
        }
        if value.contains(&0) {
            let shown = String::from_utf8_lossy(value);
            return Err(Error::invalid(
                format!("envs[{name}]"),
                shown,
                "has a NUL character",
            ));
        }
    }
    Ok(())
}

fn mount(field: &str, mount: &Mount) -> Result<()> {
    let destination = format!("{field}.container_path");
    path::absolute(&destination, &mount.container_path)?;
    let clean = path::clean(&mount.container_path);
    let clean = clean.as_str();
    if clean == "/" {
        return Err(Error::invalid(
            destination,
            &mount.container_path,
            "is the root",
        ));
    }
    let own_proc = clean == "/proc" && path::clean(&mount.host_path) == "/proc";
    let in_proc = clean == "/proc" || clean.starts_with("/proc/");
    if in_proc && !own_proc && !PROC_FILES.contains(&clean) {
        let why = "would replace what the kernel says in /proc";
        return Err(Error::invalid(destination, &mount.container_path, why));
    }
    path::absolute(&format!("{field}.host_path"), &mount.host_path)?;
    if mount.recursive_read_only {
        let field = format!("{field}.recursive_read_only");
        if !mount.readonly {
            return Err(Error::invalid(field, true, "needs readonly"));
        }
        if mount.propagation != Propagation::Private {
            return Err(Error::invalid(field, true, "needs PROPAGATION_PRIVATE"));
        }
    }
    Ok(())
}

fn duplicates(mounts: &[Mount]) -> Result<()> {
    let parts = |mount: &Mount| -> Vec<String> {
        let parts = mount.container_path.split('/');
        parts
            .filter(|part| !part.is_empty() && *part != ".")
            .map(str::to_owned)
            .collect()
    };
    for (index, mount) in mounts.iter().enumerate() {
        if mounts[..index]
            .iter()
            .any(|earlier| parts(earlier) == parts(mount))
        {
            let field = format!("mounts[{index}].container_path");
            return Err(Error::invalid(
                field,
                &mount.container_path,
                "is mounted twice",
            ));
        }
    }
    Ok(())
}

fn hidden(name: &str, paths: &[String]) -> Result<()> {
    let field = format!("linux.security_context.{name}");
    paths
        .iter()
        .try_for_each(|path| path::absolute(&field, path))
}

/// Limits, as far as they can be told wrong without a look at the host.
pub fn resources(resources: &Resources) -> Result<()> {
    let adjustment = resources.oom_score_adj;
    if !(-1000..=1000).contains(&adjustment) {
        let why = "is a number from -1000 to 1000";
        return Err(Error::invalid(
            "linux.resources.oom_score_adj",
            adjustment,
            why,
        ));
    }
    let sets = [
        ("cpuset_cpus", &resources.cpuset_cpus),
        ("cpuset_mems", &resources.cpuset_mems),
    ];
    for (name, set) in sets {
        if !set
            .chars()
            .all(|c| c.is_ascii_digit() || ",-:/".contains(c))
        {
            let why = "is a list of numbers and ranges";
            return Err(Error::invalid(format!("linux.resources.{name}"), set, why));
        }
    }
    for (key, value) in &resources.unified {
        let field = format!("linux.resources.unified[{key}]");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
        if !key.chars().all(allowed) || !key.contains('.') || key.starts_with("cgroup.") {
            return Err(Error::invalid(field, value, "is not a controller's file"));
        }
        path::plain(&field, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::intent::{Device, NamespaceMode};

    fn config() -> ContainerConfig {
        ContainerConfig {
            name: "c".to_owned(),
            image: "busybox".to_owned(),
            ..ContainerConfig::default()
        }
    }

    fn at(container_path: &str, host_path: &str) -> Mount {
        Mount {
            container_path: container_path.to_owned(),
            host_path: host_path.to_owned(),
            ..Mount::default()
        }
    }

    fn refused(change: impl FnOnce(&mut ContainerConfig)) -> String {
        let mut config = config();
        change(&mut config);
        match container(&PodConfig::default(), &config).unwrap_err() {
            Error::Invalid { field, .. } | Error::Unsupported { field, .. } => field,
        }
    }

    #[test]
    fn a_bare_container_is_fine() {
        assert_eq!(container(&PodConfig::default(), &config()), Ok(()));
    }

    #[test]
    fn every_part_is_looked_at() {
        assert_eq!(refused(|c| c.name.clear()), "metadata.name");
        assert_eq!(refused(|c| c.image.clear()), "image.image");
        assert_eq!(refused(|c| c.log_path = "../x".to_owned()), "log_path");
        assert_eq!(refused(|c| c.working_dir = "w".to_owned()), "working_dir");
        assert_eq!(
            refused(|c| c.envs = vec![(String::new(), vec![])]),
            "envs[0].key"
        );
        assert_eq!(
            refused(|c| c.envs = vec![("A=B".to_owned(), vec![])]),
            "envs[0].key"
        );
        assert_eq!(
            refused(|c| c.envs = vec![("A".to_owned(), vec![0])]),
            "envs[A]"
        );
        let device = Device {
            host_path: "null".to_owned(),
            ..Device::default()
        };
        assert_eq!(
            refused(|c| c.devices = vec![device]),
            "devices[0].host_path"
        );
        assert_eq!(
            refused(|c| c.security.add_capabilities = vec!["NOPE".to_owned()]),
            "linux.security_context.capabilities.add"
        );
        assert_eq!(
            refused(|c| c.security.masked_paths = vec!["proc".to_owned()]),
            "linux.security_context.masked_paths"
        );
        assert_eq!(
            refused(|c| c.security.namespaces.ipc = NamespaceMode::Node),
            "linux.security_context.namespace_options.ipc"
        );
        assert_eq!(
            refused(|c| c.resources.oom_score_adj = 1001),
            "linux.resources.oom_score_adj"
        );
        assert_eq!(
            refused(|c| c.resources.cpuset_cpus = "0\n1".to_owned()),
            "linux.resources.cpuset_cpus"
        );
        let keys = |key: &str| BTreeMap::from([(key.to_owned(), "1".to_owned())]);
        for key in ["../memory.max", "cgroup.procs", "memory"] {
            let field = refused(|c| c.resources.unified = keys(key));
            assert_eq!(field, format!("linux.resources.unified[{key}]"));
        }
    }

    #[test]
    fn mounts_stay_out_of_proc_and_off_the_root() {
        for path in [
            "/",
            "//",
            "rel",
            "/a/../b",
            "/proc/self",
            "/proc",
            "//proc",
            "/proc/./",
            "/./proc/1",
            "/proc/sys/kernel",
        ] {
            let field = refused(|c| c.mounts = vec![at("/ok", "/x"), at(path, "/x")]);
            assert_eq!(field, "mounts[1].container_path", "{path}");
        }
        for path in ["/procs", "/proc/cpuinfo", "/data"] {
            let mut config = config();
            config.mounts = vec![at(path, "/x"), at("/proc", "/proc/")];
            assert_eq!(container(&PodConfig::default(), &config), Ok(()), "{path}");
        }
        assert_eq!(
            refused(|c| c.mounts = vec![at("/a", "b")]),
            "mounts[0].host_path"
        );
        let twice = vec![at("/a/b", "/x"), at("/a//b/", "/y")];
        assert_eq!(refused(|c| c.mounts = twice), "mounts[1].container_path");
    }

    #[test]
    fn recursively_read_only_has_conditions() {
        let mut mount = Mount {
            recursive_read_only: true,
            ..at("/a", "/b")
        };
        assert_eq!(
            refused(|c| c.mounts = vec![mount.clone()]),
            "mounts[0].recursive_read_only"
        );
        mount.readonly = true;
        for propagation in [Propagation::HostToContainer, Propagation::Bidirectional] {
            mount.propagation = propagation;
            let field = refused(|c| c.mounts = vec![mount.clone()]);
            assert_eq!(field, "mounts[0].recursive_read_only");
        }
        mount.propagation = Propagation::Private;
        let config = ContainerConfig {
            mounts: vec![mount],
            ..config()
        };
        assert_eq!(container(&PodConfig::default(), &config), Ok(()));
    }
}
