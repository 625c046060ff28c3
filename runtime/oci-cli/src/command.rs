//! One execution of the runtime: bounded in time, and its own words as the error.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use carpel_sys::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};
use serde::Deserialize;

use crate::error::{Context, Error, Result};

/// Where a runtime may find the programs that it needs itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest log or output that is read.
const TEXT: u64 = 1 << 20;
/// Longest wait for the end of a runtime that was killed.
const DEATH: Duration = Duration::from_secs(1);

/// A runtime about to be executed.
#[derive(Debug)]
pub(crate) struct Command {
    inner: std::process::Command,
    /// `create`, as it stands in messages.
    verb: String,
    /// What the runtime logs in JSON.
    log: File,
    /// Its output, unless that is a container's.
    said: Option<File>,
}

/// One line of the log.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

impl Command {
    /// `log` must be a file that can be opened by that path in the mount namespace
    /// this process is in.
    pub(crate) fn new(
        binary: &Path,
        options: &[String],
        root: &Path,
        log: &Path,
        verb: &str,
    ) -> Result<Self> {
        let file = File::create(log).with(|| format!("make {}", log.display()))?;
        drop(file);
        let opened = File::open(log).with(|| format!("open {}", log.display()))?;
        let mut inner = std::process::Command::new(binary);
        inner
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            // So that it can be ended as a whole.
            .process_group(0)
            .args(options)
            .arg("--root")
            .arg(root)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json", verb]);
        Ok(Self {
            inner,
            verb: verb.to_owned(),
            log: opened,
            said: None,
        })
    }

    pub(crate) fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(arg);
        self
    }

    /// Gives it the streams of the process that it starts.
    pub(crate) fn streams(&mut self, stdio: crate::Stdio) -> &mut Self {
        self.inner
            .stdin(stdio.stdin)
            .stdout(stdio.stdout)
            .stderr(stdio.stderr);
        self
    }

    /// Keeps what it says, for [`Command::run`] to return or to explain with.
    pub(crate) fn quietly(&mut self) -> Result<&mut Self> {
        let file: OwnedFd = rustix::fs::memfd_create(c"runtime", MemfdFlags::CLOEXEC)
            .during("make a file for what the runtime says")?;
        let copy = || file.try_clone().during("copy a descriptor");
        self.inner
            .stdin(Stdio::null())
            .stdout(copy()?)
            .stderr(copy()?);
        self.said = Some(File::from(file));
        Ok(self)
    }

    /// Executes it, at most for `limit`, and gives what it said.
    pub(crate) fn run(mut self, limit: Duration) -> Result<String> {
        let binary = self.inner.get_program().to_string_lossy().into_owned();
        let mut child = self.inner.spawn().map_err(|error| Error::NoRuntime {
            binary: binary.clone(),
            why: format!("cannot be executed: {error}"),
        })?;
        // The streams are the child's alone from here on.
        self.inner
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = wait(&mut child, limit).with(|| format!("wait for {binary}"))?;
        let said = self.said.as_mut().map(|file| {
            drop(file.rewind());
            read(file)
        });
        let said = said.unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(said),
            Some(status) => Err(self.explain(&binary, status, &said)),
            None => Err(Error::Refused(format!(
                "{binary} {}: did not end within {limit:?} and was killed",
                self.verb
            ))),
        }
    }

    fn explain(&mut self, binary: &str, status: ExitStatus, said: &str) -> Error {
        let told = last_error(&read(&mut self.log)).or_else(|| {
            let last = said.lines().rfind(|line| !line.trim().is_empty());
            last.map(|line| line.trim().to_owned())
        });
        let verb = &self.verb;
        match told {
            Some(text) if is_about_the_program(&text) => Error::CannotExecute(text),
            Some(text) => Error::Refused(format!("{binary} {verb}: {text}")),
            None => {
                let how = match status.signal() {
                    Some(signal) => format!("was killed by signal {signal}"),
                    None => format!("ended with status {}", status.code().unwrap_or(-1)),
                };
                Error::Refused(format!("{binary} {verb}: {how} and said nothing"))
            }
        }
    }
}

/// The end of the child, or none if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // It is our child and not waited for, so the number is still its own.
    let process = pidfd::open(pid)?;
    if ends_within(&process, limit)? {
        return child.wait().map(Some);
    }
    if let Some(group) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    child.kill()?;
    if ends_within(&process, DEATH)? {
        child.wait()?;
    }
    Ok(None)
}

fn ends_within(process: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is as good as nothing said.
    drop(file.take(TEXT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The message of the last error in a log of one JSON object a line.
fn last_error(log: &str) -> Option<String> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic"))
        .map(|line| line.msg.trim().to_owned())
        .rfind(|text| !text.is_empty())
}

/// Runtimes tell in prose that the container's program is at fault.
fn is_about_the_program(text: &str) -> bool {
    text.contains("exec: \"")
        || text.contains("executable file")
        || text.contains("exec format error")
}
