//! containerd with runc and the usual CNI plugins, in namespaces of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use carpel_conformance::image::test_images;
use carpel_conformance::registry::Registry;
use carpel_conformance::{Cgroups, Cri, Namespaces, paths};
use nix::mount::{MsFlags, mount};

const READY_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: &str = "registry.k8s.io/pause:3.9";

#[derive(Debug)]
pub(crate) struct Containerd {
    cri: Cri,
    namespaces: Namespaces,
    cgroups: Cgroups,
    cgroup: String,
    config: PathBuf,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    _registry: Registry,
    _directory: tempfile::TempDir,
}

impl Containerd {
    pub(crate) async fn start(images: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("cb-").tempdir()?;
        let base = directory.path();
        let name = base.file_name().context("the folder has a name")?;
        let cgroup = format!("carpel-b-{}", name.to_string_lossy());
        let namespaces = Namespaces::new("containerd-node")?;
        let listener = namespaces.enter(|| TcpListener::bind("127.0.0.1:0"))??;
        let registry = Registry::start(listener, test_images()?)?;
        // Places that cannot be configured; the node's own mount namespace hides the machine's.
        namespaces.enter(|| {
            for place in ["/run", "/var/lib"] {
                mount(
                    Some("none"),
                    place,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    None::<&str>,
                )
                .with_context(|| format!("mount a tmpfs at {place}"))?;
            }
            anyhow::Ok(())
        })??;
        let config = write_config(base, &registry.host())?;
        let peer = Self {
            cri: Cri::new(&base.join("containerd.sock")),
            namespaces,
            cgroups: Cgroups::new(&cgroup)?,
            cgroup,
            config,
            log: base.join("log"),
            child: Mutex::new(None),
            _registry: registry,
            _directory: directory,
        };
        peer.spawn()?;
        peer.ready().await?;
        for image in images {
            let pulled = peer.cri.pull(image).await;
            pulled.with_context(|| format!("containerd pulls {image}"))?;
        }
        Ok(peer)
    }

    pub(crate) fn cri(&self) -> &Cri {
        &self.cri
    }

    pub(crate) fn cgroup_parent(&self) -> String {
        format!("/{}", self.cgroup)
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child
            .as_ref()
            .map(Child::id)
            .context("containerd does not run")
    }

    pub(crate) fn spawn(&self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let tools = paths::cache().join("bin");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
        let mut command = Command::new(paths::tool("containerd")?);
        command
            .arg("--config")
            .arg(&self.config)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self.namespaces.enter(|| command.spawn())?;
        let child = child.context("start containerd")?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = child.take().context("containerd does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let end = Instant::now() + READY_WITHIN;
        loop {
            match self.cri.status(false).await {
                Ok(_) => return Ok(()),
                Err(status) if Instant::now() > end => {
                    let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                    bail!("containerd does not answer: {status}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.kill().is_err() {
            eprintln!("bench: containerd has ended before its time");
        }
        // Its shims stand in no cgroup of ours, but in its network namespace's node.
        self.cgroups.remove();
        self.namespaces.end_processes();
    }
}

fn write_config(base: &std::path::Path, registry: &str) -> anyhow::Result<PathBuf> {
    let hosts = base.join("certs.d/_default");
    let networks = base.join("cni");
    for folder in [&hosts, &networks] {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let server = format!("[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
    std::fs::write(hosts.join("hosts.toml"), server)?;
    std::fs::write(networks.join("10-bench.conflist"), CNI)?;
    let runc = ["/usr/sbin/runc", "/usr/bin/runc"]
        .into_iter()
        .find(|path| std::path::Path::new(path).is_file())
        .context("runc is missing: run `make setup`")?;
    let text = format!(
        "version = 3\nroot = '{base}/root'\nstate = '{base}/state'\n\
         [grpc]\naddress = '{base}/containerd.sock'\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{PAUSE}'\n\
         [plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{base}/certs.d'\n\
         [plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n\
         tolerate_missing_hugetlb_controller = true\ndisable_hugetlb_controller = true\n\
         disable_apparmor = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
         runtime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
         BinaryName = '{runc}'\nSystemdCgroup = false\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['{plugins}']\n\
         conf_dir = '{networks}'\n",
        base = base.display(),
        plugins = paths::cache().join("bin/cni").display(),
        networks = networks.display(),
    );
    let config = base.join("config.toml");
    std::fs::write(&config, text)?;
    Ok(config)
}

/// What most nodes have: a bridge, local addresses, host ports.
const CNI: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "bench",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": true,
      "ipMasqBackend": "nftables",
      "ipam": {
        "type": "host-local",
        "ranges": [[{ "subnet": "10.99.0.0/16" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    {
      "type": "portmap",
      "backend": "nftables",
      "capabilities": { "portMappings": true }
    }
  ]
}
"#;
