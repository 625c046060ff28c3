//! CreateContainer: from a configuration to a process that waits for its start.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use carpel_cgroup::Use;
use carpel_failpoint::step;
use carpel_images::engine::{Image, ImageConfig};
use carpel_proto::holder::{self as wire, MountFd};
use carpel_proto::state::ContainerRecord;
use carpel_proto::state::container_record::Phase;
use carpel_spec::capability::CapSet;
use carpel_spec::intent::{self, ContainerConfig, NamespaceMode, SecurityProfile};
use carpel_spec::users::{self, User, UserDatabase};
use carpel_spec::{ContainerPlan, GeneratedFile, Input, container_spec, image_volumes, validate};
use carpel_sys::memfd;
use oci_spec::runtime::Spec;

use super::container::Container;
use super::exec::Fds;
use super::ids::{new_id, now_ns};
use super::index::container_key;
use super::pod::Pod;
use super::recorded::blocking;
use super::run::hostname;
use super::runtime::Runtime;
use super::users::read_table;
use super::{host, limits, log, oci, oom, volumes};
use crate::error::{Error, Failures};
use crate::seccomp::Profile;

#[derive(Debug)]
pub(crate) struct CreateRequest {
    pub(crate) pod_id: String,
    pub(crate) config: ContainerConfig,
    /// The configuration as it was received, for the record.
    pub(crate) received: Vec<u8>,
    /// The client sent a security context, if an empty one.
    pub(crate) has_security_context: bool,
}

/// What a container is made of, before it is made.
struct Prepared {
    plan: ContainerPlan,
    rootfs: OwnedFd,
    user: User,
    stop_signal: i32,
}

