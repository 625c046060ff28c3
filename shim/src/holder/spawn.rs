//! Starts the holder of a new pod.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use carpel_sys::seqpacket;
use rustix::fs::{Mode, OFlags};

use super::image::HolderImage;
use crate::error::Error;

/// Name of the control socket in the pod's run directory.
pub(super) const SOCKET: &str = "holder.sock";

/// One daemon, and its successor.
const BACKLOG: i32 = 4;

/// Starts a holder that listens on `holder.sock` in `dir`, and gives its pid.
///
/// It is in a session of its own soon after and outlives the daemon; while the
/// daemon lives, a task waits for it so that it leaves no zombie.
pub(crate) fn spawn(image: &HolderImage, dir: &Path) -> Result<i32, Error> {
    let listener = listen(dir)?;
    let errors = open_log(&dir.join("holder.log"))?;
    let mut child = tokio::process::Command::new(image.path())
        .arg0("carpel-holder")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::from(errors))
        .spawn()
        .map_err(Error::io("start the pod's holder"))?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .unwrap_or(0);
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) => tracing::debug!(pid, %status, "holder ended"),
            Err(error) => tracing::warn!(pid, %error, "cannot wait for holder"),
        }
    });
    Ok(pid)
}

fn open_log(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::io(format!("open {}", path.display())))
}

/// Binds below the directory's descriptor: a unix socket path is short, a run
/// directory may be deep.
fn listen(dir: &Path) -> Result<OwnedFd, Error> {
    let failed = |what: &str| Error::io(format!("{what} {}/{SOCKET}", dir.display()));
    let dir_fd = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("open the directory of")(e.into()))?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir_fd.as_raw_fd());
    seqpacket::listen(path, BACKLOG).map_err(failed("listen on"))
}
