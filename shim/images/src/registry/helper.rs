//! Credential helpers: programs that give the credentials of one server.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::config::KeychainConfig;
use super::failure::presentable;
use crate::engine::Credentials;

/// Longest answer.
const ANSWER_MAX: u64 = 64 << 10;
/// What helpers say of servers that they do not know.
const UNKNOWN: &str = "credentials not found";
/// In place of a user name, where the secret is a token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// A helper that runs. It and its children end with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = pid.and_then(Pid::from_raw) {
            // Fails only when all of it is gone.
            rustix::process::kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// Asks `docker-credential-<name>` for the credentials of `server`.
pub(super) async fn ask(
    config: &KeychainConfig,
    name: &str,
    server: &str,
) -> Result<Option<Credentials>, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(format!("{:?} is no name of a helper", presentable(name)));
    }
    let program = format!("docker-credential-{name}");
    let mut places = config.helper_dirs.iter().map(|dir| dir.join(&program));
    let Some(path) = places.find(|path| path.is_file()) else {
        return Err(format!("{program} is in none of images.helper_dirs"));
    };
    let limit = config.helper_timeout;
    match timeout(limit, run(&path, config, server)).await {
        Ok(Ok((status, out, err))) => judge(&program, status, &out, &err),
        Ok(Err(why)) => Err(format!("{program}: {why}")),
        Err(_) => Err(format!("{program} gave no answer within {limit:?}")),
    }
}

async fn run(
    path: &Path,
    config: &KeychainConfig,
    server: &str,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), String> {
    let search = std::env::join_paths(&config.helper_dirs).map_err(|error| error.to_string())?;
    let mut command = Command::new(path);
    command
        .arg("get")
        .env_clear()
        .env("PATH", search)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    let child = command.spawn();
    let mut running = Running(child.map_err(|error| format!("cannot be started: {error}"))?);
    let child = &mut running.0;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let asking = async {
        if let Some(mut stdin) = stdin {
            // One that does not read what it is asked may still know.
            stdin.write_all(format!("{server}\n").as_bytes()).await.ok();
        }
    };
    let ((), out, err) = tokio::join!(asking, all(stdout), all(stderr));
    let (out, err) = (out?, err?);
    let status = child.wait().await.map_err(|error| error.to_string())?;
    Ok((status, out, err))
}

async fn all(from: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let read = from.take(ANSWER_MAX + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| error.to_string())?;
    }
    if bytes.len() as u64 > ANSWER_MAX {
        return Err(format!("said more than {ANSWER_MAX} bytes"));
    }
    Ok(bytes)
}

fn judge(
    program: &str,
    status: ExitStatus,
    out: &[u8],
    err: &[u8],
) -> Result<Option<Credentials>, String> {
    if status.success() {
        // The answer itself is never told on.
        let answer: Answer = serde_json::from_slice(out)
            .map_err(|_| format!("{program}: its answer is no JSON with Username and Secret"))?;
        return Ok(Some(match answer.username.as_str() {
            TOKEN_USER => Credentials::IdentityToken(answer.secret),
            _ => Credentials::Basic {
                username: answer.username,
                password: answer.secret,
            },
        }));
    }
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    if out.to_ascii_lowercase().contains(UNKNOWN) {
        return Ok(None);
    }
    // Helpers put messages where answers go; one that may be an answer is not shown.
    let said = match err.trim() {
        "" if !out.contains('{') => out.trim(),
        err => err,
    };
    let first = presentable(said.lines().next().unwrap_or_default());
    Err(format!("{program}: {status}: {first}"))
}
