//! A node of a test's own: namespaces, a registry, and the daemon under test.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroups::Cgroups;
use crate::client::Cri;
use crate::image::test_images;
use crate::leaks::{Snapshot, mount_points};
use crate::namespaces::Namespaces;
use crate::paths;
use crate::registry::Registry;
use crate::settings::{Places, Settings, to_toml};

const READY_WITHIN: Duration = Duration::from_secs(20);
const STOPS_WITHIN: Duration = Duration::from_secs(20);
const CLEAN_WITHIN: Duration = Duration::from_secs(10);

/// Ends with everything in it when dropped. A test that went well calls
/// [`Node::finish`], which also looks for leaks; without it the daemon's log is printed.
#[derive(Debug)]
pub struct Node {
    cri: Cri,
    handler: String,
    registry: Registry,
    namespaces: Namespaces,
    cgroup: String,
    cgroups: Cgroups,
    places: Places,
    daemon: Mutex<Option<Child>>,
    empty: Snapshot,
    before: Mutex<Snapshot>,
    finished: bool,
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Node {
    /// A node with the daemon serving and the images pulled.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let (daemon, holder) = (paths::binary("carpeld")?, paths::binary("carpel-holder")?);
        let directory = paths::scratch()?;
        let name = directory
            .path()
            .file_name()
            .context("a scratch folder has a name")?;
        let cgroup = match settings.systemd {
            // A dash is a level in the name of a slice.
            Some(_) => format!("carpelt{}.slice", name.to_string_lossy().replace('-', "_")),
            None => format!("carpel-t-{}", name.to_string_lossy()),
        };
        let places = Places::new(directory.path());
        let namespaces = Namespaces::new("carpel-node")?;
        let listener = namespaces.enter(|| TcpListener::bind("127.0.0.1:0"))??;
        let registry = Registry::start(listener, test_images()?)?;
        std::fs::write(
            &places.config,
            to_toml(&settings, &places, &holder, &cgroup, &registry.host()),
        )?;
        let cgroups = Cgroups::new(&cgroup)?;
        let empty = Snapshot::take(&namespaces, &cgroups, &[], None)?;
        let node = Self {
            cri: Cri::with_handler(&places.socket, &settings.handler),
            handler: settings.handler.clone(),
            registry,
            namespaces,
            cgroup: format!("/{cgroup}"),
            cgroups,
            places,
            daemon: Mutex::new(None),
            empty,
            before: Mutex::new(Snapshot::default()),
            finished: false,
            directory,
            environment: settings.environment.clone(),
        };
        node.spawn(&daemon, &[])?;
        node.ready().await?;
        for image in &settings.images {
            node.cri
                .pull(image)
                .await
                .with_context(|| format!("pull {image}"))?;
        }
        node.warm_up().await?;
        node.rebase()?;
        Ok(node)
    }

    /// The bridge and the rules that all pods share come with the first pod.
    async fn warm_up(&self) -> anyhow::Result<()> {
        let id = self
            .cri
            .run_pod(&crate::spec::pod("first"))
            .await
            .context("run a first pod")?;
        self.cri.stop_pod(&id).await?;
        Ok(self.cri.remove_pod(&id).await?)
    }

    /// A node with these images pulled.
    pub async fn with(images: &[&str]) -> anyhow::Result<Self> {
        Self::start(Settings::default().images(images)).await
    }

    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// Runtime handler of the pods made through [`Node::cri`]; empty is the default.
    pub fn handler(&self) -> &str {
        &self.handler
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    pub fn socket(&self) -> &Path {
        &self.places.socket
    }

    pub fn admin_socket(&self) -> &Path {
        &self.places.admin
    }

    /// Writes a drop-in file of the configuration; it counts from the next start or
    /// reload on.
    pub fn drop_in(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let folder = self.places.config.with_extension("d");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.daemon_pid().context("the daemon does not run")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal).context("signal the daemon")
    }

    /// The node's own cgroup in each hierarchy that has it.
    pub fn cgroup_folders(&self) -> Vec<PathBuf> {
        self.cgroups.own()
    }

    /// Run directory of the daemon.
    pub fn run_dir(&self) -> &Path {
        &self.places.run
    }

    /// State root of the daemon.
    pub fn root(&self) -> &Path {
        &self.places.root
    }

