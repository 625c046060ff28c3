//! RunPodSandbox: from a configuration to a pod that containers can join.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carpel_cgroup::{Limits, Use};
use carpel_failpoint::step;
use carpel_network::driver::{HostPort, PodNetwork, Protocol};
use carpel_proto::holder::Setup;
use carpel_proto::state::PodRecord;
use carpel_proto::state::pod_record::Phase;
use carpel_spec::intent::{self, NamespaceMode, PodConfig};
use carpel_spec::validate;

use super::ids::{new_id, now_ns, short};
use super::pod::{self, Pod};
use super::recorded::blocking;
use super::runtime::Runtime;
use super::sweep::CGROUP_NOTE;
use crate::error::Error;
use crate::holder::{self, Connected};
use crate::host_files;

/// From the start of the holder's process to its greeting.
const GREETING: Duration = Duration::from_secs(20);
/// Of a pod's /dev/shm, as other runtimes have it.
const SHM_BYTES: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct RunRequest {
    pub(crate) config: PodConfig,
    /// The configuration as it was received, for the record.
    pub(crate) received: Vec<u8>,
    pub(crate) runtime_handler: String,
}

impl Runtime {
    /// Gives the pod's id. The same pod asked for again is the same pod.
    pub(crate) async fn run_pod(self: &Arc<Self>, request: RunRequest) -> Result<String, Error> {
        validate::pod(&request.config)?;
        let request = RunRequest {
            runtime_handler: self.parts.handlers.resolve(&request.runtime_handler)?,
            ..request
        };
        let key = pod::key(&request.config);
        let this = Arc::clone(self);
        let work = || async move {
            match this.index.pod_by_key(&pod::key(&request.config)) {
                Some(pod) if pod.is_recovering() => Err(pod.unavailable()),
                Some(pod) if pod.is_ready() => Ok(pod.id.clone()),
                Some(pod) => Err(Error::AlreadyExists(format!(
                    "pod sandbox {} has this name, uid and attempt and is stopped: remove it first",
                    pod.id
                ))),
                None => this.make_pod(request).await,
            }
        };
        self.operations.join(format!("run-pod {key}"), work).await
    }

    async fn make_pod(&self, request: RunRequest) -> Result<String, Error> {
        let id = new_id()?;
        let mut record = PodRecord {
            cgroup: self.parts.places.pod(&request.config.cgroup_parent, &id)?,
            id,
            config: request.received,
            runtime_handler: request.runtime_handler,
            created_at_ns: now_ns(),
            boot_id: self.parts.boot_id.clone(),
            image_engine: self.parts.images.name().to_owned(),
            ..PodRecord::default()
        };
        record.set_phase(Phase::Creating);
        let pod = Arc::new(Pod::new(
            record,
            request.config,
            Arc::clone(&self.feed),
            None,
        ));
        match self.bring_up(&pod).await {
            Ok(()) => Ok(pod.id.clone()),
            Err(error) => {
                self.undo(&pod).await;
                Err(error)
            }
        }
    }

    async fn bring_up(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let mut stages = self.parts.metrics.stages("run_pod_sandbox");
        pod.save(&self.parts.state).await?;
        stages.done("intent");
        let events = self.start_holder(pod).await?;
        stages.done("holder");
        let addresses = self.connect_network(pod).await?;
        stages.done("network");
        self.write_files(pod, &addresses).await?;
        pod.record.change(|r| {
            r.addresses = addresses.iter().map(ToString::to_string).collect();
            r.set_phase(Phase::Ready);
        });
        pod.save(&self.parts.state).await?;
        self.show_pod(pod);
        self.watch(Arc::clone(pod), events);
        step("the pod is listed");
        tracing::info!(pod = %pod.id, name = %pod.config.name, ?addresses, "pod is ready");
        Ok(())
    }

    /// A pod that could not be made goes without trace; if even that fails it is
    /// shown NOTREADY, so that RemovePodSandbox can finish the work.
    async fn undo(&self, pod: &Arc<Pod>) {
        if let Err(error) = self.take_down(pod).await {
            tracing::error!(pod = %pod.id, %error, "cannot undo a pod that failed to start");
            pod.set_phase(Phase::NotReady);
            pod.say_why(&error.to_string());
            self.show_pod(pod);
            pod.save_if_possible(&self.parts.state).await;
            return;
        }
        let (state, id) = (self.parts.state.clone(), pod.id.clone());
        if let Err(error) = blocking(move || state.remove_pod(&id)).await {
            tracing::error!(pod = %pod.id, %error, "cannot remove the record of a failed pod");
        }
    }

    async fn start_holder(
        &self,
        pod: &Arc<Pod>,
    ) -> Result<tokio::sync::mpsc::UnboundedReceiver<holder::HolderEvent>, Error> {
        let dir = self.pod_run_dir(&pod.id);
        let (made, note) = (dir.clone(), pod.cgroup());
        blocking(move || {
            make_dir(&made)?;
            let noted = made.join(CGROUP_NOTE);
            std::fs::write(&noted, note).map_err(Error::io(format!("write {}", noted.display())))
        })
        .await?;
        step("the pod's run directory is made");
        let (pid, procs) = if pod.has_scope() {
            // A scope is made around a process.
            let pid = self.spawn_holder(pod, &dir)?;
            self.start_scope(pod, pid).await?;
            (pid, self.make_cgroup(pod, Some(pid)).await?)
        } else {
            let procs = self.make_cgroup(pod, None).await?;
            (self.spawn_holder(pod, &dir)?, procs)
        };
        tracing::debug!(pod = %pod.id, pid, "the holder is started");
        let Connected { client, events, .. } = holder::connect(&dir, GREETING).await?;
        step("the holder has greeted");
        pod.attach(client.clone(), None, 0);
        let setup = setup(pod, procs.len());
        let (netns, init_pid) = client.setup(setup, procs).await?;
        step("the pod's namespaces are made");
        pod.attach(client, netns, init_pid);
        Ok(events)
    }

