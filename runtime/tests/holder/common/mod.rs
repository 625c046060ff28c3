//! A pod's daemon, in small: starts the holder and talks to it.

mod cgroup;
mod client;
mod image;

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use carpel_proto::holder::request::Call;
use carpel_proto::holder::{
    ContainerState, CreateContainer, DeleteContainer, Exec, Setup, Signal, SignalExec,
    StartContainer,
};
use carpel_sys::{memfd, seqpacket};
use serde_json::{Value, json};

pub(crate) use cgroup::Group;
pub(crate) use client::{Answer, Client, Refused};

/// Longest wait for anything; none of it takes that long but on a stalled machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A holder and the connection to it; both end with it, and all processes.
pub(crate) struct Pod {
    pub(crate) holder: Child,
    pub(crate) daemon: Client,
    pub(crate) group: Group,
    pub(crate) dir: PathBuf,
}

/// What a test changes about a plain container.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) spec: Option<Value>,
    pub(crate) stdin: bool,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Pod {
    /// A holder that has not been set up.
    pub(crate) fn unborn() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("carpel-holder-test-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir(&dir).unwrap();
        let listener = seqpacket::listen(dir.join("sock"), 4).unwrap();
        let holder = Command::new(env!("CARGO_BIN_EXE_carpel-holder"))
            .stdin(Stdio::from(listener))
            .spawn()
            .unwrap();
        let daemon = Client::connect(&dir.join("sock"));
        let group = Group::new(&name);
        Self {
            holder,
            daemon,
            group,
            dir,
        }
    }

    pub(crate) fn new() -> Self {
        Self::with(&plain())
    }

    pub(crate) fn with(setup: &Setup) -> Self {
        let mut pod = Self::unborn();
        pod.daemon.call(Call::Setup(setup.clone()), &[]).unwrap();
        pod
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A new daemon beside or after the one before.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.dir.join("sock"))
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.log"))
    }

    /// Stream, tag and content of each log line.
    pub(crate) fn log(&self, id: &str) -> Vec<String> {
        read_log(&self.log_path(id))
    }

    /// Makes a container that runs a shell script.
    pub(crate) fn create(&mut self, id: &str, script: &str) -> i32 {
        self.create_with(id, script, &Extra::default()).unwrap()
    }

    pub(crate) fn create_with(
        &mut self,
        id: &str,
        script: &str,
        extra: &Extra,
    ) -> Result<i32, Refused> {
        let request = self.send_create(id, script, extra);
        match self.daemon.answer(request)? {
            (Answer::Created(created), _) => Ok(created.pid),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a container and returns the request's number.
    pub(crate) fn send_create(&mut self, id: &str, script: &str, extra: &Extra) -> u64 {
        let spec = extra.spec.clone().unwrap_or_else(|| spec(script));
        let fds = [
            memfd::sealed("spec", spec.to_string().as_bytes()).unwrap(),
            image::mount(),
            open_log(&self.log_path(id)),
            self.group.procs_of(id),
        ];
        let call = CreateContainer {
            container_id: id.into(),
            spec_fd: 0,
            rootfs_fd: 1,
            log_fd: Some(2),
            cgroup_procs_fd: vec![3],
            stdin: extra.stdin,
            ..CreateContainer::default()
        };
        self.daemon.send(Some(Call::Create(call)), &fds)
    }

    pub(crate) fn start(&mut self, id: &str) -> Result<i64, Refused> {
        let call = StartContainer {
            container_id: id.into(),
            oci: None,
        };
        match self.daemon.call(Call::Start(call), &[])? {
            (Answer::Started(started), _) => Ok(started.started_at_ns),
            other => panic!("{other:?}"),
        }
    }

    /// Runs a container to its end.
    pub(crate) fn run(&mut self, id: &str, script: &str) -> ContainerState {
        self.create(id, script);
        self.start(id).unwrap();
        self.daemon.container_exit(id)
    }

    /// Runs a container until it has said a word.
    pub(crate) fn run_until(&mut self, id: &str, script: &str, word: &str) -> i32 {
        let pid = self.create(id, script);
        self.start(id).unwrap();
        self.wait_log(id, word);
        pid
    }

    pub(crate) fn wait_log(&self, id: &str, word: &str) {
        wait(&format!("{word:?} in the log"), || {
            let lines = self.log(id);
            lines.iter().any(|line| line.contains(word)).then_some(())
        });
    }

    /// Starts a command whose output is the returned file.
    pub(crate) fn exec(&mut self, id: &str, exec: &str, script: &str) -> Result<File, Refused> {
        self.exec_in(id, exec, script, None, false)
    }

    pub(crate) fn exec_in(
        &mut self,
        id: &str,
        exec: &str,
        script: &str,
        group: Option<&Group>,
        kill_on_disconnect: bool,
    ) -> Result<File, Refused> {
        let process = spec(script)["process"].to_string();
        let (output, inside) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let mut fds = vec![
            memfd::sealed("process", process.as_bytes()).unwrap(),
            inside,
        ];
        fds.extend(group.map(Group::procs));
        let call = Exec {
            container_id: id.into(),
            exec_id: exec.into(),
            process_fd: 0,
            stdout_fd: Some(1),
            cgroup_procs_fd: group.map(|_| 2).into_iter().collect(),
            kill_on_disconnect,
            ..Exec::default()
        };
        self.daemon.call(Call::Exec(call), &fds)?;
        Ok(File::from(output))
    }

    pub(crate) fn delete(&mut self, id: &str) {
        let call = DeleteContainer {
            container_id: id.into(),
        };
        self.daemon.call(Call::Delete(call), &[]).unwrap();
    }

    pub(crate) fn signal(&mut self, id: &str, signal: i32, all: bool) -> Result<(), Refused> {
        let call = Signal {
            container_id: id.into(),
            signal,
            all,
        };
        self.daemon.call(Call::Signal(call), &[]).map(drop)
    }

    pub(crate) fn signal_exec(&mut self, exec: &str, signal: i32) {
        let call = SignalExec {
            exec_id: exec.into(),
            signal,
        };
        self.daemon.call(Call::SignalExec(call), &[]).unwrap();
    }

    /// Descriptors that the holder has open when it has done with all requests.
    pub(crate) fn open_files(&mut self) -> usize {
        let id = self.daemon.send(None, &[]);
        self.daemon.answer(id).unwrap_err();
        let dir = format!("/proc/{}/fd", self.pid());
        fs::read_dir(dir).unwrap().count()
    }

    /// Ends the pod as the daemon does.
    pub(crate) fn shutdown(&mut self) -> ExitStatus {
        let call = Call::Shutdown(carpel_proto::holder::Shutdown {});
        self.daemon.call(call, &[]).unwrap();
        self.ended()
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait("the holder's end", || self.holder.try_wait().unwrap())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
        self.group.kill();
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Namespaces of its own, and a shared memory.
pub(crate) fn plain() -> Setup {
    Setup {
        pod_id: "pod".into(),
        network: true,
        ipc: true,
        uts: true,
        hostname: "test-pod".into(),
        shm_size: 1 << 20,
        ..Setup::default()
    }
}

/// The configuration of a container that runs a shell script.
pub(crate) fn spec(script: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
        ],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
    })
}

pub(crate) fn open_log(path: &Path) -> OwnedFd {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(path).unwrap().into()
}

/// The lines of a log without their times, which are checked.
pub(crate) fn read_log(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    // A line may be half written while it is read.
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    let lines = text[..end].lines().map(|line| {
        let (time, rest) = line.split_at(31);
        assert!(time.ends_with("Z "), "{line}");
        rest.to_owned()
    });
    lines.collect()
}

/// Looks until there is something, or fails saying what was waited for.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}
