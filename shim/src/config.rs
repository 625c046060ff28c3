//! The daemon's configuration: typed, all defaults in code, unknown keys refused.

mod images;
mod layers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::handlers::NATIVE;

pub(crate) use images::{Images, Registry};
pub(crate) use layers::{Loaded, flatten, load, quoted};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) paths: Paths,
    pub(crate) grpc: Grpc,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    pub(crate) holder: Holder,
    pub(crate) runtime: Runtime,
    /// By name, as RuntimeClasses have it; beside the built-in `native`.
    pub(crate) handlers: BTreeMap<String, Handler>,
    pub(crate) cgroup: Cgroup,
    pub(crate) cdi: CdiDirectories,
    pub(crate) network: Network,
    pub(crate) images: Images,
    /// By host name as it stands in image names.
    pub(crate) registries: BTreeMap<String, Registry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Paths {
    /// Records, images and writable layers; on a disk.
    pub(crate) root: PathBuf,
    /// What containers write, if it is to be on another disk; a directory of its own.
    pub(crate) containers: PathBuf,
    /// Sockets and generated files; on a tmpfs.
    pub(crate) run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            root: "/var/lib/carpel".into(),
            containers: PathBuf::new(),
            run: "/run/carpel".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grpc {
    /// Unix socket of the CRI.
    pub(crate) socket: PathBuf,
    /// Events that a reader of GetContainerEvents may be behind before it is dropped.
    pub(crate) event_backlog: usize,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            socket: "/run/carpel/carpel.sock".into(),
            event_backlog: 2048,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// Unix socket of the admin service.
    pub(crate) socket: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: "/run/carpel/admin.sock".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as of tracing-subscriber.
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// Where Prometheus finds metrics: `address:port`, or the absolute path of a unix
    /// socket. Empty: nowhere.
    pub(crate) listen: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Holder {
    /// The holder's binary; empty: `carpel-holder` beside carpeld, else in /usr/libexec/carpel.
    pub(crate) binary: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Runtime {
    /// Handler of pods that ask for none.
    pub(crate) default_handler: String,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            default_handler: "native".into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HandlerKind {
    /// A command line of the OCI runtime specification: runc and others.
    Oci,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handler {
    pub(crate) kind: HandlerKind,
    /// The program: an absolute path, or a name to be found in PATH.
    pub(crate) binary: PathBuf,
    /// Where it keeps its state; empty: `oci/NAME` in the run directory.
    #[serde(default)]
    pub(crate) root: PathBuf,
    /// Options of the program that come before all others.
    #[serde(default)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cgroup {
    /// Who makes pods' cgroups; the kubelet asks for it (RuntimeConfig).
    pub(crate) driver: CgroupDriver,
    /// Parent of pods that bring no cgroup_parent, below each hierarchy's root.
    pub(crate) root: String,
    /// Private socket of systemd's manager.
    pub(crate) systemd_socket: PathBuf,
    /// Processes that a container may have; 0 for any number.
    pub(crate) pids_limit: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CgroupDriver {
    #[default]
    Cgroupfs,
    Systemd,
    /// systemd where it runs.
    Auto,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self {
            driver: CgroupDriver::default(),
            root: "/carpel".into(),
            systemd_socket: "/run/systemd/private".into(),
            pids_limit: 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CdiDirectories {
    /// Specifications of CDI devices; a later directory goes before an earlier one.
    pub(crate) directories: Vec<PathBuf>,
}

impl Default for CdiDirectories {
    fn default() -> Self {
        Self {
            directories: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    #[default]
    Bridge,
    None,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Network {
    pub(crate) driver: Driver,
    pub(crate) bridge: Bridge,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    /// Until the kubelet tells others (UpdateRuntimeConfig).
    pub(crate) pod_cidrs: Vec<String>,
    /// 0: as the kernel has it.
    pub(crate) mtu: u32,
    /// Pods appear outside with the node's address.
    pub(crate) masquerade: bool,
    pub(crate) nft_table: String,
    /// Static routes to other nodes' pods.
    pub(crate) routes: Vec<Route>,
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            name: "carpel0".into(),
            pod_cidrs: vec!["10.88.0.0/16".into()],
            mtu: 0,
            masquerade: true,
            nft_table: "carpel".into(),
            routes: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    pub(crate) to: String,
    pub(crate) via: String,
}

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Nowhere,
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Metrics {
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        match self.listen.as_str() {
            "" => Ok(Place::Nowhere),
            path if path.starts_with('/') => Ok(Place::Unix(path.into())),
            address => Ok(Place::Tcp(address.parse().map_err(|_| {
                anyhow::anyhow!(
                    "metrics.listen: {address:?} is neither address:port nor an absolute path"
                )
            })?)),
        }
    }
}

impl Config {
    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let file = (PathBuf::from("test.toml"), text.to_owned());
        Ok(layers::merge(&[file])?.config)
    }

    pub(crate) fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }

    fn check(&self) -> anyhow::Result<()> {
        let absolute = [
            ("paths.root", &self.paths.root),
            ("paths.run", &self.paths.run),
            ("grpc.socket", &self.grpc.socket),
            ("admin.socket", &self.admin.socket),
        ];
        for (key, path) in absolute {
            anyhow::ensure!(
                path.is_absolute(),
                "{key}: {} is not absolute",
                path.display()
            );
        }
        for path in &self.cdi.directories {
            anyhow::ensure!(
                path.is_absolute(),
                "cdi.directories: {} is not absolute",
                path.display()
            );
        }
        let root = &self.cgroup.root;
        let slice = root.ends_with(".slice") && self.cgroup.driver != CgroupDriver::Cgroupfs;
        anyhow::ensure!(
            slice
                || root.starts_with('/')
                    && root.len() > 1
                    && !root.split('/').any(|part| part == ".."),
            "cgroup.root: {root:?} is not an absolute path below the cgroup root"
        );
        for cidr in &self.network.bridge.pod_cidrs {
            cidr.parse::<ipnet::IpNet>()
                .with_context(|| format!("network.bridge.pod_cidrs: {cidr:?} is not a CIDR"))?;
        }
        crate::logging::filter(&self.log.level)?;
        self.metrics.place()?;
        crate::backends::bridge_config(self)?;
        crate::backends::check_registries(self)?;
        let backlog = self.grpc.event_backlog;
        anyhow::ensure!(
            (1..=1 << 20).contains(&backlog),
            "grpc.event_backlog: {backlog} is not from 1 to 1048576"
        );
        self.check_handlers()?;
        let containers = &self.paths.containers;
        anyhow::ensure!(
            containers.as_os_str().is_empty() || containers.is_absolute(),
            "paths.containers: {} is not absolute",
            containers.display()
        );
        self.images.check()?;
        for (host, registry) in &self.registries {
            registry.check(host)?;
        }
        Ok(())
    }

    fn check_handlers(&self) -> anyhow::Result<()> {
        for (name, handler) in &self.handlers {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            anyhow::ensure!(
                !name.is_empty() && name.len() <= 63 && name.chars().all(plain),
                "handlers.{name}: is not a name of lower-case letters, digits and dashes"
            );
            anyhow::ensure!(name != NATIVE, "handlers.{name}: is built in");
            let (binary, root) = (&handler.binary, &handler.root);
            anyhow::ensure!(
                binary.is_absolute() || binary.components().count() == 1,
                "handlers.{name}.binary: {binary:?} is neither absolute nor a plain name"
            );
            anyhow::ensure!(
                root.as_os_str().is_empty() || root.is_absolute(),
                "handlers.{name}.root: {root:?} is not absolute"
            );
        }
        let default = &self.runtime.default_handler;
        anyhow::ensure!(
            default == NATIVE || self.handlers.contains_key(default),
            "runtime.default_handler: {default:?} is not a handler"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_the_default() {
        let example = Config::parse(include_str!("../../examples/config.toml")).unwrap();
        assert_eq!(example, Config::default());
    }

    #[test]
    fn the_example_documents_each_key() {
        let example = include_str!("../../examples/config.toml");
        for line in Config::default().to_toml().unwrap().lines() {
            let Some((key, _)) = line.split_once(" = ") else {
                continue;
            };
            assert!(
                example
                    .lines()
                    .any(|l| l.trim_start_matches("# ").starts_with(&format!("{key} ="))),
                "examples/config.toml does not show {key}"
            );
        }
    }

    #[test]
    fn a_backlog_of_no_or_too_many_events_is_refused() {
        for (value, good) in [
            (0, false),
            (1, true),
            (1 << 20, true),
            ((1 << 20) + 1, false),
        ] {
            let parsed = Config::parse(&format!("[grpc]\nevent_backlog = {value}\n"));
            assert_eq!(parsed.is_ok(), good, "{value}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Config::parse("[grpc]\nsokcet = \"/x\"\n").unwrap_err();
        assert!(format!("{error:#}").contains("sokcet"), "{error:#}");
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        for (text, key) in [
            ("[paths]\nroot = \"var\"", "paths.root"),
            ("[cdi]\ndirectories = [\"etc/cdi\"]", "cdi.directories"),
            ("[cgroup]\nroot = \"/a/../b\"", "cgroup.root"),
            (
                "[network.bridge]\npod_cidrs = [\"10.0.0.0/99\"]",
                "network.bridge.pod_cidrs",
            ),
            ("[images]\nparallel_layers = 0", "images.parallel_layers"),
            ("[log]\nlevel = \"a=b=c\"", "log.level"),
            ("[metrics]\nlisten = \"here\"", "metrics.listen"),
            (
                "[network.bridge]\nnft_table = \"a b\"",
                "network.bridge.nft_table",
            ),
            ("[network.bridge]\nmtu = 7", "network.bridge.mtu"),
            (
                "[registries.\"a.example\"]\nmirrors = [\"ftp://x\"]",
                "registries.\"a.example\".mirrors",
            ),
            ("[images]\nmax_layers = 501", "images.max_layers"),
            ("[images]\nauth_files = [\"a\"]", "images.auth_files"),
            ("[paths]\ncontainers = \"a\"", "paths.containers"),
            (
                "[registries.\"h.io\"]\nclient_key_file = \"/k\"",
                "client_cert_file",
            ),
            (
                "[handlers.native]\nkind = \"oci\"\nbinary = \"/x\"",
                "handlers.native",
            ),
            (
                "[handlers.My_runc]\nkind = \"oci\"\nbinary = \"/x\"",
                "handlers.My_runc",
            ),
            (
                "[handlers.runc]\nkind = \"oci\"\nbinary = \"bin/runc\"",
                "handlers.runc.binary",
            ),
            (
                "[handlers.runc]\nkind = \"oci\"\nbinary = \"runc\"\nroot = \"x\"",
                "handlers.runc.root",
            ),
            (
                "[runtime]\ndefault_handler = \"kata\"",
                "runtime.default_handler",
            ),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_default_survives_a_round_trip() {
        let text = Config::default().to_toml().unwrap();
        assert_eq!(Config::parse(&text).unwrap(), Config::default());
    }
}