impl Runtime {
    /// Gives the container's id. The same container asked for again is the same one.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        request: CreateRequest,
    ) -> Result<String, Error> {
        let pod = self.ready_pod(&request.pod_id)?;
        check(&pod, &request.config)?;
        let config = &request.config;
        let key = container_key(&pod.id, &config.name, config.attempt);
        let this = Arc::clone(self);
        let name = key.clone();
        let work = || async move {
            match this.index.container_by_key(&name) {
                Some(container) if container.phase() == Phase::Created => Ok(container.id.clone()),
                Some(container) => Err(Error::AlreadyExists(format!(
                    "container {} has this name and attempt in the pod and was started: remove it first",
                    container.id
                ))),
                None => this.make_container(&pod, request).await,
            }
        };
        self.operations.join(format!("create {key}"), work).await
    }

    async fn make_container(
        &self,
        pod: &Arc<Pod>,
        request: CreateRequest,
    ) -> Result<String, Error> {
        let _work = pod.busy.read().await;
        // It may have been stopped while this waited.
        self.ready_pod(&pod.id)?;
        let image = self.image_of(&request.config).await?;
        let id = new_id()?;
        let mut record = ContainerRecord {
            cgroup: format!("{}/{id}", pod.cgroup()),
            id,
            pod_id: pod.id.clone(),
            config: request.received,
            image_id: image.id.0.clone(),
            image_name: image_name(&request.config, &image),
            image_engine: self.parts.images.name().to_owned(),
            created_at_ns: now_ns(),
            log_path: log::path(&pod.config.log_directory, &request.config.log_path),
            ..ContainerRecord::default()
        };
        record.set_phase(Phase::Creating);
        let container = Arc::new(Container::new(record, request.config));
        match self
            .bring_in(pod, &container, &image, request.has_security_context)
            .await
        {
            Ok(()) => Ok(container.id.clone()),
            Err(error) => {
                if let Err(more) = self.undo_container(pod, &container).await {
                    tracing::error!(container = %container.id, error = %more,
                        "cannot undo a container that failed to be made");
                }
                Err(error)
            }
        }
    }

    async fn bring_in(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
        image: &Image,
        has_security_context: bool,
    ) -> Result<(), Error> {
        container.save(&self.parts.state).await?;
        let prepared = self
            .prepare(pod, container, image, has_security_context)
            .await?;
        step("the container is planned");
        self.save_spec(container, prepared.plan.spec.clone())
            .await?;
        let created = self.hand_over(pod, container, &prepared).await?;
        step("the process is made");
        if created.oom_score_adj_refused {
            oom::say_clamped();
        }
        container.set_pid(created.pid);
        container.record.change(|r| {
            r.uid = prepared.user.uid;
            r.gid = prepared.user.gid;
            r.supplemental_groups.clone_from(&prepared.user.groups);
            r.stop_signal = prepared.stop_signal;
            r.set_phase(Phase::Created);
        });
        container.save(&self.parts.state).await?;
        self.show_container(pod, container);
        step("the container is listed");
        tracing::info!(container = %container.id, name = %container.config.name, pod = %pod.id,
            "container is created");
        Ok(())
    }

    /// Everything but the process: root filesystem, user, OCI configuration.
    async fn prepare(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
        image: &Image,
        has_security_context: bool,
    ) -> Result<Prepared, Error> {
        let config = &container.config;
        let rootfs = self
            .parts
            .images
            .prepare(&image.id, &container.id)
            .await?
            .mount;
        step("the root filesystem is prepared");
        let (rootfs, database) = blocking(move || {
            let passwd = read_table(rootfs.as_fd(), "etc/passwd")?;
            let group = read_table(rootfs.as_fd(), "etc/group")?;
            Ok((rootfs, UserDatabase::new(passwd, group)))
        })
        .await?;
        let mut user = users::resolve(&config.security, &image.user, &database)?;
        let injection = self.inject(&config.cdi_devices).await?;
        user.join(&injection.groups);
        let target_pid = self.target_pid(pod, config)?;
        let asked = (config.devices.clone(), config.security.privileged);
        let version = self.parts.cgroups.version();
        let pids_limit = self.parts.pids_limit;
        let facts = blocking(move || host::facts(version, pids_limit, &asked.0, asked.1)).await?;
        let stop_signal = carpel_spec::stop_signal(config.stop_signal, &image.config.stop_signal)?;
        let generated = self.generated_files(pod);
        let paths = image_volumes(&image.config.volumes, &config.mounts, &generated)?;
        let volumes = self.make_volumes(&container.id, &rootfs, paths).await?;
        let plan = container_spec(&Input {
            pod_id: &pod.id,
            pod: &pod.config,
            container_id: &container.id,
            container: config,
            has_security_context,
            image: &image_config(&image.config),
            user: &user,
            hostname: &hostname(&pod.config),
            cgroup_path: &container.cgroup(),
            pod_init_pid: Some(pod.init_pid()).filter(|pid| *pid > 0),
            target_pid,
            generated: &generated,
            volumes: &volumes,
            cdi: &injection,
            host: &facts,
        })?;
        Ok(Prepared {
            plan,
            rootfs,
            user,
            stop_signal,
        })
    }

    /// Opens all that the holder needs and lets it make the process.
    async fn hand_over(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
        prepared: &Prepared,
    ) -> Result<wire::Created, Error> {
        let config = &container.config;
        let sources = prepared.plan.mount_sources.clone();
        let indices: Vec<usize> = sources.iter().map(|source| source.mount_index).collect();
        let trees = volumes::open_all(sources).await?;
        step("the volumes are open");
        let runtime = self.runtime_of(pod)?;
        let seccomp = match runtime {
            Some(_) => None,
            None => self.filter(config, &prepared.plan.spec)?,
        };
        let rootfs = prepared
            .rootfs
            .try_clone()
            .map_err(Error::io("keep the root filesystem"))?;
        let spec = match runtime {
            Some(_) => self.spec_for_runtime(config, &prepared.plan.spec)?,
            None => oci::encode(&prepared.plan.spec)?,
        };
        let limits = limits::of(&config.resources, &prepared.plan.spec)?;
        let cgroups = Arc::clone(&self.parts.cgroups);
        let path = container.cgroup();
        let (directory, file) = (pod.config.log_directory.clone(), config.log_path.clone());
        let mut message = wire::CreateContainer {
            container_id: container.id.clone(),
            stdin: config.stdin,
            oom_score_adj: oom_score_adj(&prepared.plan.spec),
            ..wire::CreateContainer::default()
        };
        let (message, fds) = blocking(move || {
            let mut fds = Fds::default();
            message.spec_fd = fds.add(memory_file("spec", &spec)?);
            message.rootfs_fd = fds.add(rootfs);
            for (index, tree) in indices.into_iter().zip(trees) {
                let mount = u32::try_from(index).unwrap_or(u32::MAX);
                message.mounts.push(MountFd {
                    mount,
                    fd: fds.add(tree),
                });
            }
            if let Some(program) = seccomp {
                message.seccomp_fd = Some(fds.add(memory_file("seccomp", &program)?));
            }
            message.oci = runtime.map(|runtime| fds.add_runtime(runtime));
            let cgroup = cgroups.create(&path, Use::Container, &limits)?;
            step("the container's cgroup is made");
            fds.add_cgroup(
                &cgroup,
                &mut message.cgroup_procs_fd,
                &mut message.cgroup_dir_fd,
                &mut message.cgroup_kill_fd,
            )?;
            if !log::path(&directory, &file).is_empty() {
                message.log_fd = Some(fds.add(log::open(&directory, &file)?));
            }
            step("the log is open");
            Ok((message, fds.0))
        })
        .await?;
        Ok(pod.holder()?.create(message, fds).await?)
    }

    async fn undo_container(
        &self,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
    ) -> Result<(), Error> {
        let mut failures = Failures::default();
        failures.note(self.delete_container(pod, container).await);
        failures.into_result()
    }

    async fn image_of(&self, config: &ContainerConfig) -> Result<Image, Error> {
        if config.image.is_empty() {
            return Err(Error::Invalid("config.image.image: is empty".into()));
        }
        self.parts
            .images
            .status(&config.image)
            .await?
            .ok_or_else(|| Error::NotFound {
                kind: "image",
                id: config.image.clone(),
            })
    }

    fn target_pid(&self, pod: &Pod, config: &ContainerConfig) -> Result<Option<i32>, Error> {
        let namespaces = &config.security.namespaces;
        if namespaces.pid != NamespaceMode::Target {
            return Ok(None);
        }
        let target = self.container(&namespaces.target_id)?;
        if target.pod_id != pod.id {
            return Err(Error::Invalid(format!(
                "namespace_options.target_id: container {} is of another pod",
                target.id
            )));
        }
        match (target.phase(), target.pid()) {
            (Phase::Running, pid) if pid > 0 => Ok(Some(pid)),
            _ => Err(Error::FailedPrecondition(format!(
                "namespace_options.target_id: container {} is not running",
                target.id
            ))),
        }
    }

    fn generated_files(&self, pod: &Pod) -> Vec<GeneratedFile> {
        let dir = self.pod_run_dir(&pod.id);
        ["resolv.conf", "hosts", "hostname"]
            .map(|name| GeneratedFile {
                destination: format!("/etc/{name}"),
                source: dir.join(name).display().to_string(),
                readonly: false,
            })
            .into()
    }

    /// The seccomp program of a container, if one is asked for. No profile at all
    /// means unconfined, and a privileged container has none.
    pub(super) fn filter(
        &self,
        config: &ContainerConfig,
        spec: &Spec,
    ) -> Result<Option<Arc<[u8]>>, Error> {
        let Some(profile) = profile(config) else {
            return Ok(None);
        };
        let program = self.parts.seccomp.program(&profile, capabilities(spec))?;
        Ok(Some(program))
    }

    async fn save_spec(&self, container: &Arc<Container>, spec: Spec) -> Result<(), Error> {
        let text = serde_json::to_vec(&spec)
            .map_err(|error| Error::Internal(format!("encode the OCI configuration: {error}")))?;
        // Set once: this container is new.
        drop(container.spec.set(Arc::new(spec)));
        let state = self.parts.state.clone();
        let (pod, id) = (container.pod_id.clone(), container.id.clone());
        let crc32 = blocking(move || state.save_spec(&pod, &id, &text)).await?;
        container.record.change(|r| r.spec_crc32 = Some(crc32));
        Ok(())
    }

    /// The OCI configuration that the container was created with.
    pub(crate) async fn spec_of(&self, container: &Container) -> Result<Arc<Spec>, Error> {
        let load = || async {
            let state = self.parts.state.clone();
            let (pod, id) = (container.pod_id.clone(), container.id.clone());
            let crc32 = container.record.read(|r| r.spec_crc32);
            let text = blocking(move || state.load_spec(&pod, &id, crc32)).await?;
            let spec = serde_json::from_slice(&text)
                .map_err(|error| Error::Internal(format!("read the OCI configuration: {error}")))?;
            Ok::<_, Error>(Arc::new(spec))
        };
        container.spec.get_or_try_init(load).await.cloned()
    }
}

