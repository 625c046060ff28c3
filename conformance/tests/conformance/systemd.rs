//! The daemon beside a systemd: one of the test's own, which keeps slices and scopes as
//! systemd does and writes down what it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use carpel_conformance::{Node, Settings, spec};
use k8s_cri::v1 as cri;
use tokio::net::UnixListener;
use tonic::Code;
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use crate::checks::{Outcome, Pod, assert_refused, node};

const MIB: i64 = 1 << 20;

/// What systemd keeps, in the cgroup hierarchies of this host.
#[derive(Clone)]
struct Manager {
    roots: Vec<PathBuf>,
    calls: Arc<Mutex<Vec<String>>>,
}

struct Systemd {
    manager: Manager,
    socket: PathBuf,
    serving: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

fn refused(error: impl ToString) -> zbus::fdo::Error {
    zbus::fdo::Error::Failed(error.to_string())
}

/// `/a.slice/a-b.slice` for `a-b.slice`.
fn place(slice: &str) -> String {
    let stem = slice.trim_end_matches(".slice");
    let ends = stem
        .match_indices('-')
        .map(|(at, _)| at)
        .chain([stem.len()]);
    ends.map(|end| format!("/{}.slice", &stem[..end])).collect()
}

impl Manager {
    fn new() -> anyhow::Result<Self> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let roots = table.lines().filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            // systemd does without v1's cpuset, whose new groups take no process.
            let ours = filesystem.starts_with("cgroup") && !filesystem.contains("cpuset");
            mount.split(' ').nth(4).filter(|_| ours).map(PathBuf::from)
        });
        Ok(Self {
            roots: roots.collect(),
            calls: Arc::default(),
        })
    }

    fn note(&self, call: String) {
        self.calls.lock().expect("no test fails in here").push(call);
    }

    fn make(&self, group: &str, pid: u32) -> std::io::Result<()> {
        for root in &self.roots {
            let dir = root.join(group.trim_start_matches('/'));
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// The groups of a unit, wherever its slice is.
    fn find(&self, unit: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut places = self.roots.clone();
        while let Some(dir) = places.pop() {
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                if path.ends_with(unit) {
                    found.push(path);
                } else if path.extension().is_some_and(|kind| kind == "slice") {
                    places.push(path);
                }
            }
        }
        found
    }

    /// Slices go when nothing is in them.
    fn remove(group: &Path) {
        // A process that was killed stays a moment.
        for _ in 0..50 {
            remove_groups(group);
            if !group.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let slices = group.ancestors().take_while(|dir| {
            dir.extension()
                .is_some_and(|kind| kind == "scope" || kind == "slice")
        });
        for dir in slices {
            fs::remove_dir(dir).ok();
        }
    }
}

fn remove_groups(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for inner in entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
    {
        remove_groups(&inner);
    }
    fs::remove_dir(group).ok();
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn start_transient_unit(
        &self,
        name: String,
        mode: String,
        properties: Vec<(String, OwnedValue)>,
        _auxiliary: Vec<(String, Vec<(String, OwnedValue)>)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        self.note(format!("start {name} {mode} {properties:?}"));
        let get = |key: &str| {
            let found = properties.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.clone())
        };
        let slice = get("Slice").ok_or_else(|| refused("no slice"))?;
        let slice = String::try_from(slice).map_err(refused)?;
        let pids = get("PIDs").ok_or_else(|| refused("no process"))?;
        let pids = Vec::<u32>::try_from(pids).map_err(refused)?;
        for pid in pids {
            self.make(&format!("{}/{name}", place(&slice)), pid)
                .map_err(refused)?;
        }
        done(&emitter, name).await
    }

    async fn stop_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        self.note(format!("stop {name} {mode}"));
        for group in self.find(&name) {
            Self::remove(&group);
        }
        done(&emitter, name).await
    }

    async fn reset_failed_unit(&self, name: String) {
        self.note(format!("reset {name}"));
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

async fn done(emitter: &SignalEmitter<'_>, unit: String) -> zbus::fdo::Result<OwnedObjectPath> {
    let job = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/1").map_err(refused)?;
    Manager::job_removed(emitter, 1, job.clone(), unit, "done".into()).await?;
    Ok(job)
}

impl Systemd {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("private");
        let listener = UnixListener::bind(&socket)?;
        let manager = Manager::new()?;
        let served = manager.clone();
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let builder = Builder::unix_stream(stream)
                    .server(zbus::Guid::generate())
                    .and_then(|builder| {
                        builder
                            .p2p()
                            .serve_at("/org/freedesktop/systemd1", served.clone())
                    });
                match builder {
                    Ok(builder) => open.push(builder.build().await),
                    Err(error) => eprintln!("systemd of the test: {error}"),
                }
            }
        });
        Ok(Self {
            manager,
            socket,
            serving,
            _folder: folder,
        })
    }

    fn calls(&self) -> Vec<String> {
        let calls = self.manager.calls.lock().expect("no test fails in here");
        calls.clone()
    }

    async fn end(mut self) -> Outcome {
        self.serving.abort();
        (&mut self.serving).await.ok();
        fs::remove_file(&self.socket).context("remove the socket")
    }

    async fn node(&self) -> anyhow::Result<Node> {
        Node::start(
            Settings::default()
                .images(&[spec::BUSYBOX])
                .systemd(&self.socket),
        )
        .await
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A pod in a slice as the kubelet names it, and that slice's path.
fn kubelets_pod(node: &Node) -> (cri::PodSandboxConfig, String) {
    let stem = node.cgroup().trim_matches('/').trim_end_matches(".slice");
    let slice = format!("{stem}-kubepods-pod1.slice");
    let mut config = spec::pod("systemd");
    config.linux.get_or_insert_default().cgroup_parent = slice.clone();
    (config, place(&slice))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_a_scope_in_the_kubelets_slice() -> Outcome {
    let systemd = Systemd::start()?;
    let node = systemd.node().await?;
    let request = cri::RuntimeConfigRequest {};
    let config = node.cri().runtime().runtime_config(request).await?;
    let linux = config.into_inner().linux.unwrap_or_default();
    assert_eq!(linux.cgroup_driver(), cri::CgroupDriver::Systemd);

    let (mut config, slice) = kubelets_pod(&node);
    // Annotations are no properties of units (CVE-2024-3154).
    let hostile = "org.systemd.property.ExecStopPost";
    config
        .annotations
        .insert(hostile.into(), "'touch /tmp/owned'".into());
    let pod = Pod::run(&node, config).await?;
    let mut container = spec::sleeper("c");
    spec::resources(&mut container).memory_limit_in_bytes = 64 * MIB;
    let id = pod.start(&node, &container).await?;
    let scope = format!("{slice}/carpel-{}.scope", pod.id);
    let group = format!("{scope}/pod/{id}");
    let inner = group
        .strip_prefix(node.cgroup())
        .context("below the node's")?;
    let inner = inner.trim_start_matches('/');
    let pids = node.cgroup_text(inner, "cgroup.procs")?;
    assert!(!pids.is_empty());
    for pid in pids.lines() {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        assert!(groups.contains(&group), "{groups}");
        // systemd's own hierarchy tells it that the scope is not empty.
        let own = groups.lines().find(|line| line.contains(":name=systemd:"));
        assert!(own.is_none_or(|line| line.contains(&scope)), "{groups}");
    }
    assert_eq!(node.cri().output(&id, &["echo", "hello"]).await?, "hello\n");

    node.kill()?;
    node.restart().await?;
    let update = cri::LinuxContainerResources {
        memory_limit_in_bytes: 80 * MIB,
        ..Default::default()
    };
    node.cri().update(&id, update).await?;
    let limit = node
        .cgroup_text(inner, "memory.limit_in_bytes")
        .or_else(|_| node.cgroup_text(inner, "memory.max"));
    assert_eq!(limit?, (80 * MIB).to_string());

    node.cri().stop_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    node.assert_clean().await?;
    let calls: Vec<_> = systemd
        .calls()
        .into_iter()
        .filter(|call| call.contains(&pod.id))
        .collect();
    let unit = format!("carpel-{}.scope", pod.id);
    assert!(calls[0].starts_with(&format!("start {unit} ")), "{calls:?}");
    assert!(calls[0].contains("Delegate"), "{calls:?}");
    assert!(!calls[0].contains("Exec"), "{calls:?}");
    assert_eq!(
        calls[1..3],
        [format!("stop {unit} replace"), format!("reset {unit}")]
    );
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_also_when_systemd_is_gone() -> Outcome {
    let systemd = Systemd::start()?;
    let node = systemd.node().await?;
    let pod = Pod::run(&node, spec::pod("systemd")).await?;
    pod.start(&node, &spec::sleeper("c")).await?;
    let manager = systemd.manager.clone();
    systemd.end().await?;
    let refused = node.cri().run_pod(&spec::pod("later")).await;
    assert_refused(refused, Code::Unavailable, &["systemd", "cgroup.driver"]);
    node.cri().stop_pod(&pod.id).await?;
    node.cri().remove_pod(&pod.id).await?;
    // A systemd that comes back finds an empty slice and drops it.
    let slice = node.cgroup().trim_start_matches('/');
    for root in &manager.roots {
        let left: Vec<_> = fs::read_dir(root.join(slice))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir() && entry.path().join("pod").exists())
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    for group in manager.find(&format!("carpel-{}.scope", pod.id)) {
        Manager::remove(&group);
    }
    for root in &manager.roots {
        fs::remove_dir(root.join(slice)).ok();
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_of_the_other_driver_is_refused_with_the_setting() -> Outcome {
    let with = |parent: &str| {
        let mut config = spec::pod("refused");
        config.linux.get_or_insert_default().cgroup_parent = parent.into();
        config
    };
    let invalid = Code::InvalidArgument;
    let plain = node().await?;
    for parent in ["/test.slice", "kubepods-pod1.slice"] {
        let refused = plain.cri().run_pod(&with(parent)).await;
        assert_refused(
            refused,
            invalid,
            &["cgroup_parent", parent, "cgroup.driver"],
        );
    }
    plain.finish().await?;
    let systemd = Systemd::start()?;
    let node = systemd.node().await?;
    for parent in ["/kubepods/pod1", "/elsewhere/a-b.slice", "a--b.slice"] {
        let refused = node.cri().run_pod(&with(parent)).await;
        assert_refused(refused, invalid, &["cgroup_parent", parent]);
    }
    node.finish().await
}
