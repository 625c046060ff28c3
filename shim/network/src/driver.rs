//! The contract between the daemon and whatever connects pods.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use async_trait::async_trait;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Connects pods to a network. CNI's verbs map onto it one to one.
#[async_trait]
pub trait NetworkDriver: Send + Sync + fmt::Debug {
    fn name(&self) -> &str;

    /// Gives the pod an interface, an address, routes and its host ports. Records
    /// its intent on disk before it acts, so that `teardown` can undo a part.
    /// On error everything done so far is undone.
    async fn setup(&self, pod: &PodNetwork<'_>) -> Result<Attachment, Error>;

    /// Undoes `setup`, wholly or partly done, by the driver's own records: the
    /// namespace may be gone. An unknown pod is no error. Does not stop at the
    /// first failure: reports all of them.
    async fn teardown(&self, pod_id: &str) -> Result<(), Error>;

    /// Whether what `setup` made is still there.
    async fn check(&self, pod_id: &str) -> Result<(), Error>;

    /// Ready for pods, or why not, for the CRI's NetworkReady condition.
    async fn status(&self) -> Status;

    /// Whether there is a record of the pod's network; asks the host nothing.
    fn knows(&self, pod_id: &str) -> bool;

    /// Undoes what belongs to no pod of `live`.
    async fn gc(&self, live: &[String]) -> Result<(), Error>;

    /// How many addresses pods have, and could have; none where we give out none.
    fn pools(&self) -> Vec<Pool> {
        Vec::new()
    }

    /// The kubelet's pod CIDRs (UpdateRuntimeConfig). Pods that run keep their addresses.
    async fn set_pod_cidrs(&self, cidrs: &[IpNet]) -> Result<(), Error>;
}

/// A network that pods get addresses of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub cidr: IpNet,
    pub used: u64,
    /// What all pods together can have, at most `u64::MAX`.
    pub total: u64,
}

#[derive(Debug)]
pub struct PodNetwork<'a> {
    pub pod_id: &'a str,
    pub name: &'a str,
    pub namespace: &'a str,
    pub uid: &'a str,
    pub netns: BorrowedFd<'a>,
    pub host_ports: &'a [HostPort],
}

#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
    /// None: every address of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Primary address first.
    pub addresses: Vec<IpAddr>,
    /// Of the pod's interface inside, `eth0`.
    pub interface: String,
    /// Name of the veth's end on the host, for people.
    pub host_interface: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub ready: bool,
    /// One CamelCase word for the CRI condition when not ready.
    pub reason: String,
    pub message: String,
}

/// By what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {why}")]
    Invalid { what: String, why: String },
    /// Another pod or process has the host port.
    #[error("host port {port}/{protocol:?} is in use by {by}")]
    PortInUse {
        port: u16,
        protocol: Protocol,
        by: String,
    },
    #[error("no free address in {0}")]
    Exhausted(String),
    /// No pod CIDR yet, no `nft`, ….
    #[error("pod network is not ready: {0}")]
    NotReady(String),
    /// `check` found something missing.
    #[error("pod {pod_id} is damaged: {why}")]
    Damaged { pod_id: String, why: String },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// Everything that went wrong in a teardown.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}