pub(super) fn profile(config: &ContainerConfig) -> Option<Profile> {
    match &config.security.seccomp {
        _ if config.security.privileged => None,
        None | Some(SecurityProfile::Unconfined) => None,
        Some(SecurityProfile::RuntimeDefault) => Some(Profile::Default),
        Some(SecurityProfile::Localhost(path)) => Some(Profile::Localhost(path.clone())),
    }
}

pub(super) fn capabilities(spec: &Spec) -> CapSet {
    let process = spec.process().as_ref();
    CapSet::of_process(process.and_then(|p| p.capabilities().as_ref()))
}

/// What can be told wrong before anything is touched.
fn check(pod: &Pod, config: &ContainerConfig) -> Result<(), Error> {
    validate::container(&pod.config, config)?;
    if config.tty {
        return Err(Error::Unimplemented(
            "config.tty: terminals are not supported yet".into(),
        ));
    }
    Ok(())
}

/// Bytes in memory that a descriptor leads to and nothing can change.
pub(super) fn memory_file(name: &str, bytes: &[u8]) -> Result<OwnedFd, Error> {
    memfd::sealed(name, bytes).map_err(Error::io(format!("make a memory file for the {name}")))
}

fn oom_score_adj(spec: &Spec) -> Option<i32> {
    spec.process()
        .as_ref()
        .and_then(oci_spec::runtime::Process::oom_score_adj)
}

/// What a user knows the image by (ContainerStatus.image.image).
fn image_name(config: &ContainerConfig, image: &Image) -> String {
    if !config.user_specified_image.is_empty() {
        return config.user_specified_image.clone();
    }
    if config.image == image.id.0 {
        return image.repo_tags.first().unwrap_or(&config.image).clone();
    }
    config.image.clone()
}

fn image_config(config: &ImageConfig) -> intent::ImageConfig {
    intent::ImageConfig {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone(),
        volumes: config.volumes.clone(),
    }
}
