//! The driver: the contract's verbs, each on a blocking thread.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ipnet::IpNet;

use super::base::Base;
use super::config::BridgeConfig;
use super::nft::Nft;
use super::state::State;
use crate::driver::{Attachment, Error, HostPort, NetworkDriver, PodNetwork, Pool, Status};
use crate::error::{collected, context};
use crate::netlink;
use crate::netns;

/// Pods that share a lock wait for each other, no more.
const POD_LOCKS: usize = 64;

/// The built-in network. Belongs to the network namespace of the thread that opens
/// it; the threads that use it must be in the same.
#[derive(Debug)]
pub struct BridgeDriver {
    inner: Arc<Inner>,
}

/// Locks are taken in the order of the fields.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: BridgeConfig,
    pub(super) nft: Nft,
    pods: [Mutex<()>; POD_LOCKS],
    pub(super) base: Mutex<Option<Base>>,
    /// Whether the nftables table is known to be as the records say.
    pub(super) installed: Mutex<bool>,
    pub(super) state: Mutex<State>,
    /// Held while devices are deleted.
    pub(super) deleting: Mutex<()>,
    pub(super) netlink: netlink::Pool,
}

/// `PodNetwork` for another thread.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) pod_id: String,
    pub(super) pod: String,
    pub(super) netns: OwnedFd,
    pub(super) host_ports: Vec<HostPort>,
}

impl BridgeDriver {
    /// Reads the records. Nothing of the host is changed before the first pod.
    pub fn open(config: BridgeConfig) -> Result<Self, Error> {
        config.validate()?;
        let netlink = netlink::Pool::open().map_err(context(|| "open netlink sockets"))?;
        let state = State::open(&config)?;
        let nft = Nft::new(config.nft.clone(), config.state_dir.clone());
        nft.settle()?;
        let inner = Inner {
            nft,
            pods: [const { Mutex::new(()) }; POD_LOCKS],
            base: Mutex::new(None),
            installed: Mutex::new(false),
            state: Mutex::new(state),
            deleting: Mutex::new(()),
            netlink,
            config,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Disconnects every pod and puts the host back as it was: no bridge (unless it
    /// was there before), no table, no routes, no records, settings as found. To be
    /// used when the driver is given up; pods set up at the same time may survive.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.blocking(|inner| {
            let mut errors = Vec::new();
            let pods: Vec<_> = lock(&inner.state)
                .pods()
                .map(|pod| pod.pod_id.clone())
                .collect();
            for pod_id in pods {
                errors.extend(inner.teardown(&pod_id).err());
            }
            errors.extend(inner.remove_base().err());
            collected(errors)
        })
        .await
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        netns::blocking(move || work(&inner)).await
    }
}

#[async_trait]
impl NetworkDriver for BridgeDriver {
    fn name(&self) -> &str {
        "bridge"
    }

    async fn setup(&self, pod: &PodNetwork<'_>) -> Result<Attachment, Error> {
        let netns = pod.netns.try_clone_to_owned();
        let request = Request {
            pod_id: pod.pod_id.to_owned(),
            pod: format!("{}/{}", pod.namespace, pod.name),
            netns: netns.map_err(context(|| format!("keep the netns of pod {}", pod.pod_id)))?,
            host_ports: pod.host_ports.to_vec(),
        };
        self.blocking(move |inner| inner.setup(&request)).await
    }

    async fn teardown(&self, pod_id: &str) -> Result<(), Error> {
        let pod_id = pod_id.to_owned();
        self.blocking(move |inner| inner.teardown(&pod_id)).await
    }

    async fn check(&self, pod_id: &str) -> Result<(), Error> {
        let pod_id = pod_id.to_owned();
        self.blocking(move |inner| inner.check(&pod_id)).await
    }

    async fn status(&self) -> Status {
        self.inner.status()
    }

    fn knows(&self, pod_id: &str) -> bool {
        lock(&self.inner.state).pod(pod_id).is_some()
    }

    async fn gc(&self, live: &[String]) -> Result<(), Error> {
        let live = live.to_vec();
        self.blocking(move |inner| inner.gc(&live)).await
    }

    fn pools(&self) -> Vec<Pool> {
        lock(&self.inner.state).pools()
    }

    async fn set_pod_cidrs(&self, cidrs: &[IpNet]) -> Result<(), Error> {
        let cidrs = cidrs.to_vec();
        self.blocking(move |inner| lock(&inner.state).set_pod_cidrs(&cidrs))
            .await
    }
}

impl Inner {
    /// Asks the kernel nothing, for the kubelet asks us every five seconds.
    fn status(&self) -> Status {
        let not_ready = |reason: &str, message: String| Status {
            ready: false,
            reason: reason.into(),
            message,
        };
        if lock(&self.state).pod_cidrs().is_empty() {
            let message = "no pod CIDR is configured, and the kubelet has not set one yet";
            return not_ready("NoPodCIDR", message.into());
        }
        let missing = self.nft.find().is_none();
        let message = format!("{} is not installed", self.config.nft.display());
        if missing && self.config.masquerade {
            return not_ready("NftMissing", format!("{message}, and masquerade needs it"));
        }
        let message = if missing {
            format!("{message}: no host ports")
        } else {
            String::new()
        };
        Status {
            ready: true,
            reason: String::new(),
            message,
        }
    }

    /// One operation a pod at a time.
    pub(super) fn pod_lock(&self, pod_id: &str) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(pod_id);
        let index = usize::try_from(hash % POD_LOCKS as u64).unwrap_or_default();
        lock(&self.pods[index])
    }
}

/// What a panicking thread left is as good as what a crashed daemon left.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
