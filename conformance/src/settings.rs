//! The daemon's configuration for one node.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Hosts whose images the node gets from the harness's registry.
pub(crate) const HOSTS: [&str; 6] = [
    "registry.k8s.io",
    "k8s.gcr.io",
    "gcr.io",
    "public.ecr.aws",
    "docker.io",
    "carpel.test",
];

const LOG_LEVEL: &str = "info,carpeld=debug,carpel_images=debug,carpel_network=debug";

/// What a test may choose of its node.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) images: Vec<String>,
    pub(crate) pod_cidr: String,
    pub(crate) log_level: String,
    pub(crate) cdi_directories: usize,
    /// Socket of the systemd that makes the pods' cgroups.
    pub(crate) systemd: Option<PathBuf>,
    pub(crate) handler: String,
    pub(crate) more: String,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) event_backlog: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            images: Vec::new(),
            pod_cidr: "10.77.0.0/16".to_owned(),
            cdi_directories: 0,
            environment: Vec::new(),
            log_level: std::env::var("CARPEL_TEST_LOG").unwrap_or_else(|_| LOG_LEVEL.to_owned()),
            systemd: None,
            handler: std::env::var("CARPEL_TEST_HANDLER").unwrap_or_default(),
            more: String::new(),
            event_backlog: 2048,
        }
    }
}

impl Settings {
    #[must_use]
    pub fn log_level(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log_level);
        self
    }

    /// Images to pull before the test begins.
    #[must_use]
    pub fn images(mut self, images: &[&str]) -> Self {
        self.images = images.iter().map(|&image| image.to_owned()).collect();
        self
    }

    /// Pods' cgroups are made by the systemd behind this socket.
    #[must_use]
    pub fn systemd(mut self, socket: &Path) -> Self {
        self.systemd = Some(socket.to_owned());
        self
    }

    /// Runtime handler of the node's pods; without it, what `CARPEL_TEST_HANDLER`
    /// says, so that a whole test program can be run over another one.
    #[must_use]
    pub fn handler(mut self, name: &str) -> Self {
        name.clone_into(&mut self.handler);
        self
    }

    /// Further tables of the daemon's configuration.
    #[must_use]
    pub fn more(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self
    }

    /// A variable of the daemon's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Events that a reader may be behind.
    #[must_use]
    pub fn event_backlog(mut self, events: usize) -> Self {
        self.event_backlog = events;
        self
    }

    /// One CIDR, or one of each family with `", "` between them.
    #[must_use]
    pub fn pod_cidr(mut self, cidr: &str) -> Self {
        cidr.clone_into(&mut self.pod_cidr);
        self
    }
}

impl Settings {
    /// So many directories for specifications of devices, [`crate::Node::cdi_directory`].
    #[must_use]
    pub fn cdi_directories(mut self, count: usize) -> Self {
        self.cdi_directories = count;
        self
    }
}

/// Places of one node's daemon.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) cdi: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) admin: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
}

impl Places {
    pub(crate) fn new(base: &Path) -> Self {
        Self {
            cdi: base.join("cdi"),
            root: base.join("root"),
            run: base.join("run"),
            socket: base.join("cri.sock"),
            admin: base.join("admin.sock"),
            config: base.join("config.toml"),
            log: base.join("daemon.log"),
        }
    }
}

pub(crate) const BRIDGE: &str = "ctbridge0";

pub(crate) fn to_toml(
    settings: &Settings,
    places: &Places,
    holder: &Path,
    cgroup: &str,
    registry: &str,
) -> String {
    let mut text = format!(
        "[paths]\nroot = {root:?}\nrun = {run:?}\n\n[grpc]\nsocket = {socket:?}\nevent_backlog = {backlog}\n\n\
         [admin]\nsocket = {admin:?}\n\n[holder]\nbinary = {holder:?}\n\n\
         [cgroup]\nroot = \"/{cgroup}\"\n{systemd}\n[network]\ndriver = \"bridge\"\n\n\
         [network.bridge]\nname = \"{BRIDGE}\"\npod_cidrs = [{cidr}]\nnft_table = \"ct_table\"\n\n\
         [log]\nlevel = {level:?}\n",
        systemd = match &settings.systemd {
            Some(socket) => format!("driver = \"systemd\"\nsystemd_socket = {socket:?}\n"),
            None => String::new(),
        },
        root = places.root,
        run = places.run,
        socket = places.socket,
        admin = places.admin,
        cidr = settings
            .pod_cidr
            .split(", ")
            .map(|cidr| format!("{cidr:?}"))
            .collect::<Vec<_>>()
            .join(", "),
        level = settings.log_level,
        backlog = settings.event_backlog,
    );
    let cdi: Vec<_> = (0..settings.cdi_directories)
        .map(|number| places.cdi.join(number.to_string()))
        .collect();
    write!(text, "\n[cdi]\ndirectories = {cdi:?}\n").ok();
    text.push_str("\n[handlers.runc]\nkind = \"oci\"\nbinary = \"runc\"\n");
    for host in HOSTS {
        // Writing to a String cannot fail.
        write!(
            text,
            "\n[registries.{host:?}]\nmirrors = [\"http://{registry}\"]\n"
        )
        .ok();
    }
    write!(text, "\n[registries.{registry:?}]\ninsecure = true\n").ok();
    text.push_str(&settings.more);
    text
}