    /// The node's own cgroup, as a `cgroup_parent` begins.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// What a file of a group below the node's own says.
    pub fn cgroup_text(&self, relative: &str, name: &str) -> anyhow::Result<String> {
        let file = self.cgroups.file(relative, name);
        let file = file.with_context(|| format!("{relative} has no {name}"))?;
        Ok(std::fs::read_to_string(file)?.trim().to_owned())
    }

    /// Sets a limit of a group below the node's own.
    pub fn cgroup_set(&self, relative: &str, name: &str, value: &str) -> anyhow::Result<()> {
        let file = self.cgroups.file(relative, name);
        let file = file.with_context(|| format!("{relative} has no {name}"))?;
        std::fs::write(&file, value).with_context(|| format!("write {}", file.display()))
    }

    /// Makes a group in every hierarchy; what is made is to be removed again.
    pub fn cgroup_make(&self, relative: &str) -> anyhow::Result<Vec<PathBuf>> {
        self.cgroups.make(relative)
    }

    /// Removes what [`Node::cgroup_make`] made.
    pub fn cgroup_remove(&self, directories: &[PathBuf]) -> anyhow::Result<()> {
        for directory in directories {
            std::fs::remove_dir(directory)
                .with_context(|| format!("remove {}", directory.display()))?;
            if let Some(above) = directory.parent() {
                // Where the daemon's pods are too, it is in use.
                std::fs::remove_dir(above).ok();
            }
        }
        Ok(())
    }

    /// A directory of specifications of devices, see [`Settings::cdi_directories`].
    pub fn cdi_directory(&self, number: usize) -> PathBuf {
        self.places.cdi.join(number.to_string())
    }

    /// All that the daemon has logged.
    pub fn log(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(&self.places.log).context("read the daemon's log")
    }

    /// File of the daemon's configuration, which it reads when it starts.
    pub fn config(&self) -> &Path {
        &self.places.config
    }

    /// Where sockets and what else lives no longer than the machine are.
    pub fn run_root(&self) -> &Path {
        &self.places.run
    }

