//! The namespaces that stand for a node: what runs in them cannot touch the machine.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Context, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Network, mount, IPC and UTS namespaces, kept alive by their descriptors.
#[derive(Debug)]
pub struct Namespaces {
    network: File,
    mount: File,
    ipc: File,
    uts: File,
}

impl Namespaces {
    /// Makes them: `lo` is up, mounts propagate inside and not to the machine.
    pub fn new(hostname: &str) -> anyhow::Result<Self> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| Self::make(hostname))
                .join()
                .map_err(|_| anyhow!("thread panicked"))?
        })
    }

    fn make(hostname: &str) -> anyhow::Result<Self> {
        let flags = CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        unshare(flags).context("make namespaces for a node (tests run as root)")?;
        for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            mount(
                None::<&str>,
                "/",
                None::<&str>,
                MsFlags::MS_REC | propagation,
                None::<&str>,
            )
            .context("set the propagation of the node's mounts")?;
        }
        nix::unistd::sethostname(hostname).context("name the node")?;
        let status = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        ensure!(
            status.context("run ip")?.success(),
            "ip link set lo up failed"
        );
        Ok(Self {
            network: own("net")?,
            mount: own("mnt")?,
            ipc: own("ipc")?,
            uts: own("uts")?,
        })
    }

    /// Runs `work` on a thread inside; processes it starts stay inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    // A thread that shares its working directory cannot change mounts.
                    unshare(CloneFlags::CLONE_FS).context("leave the shared directory state")?;
                    for (file, flag) in [
                        (&self.network, CloneFlags::CLONE_NEWNET),
                        (&self.ipc, CloneFlags::CLONE_NEWIPC),
                        (&self.uts, CloneFlags::CLONE_NEWUTS),
                        (&self.mount, CloneFlags::CLONE_NEWNS),
                    ] {
                        setns(file, flag).context("enter the node's namespaces")?;
                    }
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Descriptor of the network namespace, to hand a link to.
    pub fn network(&self) -> &File {
        &self.network
    }

    /// Kills every process in the network namespace, for what has no cgroup of ours.
    pub fn end_processes(&self) {
        let Ok(network) = self.network_inode() else {
            return;
        };
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in processes {
            let namespace = std::fs::metadata(entry.path().join("ns/net"));
            let inside = namespace.is_ok_and(|found| found.ino() == network);
            if let (true, Ok(pid)) = (inside, entry.file_name().to_string_lossy().parse()) {
                // Gone already is as good.
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }

    /// Inode number of the network namespace, as `/proc/PID/ns/net` shows it.
    pub(crate) fn network_inode(&self) -> anyhow::Result<u64> {
        Ok(self
            .network
            .metadata()
            .context("look at the network namespace")?
            .ino())
    }
}

fn own(kind: &str) -> anyhow::Result<File> {
    let path = format!("/proc/thread-self/ns/{kind}");
    File::open(&path).with_context(|| format!("open {path}"))
}

#[cfg(test)]
mod tests {
    use super::Namespaces;

    #[test]
    fn what_is_done_inside_stays_inside() {
        let node = Namespaces::new("a-node").unwrap();
        let (name, links, mounts) = node
            .enter(|| {
                nix::mount::mount(
                    Some("none"),
                    "/mnt",
                    Some("tmpfs"),
                    nix::mount::MsFlags::empty(),
                    None::<&str>,
                )
                .unwrap();
                let links = std::process::Command::new("ip")
                    .args(["-br", "link"])
                    .output()
                    .unwrap();
                let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                (nix::unistd::gethostname().unwrap(), links.stdout, mounts)
            })
            .unwrap();
        assert_eq!(name, "a-node");
        assert_eq!(String::from_utf8(links).unwrap().lines().count(), 1);
        assert!(mounts.contains(" /mnt "));
        let ours = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!ours.contains(" /mnt "));
    }
}
