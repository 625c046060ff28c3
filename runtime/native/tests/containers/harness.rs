//! Plays the holder: namespaces of its own, an image, workers, and their containers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use carpel_native::{Cgroup, Create, CreatedProcess, Error, Exec, Stdio};
use carpel_sys::clone::{self, Ended, SingleThreaded};
use carpel_sys::descriptors;
use carpel_sys::mount::{self, Attr, Flags, Propagation, Upper};
use carpel_sys::namespace::{self, Kinds};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

/// The image that all cases start from; a tmpfs of the case's own covers `/tmp`.
pub(crate) const IMAGE: &str = "/tmp/image";

const APPLETS: &str = "awk cat chmod cut echo env false find grep head id kill ln ls mkdir mknod \
                       mount mv ps readlink rm sh sleep sort stat tail touch tr true ulimit wc";

/// Leaves the host's namespaces, so that nothing of a case outlives it.
pub(crate) fn become_holder() {
    namespace::unshare(Kinds::MOUNT | Kinds::NET | Kinds::IPC | Kinds::UTS).unwrap();
    let private = Attr::propagation(Propagation::Private);
    mount::set_attr_at(rustix::fs::CWD, Path::new("/"), &private, true).unwrap();
    let scratch = mount::tmpfs(None, 0o755, Flags::NONE).unwrap();
    mount::attach_at(scratch, rustix::fs::CWD, "/tmp").unwrap();
    nix_subreaper();
    build_image();
}

fn nix_subreaper() {
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me)).unwrap();
}

fn build_image() {
    let image = Path::new(IMAGE);
    for dir in ["bin", "etc", "tmp", "usr/bin"] {
        fs::create_dir_all(image.join(dir)).unwrap();
    }
    for file in needed() {
        let place = image.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&file, place).unwrap();
    }
    for applet in APPLETS.split_whitespace() {
        symlink("/bin/busybox", image.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n";
    fs::write(image.join("etc/passwd"), passwd).unwrap();
}

/// Busybox and the libraries that it is linked with.
fn needed() -> Vec<PathBuf> {
    let busybox = "/bin/busybox";
    let listed = std::process::Command::new("ldd")
        .arg(busybox)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    std::iter::once(busybox)
        .chain(libraries)
        .map(PathBuf::from)
        .collect()
}

/// A detached overlay over the image, as an image store would hand it over.
pub(crate) fn rootfs() -> OwnedFd {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let base = PathBuf::from(format!("/tmp/write-{number}"));
    let (dir, work, empty) = (base.join("upper"), base.join("work"), base.join("empty"));
    for made in [&dir, &work, &empty] {
        fs::create_dir_all(made).unwrap();
    }
    let upper = Upper {
        dir: &dir,
        work: &work,
        volatile: true,
    };
    mount::overlay(&[Path::new(IMAGE), &empty], Some(upper)).unwrap()
}

/// The mounts, hidden paths and rights that a container gets which asks for nothing.
pub(crate) fn config(args: &[&str]) -> Value {
    let quiet = ["nosuid", "noexec", "nodev"];
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/bin:/bin", "LANG=C"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": capabilities(&["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]),
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": quiet },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options":
              ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": quiet },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "cgroup" }],
            "maskedPaths": ["/proc/interrupts", "/proc/keys", "/proc/scsi", "/sys/firmware", "/proc/no"],
            "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/no"],
        },
    })
}

pub(crate) fn capabilities(names: &[&str]) -> Value {
    json!({ "bounding": names, "effective": names, "permitted": names })
}

/// What a case changes about a plain container.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) rootfs: Option<OwnedFd>,
    pub(crate) mounts: Vec<(usize, OwnedFd)>,
    pub(crate) seccomp: Option<Vec<u8>>,
    pub(crate) procs: Vec<OwnedFd>,
    pub(crate) cgroup_dir: Option<OwnedFd>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) input: Option<&'static str>,
}

/// A container whose first process waits.
pub(crate) struct Container {
    pub(crate) created: CreatedProcess,
    start: OwnedFd,
    outcome: File,
    output: File,
}

