//! What the tests of this folder share.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use carpel_conformance::image::{
    Compression, Content, ImageBuilder, Layer, digest_of, full_layer, helper,
};
use carpel_conformance::spec::{self, BUSYBOX};
use carpel_conformance::{Node, Settings};
use k8s_cri::v1 as cri;
use tonic::{Code, Status};

pub(crate) type Outcome = anyhow::Result<()>;

/// A node with busybox.
pub(crate) async fn node() -> anyhow::Result<Node> {
    Node::start(Settings::default().images(&[BUSYBOX])).await
}

/// Busybox to put hostile layers on; its layer is there already.
pub(crate) fn busybox() -> anyhow::Result<ImageBuilder> {
    static LAYER: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let layer = LAYER.get_or_init(|| full_layer().map_err(|error| format!("{error:#}")));
    let layer = layer.clone().map_err(anyhow::Error::msg)?;
    Ok(ImageBuilder::new().tar(layer, Compression::Gzip))
}

/// A layer with our helper as `/attack`.
pub(crate) fn armed() -> anyhow::Result<Layer> {
    static PROGRAM: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| helper("attack").map_err(|error| format!("{error:#}")));
    let program = program
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(Layer::new().file("attack", program, 0o755))
}

/// Serves an image and pulls it; gives its name, or why it was refused.
pub(crate) async fn pull(
    node: &Node,
    name: &str,
    image: ImageBuilder,
) -> std::result::Result<String, Status> {
    let mut content = Content::default();
    image.push(&mut content, &[&format!("evil/{name}:1")]);
    node.registry().push(content);
    let reference = format!("carpel.test/evil/{name}:1");
    node.cri().pull(&reference).await?;
    Ok(reference)
}

/// A running pod and its configuration.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) config: cri::PodSandboxConfig,
}

impl Pod {
    pub(crate) async fn run(node: &Node, config: cri::PodSandboxConfig) -> anyhow::Result<Self> {
        Ok(Self {
            id: node.cri().run_pod(&config).await?,
            config,
        })
    }

    /// Creates and starts a container in it.
    pub(crate) async fn start(
        &self,
        node: &Node,
        container: &cri::ContainerConfig,
    ) -> Result<String, Status> {
        node.cri().run(&self.id, container, &self.config).await
    }

    /// What a container that ends by itself writes to standard output.
    pub(crate) async fn output(
        &self,
        node: &Node,
        container: &cri::ContainerConfig,
    ) -> anyhow::Result<String> {
        let id = self.start(node, container).await?;
        node.cri().wait_exit(&id).await?;
        let path = Path::new(&self.config.log_directory).join(&container.log_path);
        let log =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let lines = carpel_conformance::parse_log(&log)?;
        Ok(lines.into_iter().fold(String::new(), |mut text, line| {
            text.push_str(&line.text);
            text.push_str(if line.partial { "" } else { "\n" });
            text
        }))
    }
}

/// A pod that logs into a folder of the test.
pub(crate) async fn logging_pod(node: &Node) -> anyhow::Result<Pod> {
    Pod::run(node, spec::logging_pod("victim", &node.folder("logs")?)).await
}

/// Everything below a folder: kind, mode, owner and content.
pub(crate) fn tree(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = path
            .symlink_metadata()
            .with_context(|| format!("look at {}", path.display()))?;
        let content = if meta.is_file() {
            digest_of(&std::fs::read(&path)?)
        } else if meta.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
            "directory".to_owned()
        } else {
            format!("{:?}", meta.file_type())
        };
        let mode = meta.permissions().mode();
        let text = format!("{mode:o} {}:{} {content}", meta.uid(), meta.gid());
        found.insert(path.display().to_string(), text);
    }
    Ok(found)
}

/// A folder of the host that an attack aims at, and what it holds.
pub(crate) struct Target {
    pub(crate) path: std::path::PathBuf,
    before: BTreeMap<String, String>,
}

impl Target {
    pub(crate) fn new(node: &Node) -> anyhow::Result<Self> {
        let path = node.folder("outside")?;
        std::fs::write(path.join("victim"), "of the host\n")?;
        std::fs::set_permissions(path.join("victim"), std::fs::Permissions::from_mode(0o600))?;
        std::fs::create_dir_all(path.join("sub"))?;
        let before = tree(&path)?;
        Ok(Self { path, before })
    }

    pub(crate) fn text(&self) -> String {
        self.path.display().to_string()
    }

    /// Relative and absolute ways to it out of a root filesystem.
    pub(crate) fn ways(&self) -> [String; 2] {
        let text = self.text();
        [format!("../../../../../../..{text}"), text]
    }

    pub(crate) fn unharmed(&self) -> Outcome {
        let now = tree(&self.path)?;
        ensure!(
            now == self.before,
            "changed: {now:#?} was {:#?}",
            self.before
        );
        Ok(())
    }
}

/// The daemon still does its work.
pub(crate) async fn healthy(node: &Node) -> Outcome {
    let pod = Pod::run(node, spec::pod("after")).await?;
    let id = pod.start(node, &spec::sleeper("well")).await?;
    let said = node.cri().output(&id, &["echo", "well"]).await?;
    ensure!(said == "well\n", "{said}");
    Ok(())
}

/// Ends a test: the daemon works, and when pods and images are gone nothing is left.
pub(crate) async fn end(node: Node) -> Outcome {
    healthy(&node).await?;
    for pod in node.cri().list_pods(None).await? {
        node.cri().stop_pod(&pod.id).await?;
        node.cri().remove_pod(&pod.id).await?;
    }
    for image in node.cri().list_images().await? {
        if !image.repo_tags.iter().any(|tag| tag == BUSYBOX) {
            node.cri().remove_image(&image.id).await?;
        }
    }
    node.finish().await
}

#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    codes: &[Code],
    names: &[&str],
) {
    let status = result.expect_err("this should have been refused");
    assert!(codes.contains(&status.code()), "{status}");
    for name in names {
        let message = status.message();
        assert!(
            message.contains(name),
            "{name:?} is not named in: {message}"
        );
    }
}

/// One figure of `/proc/PID/status`, in KiB.
pub(crate) fn memory(pid: u32, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(figure
        .with_context(|| format!("{name} of {path}"))?
        .parse()?)
}

/// Most memory that the daemon ever had beyond what it has now, in KiB.
pub(crate) struct Growth {
    pid: u32,
    before: u64,
}

impl Growth {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        // Resets the high-water mark (proc(5), clear_refs).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        let before = memory(pid, "VmRSS")?;
        Ok(Self { pid, before })
    }

    pub(crate) fn kib(&self) -> anyhow::Result<u64> {
        Ok(memory(self.pid, "VmHWM")?.saturating_sub(self.before))
    }
}

pub(crate) fn daemon(node: &Node) -> anyhow::Result<u32> {
    node.daemon_pid().context("the daemon runs")
}

/// A host folder or file at a place in a container.
pub(crate) fn bind(host: &Path, inside: &str) -> cri::Mount {
    cri::Mount {
        container_path: inside.to_owned(),
        host_path: host.display().to_string(),
        ..Default::default()
    }
}

/// Further capabilities for a container.
pub(crate) fn grant(config: &mut cri::ContainerConfig, names: &[&str]) {
    spec::security(config).capabilities = Some(cri::Capability {
        add_capabilities: names.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    });
}

/// Waits until something is there, for a bounded time.
pub(crate) async fn wait_for(path: &Path) -> Outcome {
    for _ in 0..200 {
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    anyhow::bail!("{} does not come", path.display())
}