    fn spawn_holder(&self, pod: &Pod, dir: &Path) -> Result<i32, Error> {
        let pid = holder::spawn(&self.parts.holder, dir)?;
        pod.record.change(|r| r.holder_pid = pid);
        step("the holder is spawned");
        Ok(pid)
    }

    /// Makes the pod's cgroup, if it is ours, and the holder's place in it.
    async fn make_cgroup(
        &self,
        pod: &Arc<Pod>,
        holder: Option<i32>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let cgroups = Arc::clone(&self.parts.cgroups);
        let leaf = format!("{}/holder-{}", pod.cgroup(), short(&pod.id));
        let own = pod.owns_cgroup().then(|| pod.cgroup());
        let limits = self.pod_limits(pod).await?;
        let procs = blocking(move || {
            if let Some(holder) = holder {
                // It must leave the scope's own group before groups below that can have
                // controllers (v2).
                cgroups
                    .create(&leaf, Use::Holder, &Limits::default())?
                    .enter(holder)?;
            }
            if let Some(own) = own {
                cgroups.create(&own, Use::Pod, &limits)?;
            }
            let cgroup = cgroups.create(&leaf, Use::Holder, &Limits::default())?;
            Ok(cgroup.procs()?)
        })
        .await?;
        step("the pod's cgroup is made");
        Ok(procs)
    }

    async fn connect_network(&self, pod: &Arc<Pod>) -> Result<Vec<IpAddr>, Error> {
        let Some(netns) = pod.netns() else {
            return Ok(Vec::new());
        };
        pod.record.change(|r| r.network_attached = true);
        pod.save(&self.parts.state).await?;
        let ports = host_ports(&pod.config)?;
        let attachment = self
            .parts
            .network
            .setup(&PodNetwork {
                pod_id: &pod.id,
                name: &pod.config.name,
                namespace: &pod.config.namespace,
                uid: &pod.config.uid,
                netns: netns.as_fd(),
                host_ports: &ports,
            })
            .await?;
        step("the pod has its network");
        Ok(attachment.addresses)
    }

    async fn write_files(&self, pod: &Arc<Pod>, addresses: &[IpAddr]) -> Result<(), Error> {
        let dir = self.pod_run_dir(&pod.id);
        let hostname = hostname(&pod.config);
        let hosts = if pod.host_network() {
            None
        } else {
            Some(addresses.to_vec())
        };
        let dns = pod.config.dns.clone();
        blocking(move || {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let resolv = host_files::resolv_conf(dns.as_ref(), &read("/etc/resolv.conf"))?;
            let hosts = match hosts {
                Some(addresses) => host_files::hosts(&hostname, &addresses)?,
                None => read("/etc/hosts"),
            };
            let name = host_files::hostname(&hostname)?;
            for (file, text) in [
                ("resolv.conf", resolv),
                ("hosts", hosts),
                ("hostname", name),
            ] {
                let path = dir.join(file);
                std::fs::write(&path, text)
                    .map_err(Error::io(format!("write {}", path.display())))?;
                step("a file of the pod is written");
            }
            Ok(())
        })
        .await
    }
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(Error::io(format!("create {}", dir.display())))
}

fn setup(pod: &Pod, procs: usize) -> Setup {
    let namespaces = &pod.config.security.namespaces;
    let own_ipc = namespaces.ipc != NamespaceMode::Node;
    let own_net = namespaces.network != NamespaceMode::Node;
    Setup {
        pod_id: pod.id.clone(),
        network: own_net,
        ipc: own_ipc,
        uts: own_net,
        shared_pid: namespaces.pid == NamespaceMode::Pod,
        hostname: if own_net {
            hostname(&pod.config)
        } else {
            String::new()
        },
        sysctls: pod.config.sysctls.clone().into_iter().collect(),
        cgroup_procs_fd: (0..u32::try_from(procs).unwrap_or(0)).collect(),
        shm_size: if own_ipc { SHM_BYTES } else { 0 },
        oom_score_adj: -998,
    }
}

/// The host's own name where the pod asks for none.
pub(super) fn hostname(config: &PodConfig) -> String {
    if !config.hostname.is_empty() {
        return config.hostname.clone();
    }
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn host_ports(config: &PodConfig) -> Result<Vec<HostPort>, Error> {
    config
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port != 0)
        .map(|mapping| {
            let host_ip = match mapping.host_ip.as_str() {
                "" | "0.0.0.0" | "::" => None,
                text => Some(text.parse().map_err(|_| {
                    Error::Invalid(format!("port_mappings.host_ip: {text:?} is no IP address"))
                })?),
            };
            Ok(HostPort {
                protocol: match mapping.protocol {
                    intent::Protocol::Tcp => Protocol::Tcp,
                    intent::Protocol::Udp => Protocol::Udp,
                    intent::Protocol::Sctp => Protocol::Sctp,
                },
                host_port: mapping.host_port,
                container_port: mapping.container_port,
                host_ip,
            })
        })
        .collect()
}
