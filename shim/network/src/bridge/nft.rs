//! Runs `nft`: one batch, wholly applied or not at all.
//!
//! A batch that is under way when the daemon is killed is still applied, a little
//! later. So each run holds a shared lock on the state directory, which it inherits
//! as its (unused) standard output; the next daemon waits for an exclusive one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::driver::Error;
use crate::error::context;

/// A batch takes milliseconds; this is for a machine in distress.
const PATIENCE: Duration = Duration::from_secs(60);
/// Looked in after PATH: daemons often run without the directories for root.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

#[derive(Debug)]
pub(super) struct Nft {
    program: PathBuf,
    state_dir: PathBuf,
}

impl Nft {
    pub(super) fn new(program: PathBuf, state_dir: PathBuf) -> Self {
        Self { program, state_dir }
    }

    /// Waits for batches that an earlier daemon left under way.
    pub(super) fn settle(&self) -> Result<(), Error> {
        let what = || {
            format!(
                "wait for nft to end, by a lock on {}",
                self.state_dir.display()
            )
        };
        let turn = File::open(&self.state_dir).map_err(context(what))?;
        let end = Instant::now() + PATIENCE;
        loop {
            match flock(&turn, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(context(what)(error.into())),
            }
        }
    }

    /// Where the program is, if it is.
    pub(super) fn find(&self) -> Option<PathBuf> {
        if self.program.components().count() > 1 {
            return self.program.exists().then(|| self.program.clone());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
        directories
            .map(|dir| dir.join(&self.program))
            .find(|candidate| candidate.is_file())
    }

    /// Applies a batch in the calling thread's network namespace.
    pub(super) fn run(&self, batch: &str) -> Result<(), Error> {
        let program = self.find().ok_or_else(|| {
            Error::NotReady(format!("{} is not installed", self.program.display()))
        })?;
        let what = || format!("run {}", program.display());
        let turn = File::open(&self.state_dir).map_err(context(what))?;
        flock(&turn, FlockOperation::LockShared).map_err(|e| context(what)(e.into()))?;
        let mut child = spawn(&program, turn).map_err(context(what))?;
        // It may end before it has read all: its status and message tell more.
        let written = child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(batch.as_bytes()));
        let status = wait(&mut child).map_err(context(what))?;
        if status.success() {
            return written.unwrap_or(Ok(())).map_err(context(what));
        }
        let mut message = String::new();
        if let Some(stderr) = child.stderr.take() {
            // What can be read of it is better than nothing.
            drop(stderr.take(4096).read_to_string(&mut message));
        }
        let first = message.lines().next().unwrap_or("no message").to_owned();
        Err(context(what)(io::Error::other(format!(
            "{status}: {first}"
        ))))
    }
}

/// Longest listing that is read.
const LISTING_MAX: u64 = 16 << 20;

impl Nft {
    /// A set of a table of ours as JSON; `None` when there is no such set.
    pub(super) fn list_set(&self, table: &str, set: &str) -> Result<Option<String>, Error> {
        let program = self.find().ok_or_else(|| {
            Error::NotReady(format!("{} is not installed", self.program.display()))
        })?;
        let what = || format!("run {}", program.display());
        let mut child = Command::new(&program)
            .args(["-j", "list", "set", "inet", table, set])
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(context(what))?;
        let mut listing = String::new();
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(LISTING_MAX).read_to_string(&mut listing);
            read.map_err(context(what))?;
        }
        let status = wait(&mut child).map_err(context(what))?;
        Ok(status.success().then_some(listing))
    }
}

fn spawn(program: &Path, turn: File) -> io::Result<Child> {
    Command::new(program)
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(turn))
        .stderr(Stdio::piped())
        .spawn()
}

fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let patience = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ready = loop {
        match poll(&mut fds, Some(&patience)) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other,
        }
    };
    if !matches!(ready, Ok(1..)) {
        child.kill()?;
    }
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nft_in(dir: impl Into<PathBuf>) -> Nft {
        Nft::new("nft".into(), dir.into())
    }

    #[test]
    fn a_batch_under_way_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let turn = File::open(dir.path()).unwrap();
        flock(&turn, FlockOperation::LockShared).unwrap();
        let pause = Duration::from_millis(100);
        let mut orphan = Command::new("sleep")
            .arg("0.1")
            .stdout(Stdio::from(turn))
            .spawn()
            .unwrap();
        let begin = Instant::now();
        nft_in(dir.path()).settle().unwrap();
        assert!(begin.elapsed() >= pause / 2 && orphan.try_wait().is_ok());
        orphan.wait().unwrap();
    }

    #[test]
    fn a_missing_program_is_said_to_be_missing() {
        let nft = Nft::new("no-such-nft".into(), "/".into());
        assert!(nft.find().is_none());
        let error = nft.run("").unwrap_err();
        assert_eq!(
            error.to_string(),
            "pod network is not ready: no-such-nft is not installed"
        );
    }

    #[test]
    fn the_message_of_a_refused_batch_comes_back() {
        let Err(Error::Io { source, .. }) = nft_in("/").run("nonsense\n") else {
            panic!("nonsense was applied");
        };
        assert!(source.to_string().contains("syntax error"), "{source}");
    }
}