    /// A folder on the node for the test's own files; made if needed.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.path().join("test").join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Runs `work` inside the node.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        self.namespaces.enter(work)
    }

    /// Runs a program inside the node, to its end.
    pub fn command(&self, command: &mut Command) -> anyhow::Result<Output> {
        let output = self.inside(|| command.output())?;
        output.with_context(|| format!("run {command:?}"))
    }

    /// Standard output of a program that must end well.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        text_of(&self.command(Command::new(program).args(arguments))?)
            .with_context(|| format!("{program} {arguments:?}"))
    }

    /// Fetches a page over HTTP/1.0 from inside the node.
    pub fn get(&self, address: &str) -> anyhow::Result<String> {
        self.inside(|| {
            let mut stream = connect(address)?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply)
        })?
    }

    /// Sends bytes to an echo server over TCP and returns what comes back.
    pub fn echo_tcp(&self, address: &str, text: &str) -> anyhow::Result<String> {
        self.inside(|| {
            let mut stream = connect(address)?;
            stream.write_all(text.as_bytes())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply)
        })?
    }

    /// The same over UDP, with one datagram.
    pub fn echo_udp(&self, address: &str, text: &str) -> anyhow::Result<String> {
        self.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            socket.connect(address)?;
            socket.send(text.as_bytes())?;
            let mut buffer = [0; 2048];
            let got = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..got]).into_owned())
        })?
    }

    /// Takes what stands here now as what may stay.
    pub fn rebase(&self) -> anyhow::Result<()> {
        *lock(&self.before) = self.snapshot()?;
        Ok(())
    }

    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let folders: [&Path; 2] = [&self.places.root, &self.places.run];
        Snapshot::take(&self.namespaces, &self.cgroups, &folders, self.daemon_pid())
    }

    /// Mount points as the daemon sees them.
    pub fn mounts(&self) -> anyhow::Result<std::collections::BTreeSet<String>> {
        let table = self.inside(|| std::fs::read_to_string("/proc/thread-self/mountinfo"))?;
        Ok(mount_points(&table?))
    }

    pub fn daemon_pid(&self) -> Option<u32> {
        lock(&self.daemon).as_ref().map(Child::id)
    }

    /// Waits until the daemon answers.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let end = Instant::now() + READY_WITHIN;
        loop {
            match self.cri.version().await {
                Ok(_) => return Ok(()),
                Err(status) if Instant::now() > end => {
                    bail!("the daemon does not answer in {READY_WITHIN:?}: {status}")
                }
                Err(_) => {}
            }
            if let Some(child) = lock(&self.daemon).as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("the daemon ended with {status}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the daemon without warning.
    pub fn kill(&self) -> anyhow::Result<()> {
        let mut child = lock(&self.daemon)
            .take()
            .context("the daemon does not run")?;
        child.kill().context("kill the daemon")?;
        child.wait().context("wait for the daemon")?;
        Ok(())
    }

    /// Starts the daemon again after [`Node::kill`] or [`Node::stop`].
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.launch(&[])?;
        self.ready().await
    }

    /// The same with these variables in its environment, and without waiting for it.
    pub fn launch(&self, environment: &[(&str, &str)]) -> anyhow::Result<()> {
        self.spawn(&paths::binary("carpeld")?, environment)
    }

    /// Whether the daemon has ended by itself.
    pub fn has_died(&self) -> anyhow::Result<bool> {
        match lock(&self.daemon).as_mut() {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Asks the daemon to end, which it must do in time and with success.
    pub fn stop(&self) -> anyhow::Result<()> {
        let mut child = lock(&self.daemon)
            .take()
            .context("the daemon does not run")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        kill(pid, Signal::SIGTERM).context("signal the daemon")?;
        let end = Instant::now() + STOPS_WITHIN;
        while Instant::now() < end {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "the daemon ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill()?;
        child.wait()?;
        bail!("the daemon did not end within {STOPS_WITHIN:?} of SIGTERM")
    }

    /// Ends a test: removes every pod, then looks that nothing of them is left, then
    /// stops the daemon and looks that nothing of it is left.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        for pod in self.cri.list_pods(None).await? {
            self.cri.stop_pod(&pod.id).await?;
            self.cri.remove_pod(&pod.id).await?;
        }
        self.assert_clean().await?;
        self.stop()?;
        let mut cleanup = Command::new(paths::binary("carpeld")?);
        let cleanup = cleanup
            .arg("--config")
            .arg(&self.places.config)
            .arg("cleanup");
        text_of(&self.command(cleanup)?).context("carpeld cleanup")?;
        let after = Snapshot::take(&self.namespaces, &self.cgroups, &[], None)?;
        let left = after.beyond(&self.empty);
        ensure!(left.is_empty(), "left behind after cleanup: {left:#?}");
        let cgroups = self.cgroups.directories();
        ensure!(
            cgroups.is_empty(),
            "cgroups left behind after cleanup: {cgroups:#?}"
        );
        self.finished = true;
        Ok(())
    }

    /// Fails if anything stands here that did not before the first pod.
    pub async fn assert_clean(&self) -> anyhow::Result<()> {
        let end = Instant::now() + CLEAN_WITHIN;
        loop {
            let left = self.snapshot()?.beyond(&lock(&self.before));
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "left behind: {left:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn spawn(&self, daemon: &Path, environment: &[(&str, &str)]) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.places.log)?;
        let mut command = Command::new(daemon);
        command
            .arg("--config")
            .arg(&self.places.config)
            .envs(self.environment.iter().cloned())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self
            .inside(|| command.spawn())?
            .context("start the daemon")?;
        *lock(&self.daemon) = Some(child);
        Ok(())
    }

    fn print_log(&self) {
        let log = std::fs::read_to_string(&self.places.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(150)..];
        eprintln!(
            "--- daemon log, last {} lines ---\n{}\n---",
            last.len(),
            last.join("\n")
        );
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let running = lock(&self.daemon).take();
        if let Some(mut child) = running {
            child.kill().ok();
            child.wait().ok();
        }
        if !self.finished {
            self.print_log();
        }
        if let Ok(left) = Snapshot::take(&self.namespaces, &self.cgroups, &[], None) {
            for pid in left
                .processes
                .iter()
                .filter_map(|line| line.split(' ').next())
            {
                if let Ok(pid) = pid.parse() {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
                }
            }
        }
        self.cgroups.remove();
    }
}

/// Standard output of a program that ended well; an error with all it said otherwise.
pub fn text_of(output: &Output) -> anyhow::Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let signal = output.status.signal();
    Err(anyhow!(
        "{} (signal {signal:?}): {stdout}{stderr}",
        output.status
    ))
}

fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let address: SocketAddr = address
        .parse()
        .with_context(|| format!("address {address}"))?;
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))
        .with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