impl Container {
    pub(crate) fn start(self) -> Running {
        rustix::io::write(&self.start, b"!").unwrap();
        Running {
            pid: self.created.pid,
            outcome: self.outcome,
            output: self.output,
        }
    }

    /// Never lets it start.
    pub(crate) fn give_up(self) -> Running {
        Running {
            pid: self.created.pid,
            outcome: self.outcome,
            output: self.output,
        }
    }
}

pub(crate) struct Running {
    pub(crate) pid: i32,
    outcome: File,
    output: File,
}

impl Running {
    /// What became of the start.
    pub(crate) fn started(&mut self) -> Result<(), Error> {
        let mut bytes = Vec::new();
        self.outcome.read_to_end(&mut bytes).unwrap();
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(Error::decode(&bytes))
        }
    }

    /// A line of the output, while the container runs.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// The rest of the output, and how it ended.
    pub(crate) fn finish(mut self) -> (String, Ended) {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        (text, clone::wait(self.pid).unwrap())
    }

    pub(crate) fn kill(self) -> (String, Ended) {
        let pid = rustix::process::Pid::from_raw(self.pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        self.finish()
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

fn stdio(input: Option<&str>) -> (Stdio, File) {
    let (reader, writer) = pipe();
    let stdin = match input {
        None => File::open("/dev/null").unwrap().into(),
        Some(text) => {
            let (end, feed) = pipe();
            File::from(feed).write_all(text.as_bytes()).unwrap();
            end
        }
    };
    let stderr = writer.try_clone().unwrap();
    (
        Stdio {
            stdin,
            stdout: writer,
            stderr,
        },
        reader.into(),
    )
}

/// Runs `job` in a worker that has the given descriptors only.
fn work<const N: usize>(
    keep: &[BorrowedFd<'_>],
    job: impl FnOnce() -> Result<[i32; N], Error>,
) -> Result<[i32; N], Error> {
    let (reader, writer) = pipe();
    let mut kept = keep.to_vec();
    kept.push(writer.as_fd());
    let worker = clone::spawn(SingleThreaded::verify().unwrap(), Kinds::NONE, None, || {
        descriptors::close_all_but(&kept).unwrap();
        let answer = match job() {
            Ok(values) => [&b"+"[..], &values.map(i32::to_le_bytes).concat()].concat(),
            Err(error) => [&b"-"[..], &error.encode()].concat(),
        };
        rustix::io::write(&writer, &answer).unwrap();
        0
    })
    .unwrap();
    drop(writer);
    // One message: a container's first process holds the pipe until its program runs.
    let mut answer = [0; 4096];
    let length = File::from(reader).read(&mut answer).unwrap();
    let answer = &answer[..length];
    assert_eq!(clone::wait(worker).unwrap(), Ended::Exited(0));
    match answer.split_first().unwrap() {
        (b'+', values) => {
            let (values, _) = values.as_chunks::<4>();
            Ok(std::array::from_fn(|at| i32::from_le_bytes(values[at])))
        }
        (_, error) => Err(Error::decode(error)),
    }
}

pub(crate) fn try_create(config: Value, extra: Extra) -> Result<Container, Error> {
    let spec: Spec = serde_json::from_value(config).unwrap();
    let (stdio, output) = stdio(extra.input);
    let (start, go) = pipe();
    let (outcome, tell) = pipe();
    let request = Create {
        spec,
        rootfs: extra.rootfs.unwrap_or_else(rootfs),
        mounts: extra.mounts,
        stdio,
        seccomp: extra.seccomp,
        cgroup: Cgroup {
            procs: extra.procs,
            dir: extra.cgroup_dir,
        },
        start,
        outcome: tell,
        oom_score_adj: extra.oom_score_adj,
    };
    let Stdio {
        stdin,
        stdout,
        stderr,
    } = &request.stdio;
    let keep: Vec<BorrowedFd<'_>> = [
        &request.rootfs,
        stdin,
        stdout,
        stderr,
        &request.start,
        &request.outcome,
    ]
    .into_iter()
    .chain(request.mounts.iter().map(|(_, fd)| fd))
    .chain(request.cgroup.procs.iter().chain(&request.cgroup.dir))
    .map(AsFd::as_fd)
    .collect();
    let [pid, refused] = work(&keep, || {
        let created = carpel_native::create(&request)?;
        Ok([created.pid, i32::from(created.oom_score_adj_refused)])
    })?;
    let created = CreatedProcess {
        pid,
        oom_score_adj_refused: refused != 0,
    };
    Ok(Container {
        created,
        start: go,
        outcome: outcome.into(),
        output,
    })
}

pub(crate) fn create(config: Value, extra: Extra) -> Container {
    try_create(config, extra).unwrap()
}

/// Creates and starts.
pub(crate) fn start(config: Value, extra: Extra) -> Running {
    create(config, extra).start()
}

/// Runs to the end and returns the output; any other status than 0 is a failure.
pub(crate) fn output(config: Value, extra: Extra) -> String {
    let mut running = start(config, extra);
    running.started().unwrap();
    let (text, ended) = running.finish();
    assert_eq!(ended, Ended::Exited(0), "{text}");
    text
}

/// What a shell script prints in a plain container.
pub(crate) fn sh(script: &str) -> String {
    output(config(&["sh", "-c", script]), Extra::default())
}

/// Why a container cannot be made.
pub(crate) fn refusal(config: Value, extra: Extra) -> Error {
    match try_create(config, extra) {
        Ok(container) => panic!("created {}", container.created.pid),
        Err(error) => {
            assert_no_children();
            error
        }
    }
}

/// Nothing that failed leaves a process behind.
pub(crate) fn assert_no_children() {
    let any = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    assert_eq!(any.unwrap_err(), rustix::io::Errno::CHILD);
}

/// A process beside a container's first one, made as the configuration's `process` says.
pub(crate) fn try_exec(
    init: i32,
    process: &Value,
    seccomp: Option<Vec<u8>>,
    cgroup: Cgroup,
) -> Result<Running, Error> {
    let process: Process = serde_json::from_value(process.clone()).unwrap();
    let (stdio, output) = stdio(None);
    let init = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(init).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    let request = Exec {
        init: init.as_fd(),
        process,
        stdio,
        seccomp,
        cgroup,
    };
    let Stdio {
        stdin,
        stdout,
        stderr,
    } = &request.stdio;
    let keep: Vec<BorrowedFd<'_>> = [&init, stdin, stdout, stderr]
        .into_iter()
        .chain(request.cgroup.procs.iter().chain(&request.cgroup.dir))
        .map(AsFd::as_fd)
        .collect();
    let [pid] = work(&keep, || Ok([carpel_native::exec(&request)?]))?;
    let (outcome, _) = pipe();
    Ok(Running {
        pid,
        outcome: outcome.into(),
        output,
    })
}

/// What a shell script prints that is executed in a container.
pub(crate) fn exec_sh(init: i32, script: &str) -> String {
    let mut process = config(&["sh", "-c", script])["process"].take();
    exec_output(init, &mut process)
}

pub(crate) fn exec_output(init: i32, process: &mut Value) -> String {
    let (text, ended) = try_exec(init, process, None, Cgroup::default())
        .unwrap()
        .finish();
    assert_eq!(ended, Ended::Exited(0), "{text}");
    text
}

/// A container that does nothing until it is killed.
pub(crate) fn sleeper() -> Running {
    let mut running = start(
        config(&["sh", "-c", "echo up; sleep 600"]),
        Extra::default(),
    );
    assert_eq!(running.line(), "up");
    running
}

/// A filter that lets one system call fail with EXDEV.
pub(crate) fn filter_without(call: u32) -> Vec<u8> {
    const FAIL: u32 = 0x0005_0000 | 18;
    const ALLOW: u32 = 0x7fff_0000;
    let one = |code: u16, jt: u8, jf: u8, k: u32| {
        [&code.to_ne_bytes()[..], &[jt, jf], &k.to_ne_bytes()].concat()
    };
    [
        one(0x20, 0, 0, 0),
        one(0x15, 0, 1, call),
        one(0x06, 0, 0, FAIL),
        one(0x06, 0, 0, ALLOW),
    ]
    .concat()
}
