//! What was seen of a node. Nothing here says whether it is good.

use std::collections::BTreeMap;
use std::path::PathBuf;

use carpel_proto::admin::Leftover;

#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(super) kernel: Kernel,
    pub(super) cgroups: Cgroups,
    pub(super) config: Config,
    pub(super) disks: Vec<Disk>,
    pub(super) network: Network,
    pub(super) process: Process,
    pub(super) daemon: Daemon,
    /// Or why nobody could look.
    pub(super) leftovers: Option<Result<Leftovers, String>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(super) release: String,
    pub(super) pidfd: bool,
    pub(super) seccomp: bool,
    pub(super) overlay: bool,
    /// /proc/sys/user/max_user_namespaces; None: not in this kernel.
    pub(super) user_namespaces: Option<u64>,
    /// Modules that we use, and whether they are there.
    pub(super) modules: BTreeMap<&'static str, Module>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    /// Loaded, or part of the kernel.
    Here,
    /// On disk, to be loaded when needed.
    Loadable,
    Missing,
    /// The kernel's list of modules is not installed.
    Unknown,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroups {
    /// Mount points of v1 hierarchies by controller.
    pub(super) v1: BTreeMap<String, PathBuf>,
    pub(super) v2: Option<PathBuf>,
    pub(super) v2_controllers: Vec<String>,
    /// Mount points that are read-only.
    pub(super) read_only: Vec<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// Where it was read from, for people.
    pub(super) from: String,
    /// What is wrong with it.
    pub(super) mistake: Option<String>,
    /// Why the defaults were taken for it.
    pub(super) unknown: Option<String>,
    pub(super) root: PathBuf,
    pub(super) run: PathBuf,
    pub(super) bridge: bool,
    pub(super) masquerade: bool,
    pub(super) pod_cidrs: Vec<String>,
}

/// The filesystem that a directory of ours is or will be on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
    pub(super) kind: Filesystem,
    pub(super) bytes: u64,
    pub(super) bytes_free: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
    pub(super) read_only: bool,
    /// Whether directory entries tell their type; None: there is none to ask.
    pub(super) entry_types: Option<bool>,
    pub(super) unreadable: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Filesystem {
    Memory,
    Overlay,
    Network,
    #[default]
    Disk,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(super) nft: Option<PathBuf>,
    /// What `nft list tables` complained of.
    pub(super) nft_fails: Option<String>,
    /// Chains on the forward hook whose policy is to drop: family, table, chain.
    pub(super) dropping: Vec<String>,
    pub(super) ip_forward: Option<String>,
    pub(super) ipv6_forward: Option<String>,
    pub(super) sysctls_read_only: bool,
}

/// The daemon's process, or, while it does not run, our own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(super) whose: &'static str,
    pub(super) root: bool,
    pub(super) capabilities: u64,
    pub(super) open_files: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Daemon {
    pub(super) socket: PathBuf,
    /// Why the runtime's socket does not answer.
    pub(super) unreachable: Option<String>,
    pub(super) version: String,
    /// What it says of itself that is not so: condition, reason, message.
    pub(super) not_ready: Vec<String>,
    /// Why its own socket does not answer.
    pub(super) no_admin: Option<String>,
    pub(super) images: Option<Result<u64, String>>,
    /// Pods that only can be removed.
    pub(super) quarantined: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Leftovers {
    pub(super) found: Vec<Leftover>,
    pub(super) failures: Vec<String>,
}
