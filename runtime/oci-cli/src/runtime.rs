//! A runtime as it is configured, and the calls that need no bundle.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::MemfdFlags;

use crate::command::Command;
use crate::error::{Context, Error, Result};
use crate::features::{self, Features};

/// Longest deletion of a container, whose processes may take their time to end.
const DELETE: Duration = Duration::from_secs(20);
const FEATURES: Duration = Duration::from_secs(5);

/// A command line that makes containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Absolute path of the program.
    pub binary: PathBuf,
    /// Where it keeps its state.
    pub root: PathBuf,
    /// Options that come before all others.
    pub args: Vec<String>,
}

impl Runtime {
    /// Its call `verb`; `log` is a path that it can open and we can read.
    pub(crate) fn command(&self, log: &Path, verb: &str) -> Result<Command> {
        if !self.binary.is_absolute() {
            return Err(Error::Invalid(format!(
                "runtime binary {:?} is not absolute",
                self.binary
            )));
        }
        Command::new(&self.binary, &self.args, &self.root, log, verb)
    }

    /// Makes the folder of its state, which is nobody else's business.
    pub fn make_root(&self) -> Result<()> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root);
        made.with(|| format!("create {}", self.root.display()))
    }

    /// Kills what runs of the container and forgets it. One that the runtime does
    /// not know is no error.
    pub fn delete(&self, id: &str) -> Result<()> {
        if !self.root.join(id).exists() {
            return Ok(());
        }
        self.plain("delete", DELETE, |command| {
            command.arg("--force").arg(id);
        })
        .map(drop)
    }

    /// What it says that it can do.
    pub fn features(&self) -> Result<Features> {
        let text = self.plain("features", FEATURES, |_| {})?;
        features::parse(&text).map_err(|why| Error::NoRuntime {
            binary: self.binary.display().to_string(),
            why: format!("its features make no sense: {why}"),
        })
    }

    /// A call whose output is ours; returns that.
    fn plain(&self, verb: &str, limit: Duration, add: impl FnOnce(&mut Command)) -> Result<String> {
        let made = "make a file for the runtime's log";
        let log = rustix::fs::memfd_create(c"runtime-log", MemfdFlags::CLOEXEC).during(made)?;
        // Open in this process for as long as the runtime runs.
        let own = std::os::fd::AsRawFd::as_raw_fd(&log);
        let path = PathBuf::from(format!("/proc/{}/fd/{own}", std::process::id()));
        let mut command = self.command(&path, verb)?;
        command.quietly()?;
        add(&mut command);
        command.run(limit)
    }
}

/// Ids of the containers that a runtime keeps state of in `root`.
pub fn containers(root: &Path) -> Result<Vec<String>> {
    let failed = || format!("list {}", root.display());
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with(failed)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.with(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            ids.push(name);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime that is a shell script; `$LOG` is its log, `$VERB` what it shall do.
    fn fake(folder: &Path, script: &str) -> Runtime {
        let path = folder.join("fake");
        let head = "while [ $# -gt 0 ]; do case $1 in\n\
            --root|--log-format) shift 2;; --log) LOG=$2; shift 2;; --opt) shift;;\n\
            *) break;; esac; done\nVERB=$1; shift\n";
        fs::write(&path, format!("{head}{script}\n")).unwrap();
        let root = folder.join("state");
        fs::create_dir_all(root.join("c1")).unwrap();
        Runtime {
            // Executed itself, it might still be open for writing in a process that
            // another test is just starting.
            binary: "/bin/sh".into(),
            root,
            args: vec![path.display().to_string(), "--opt".to_owned()],
        }
    }

    fn told(script: &str) -> Error {
        let folder = tempfile::tempdir().unwrap();
        fake(folder.path(), script).delete("c1").unwrap_err()
    }

    #[test]
    fn what_it_logs_is_the_error() {
        let error = told(
            r#"echo '{"level":"warning","msg":"careful"}' >> $LOG
               echo '{"level":"error","msg":"no such disk"}' >> $LOG
               echo noise >&2; exit 1"#,
        );
        let text = error.to_string();
        assert!(text.ends_with("/bin/sh delete: no such disk"), "{text}");
        assert!(matches!(error, Error::Refused(_)));
    }

    #[test]
    fn without_a_log_its_last_line_is_the_error() {
        let text = told("echo first; echo 'it is broken' >&2; exit 3").to_string();
        assert!(text.ends_with("/bin/sh delete: it is broken"), "{text}");
    }

    #[test]
    fn one_that_says_nothing_is_told_by_its_end() {
        let text = told("exit 9").to_string();
        assert!(
            text.ends_with("ended with status 9 and said nothing"),
            "{text}"
        );
        let text = told("kill -SEGV $$").to_string();
        assert!(text.contains("was killed by signal 11"), "{text}");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_apart() {
        let error = told(
            r#"echo '{"level":"error","msg":"exec: \"/no\": no such file or directory"}' >> $LOG
               exit 1"#,
        );
        assert!(matches!(error, Error::CannotExecute(_)), "{error}");
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let runtime = fake(folder.path(), &script);
        let error = runtime
            .plain("delete", Duration::from_millis(300), |_| {})
            .unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        let pid = fs::read_to_string(pid_file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = || fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while !gone() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone(), "the runtime's child still runs");
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let runtime = Runtime {
            binary: "/no/such/runtime".into(),
            root: "/tmp".into(),
            args: Vec::new(),
        };
        let error = runtime.features().unwrap_err();
        assert!(matches!(error, Error::NoRuntime { .. }), "{error}");
        assert!(error.to_string().contains("/no/such/runtime"), "{error}");
    }

    #[test]
    fn an_unknown_container_is_deleted_already() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = fake(folder.path(), "exit 1");
        assert_eq!(containers(&runtime.root).unwrap(), ["c1"]);
        runtime.delete("c2").unwrap();
        runtime.delete("c1").unwrap_err();
    }

    #[test]
    fn its_features_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"echo '{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"]}'"#;
        let features = fake(folder.path(), script).features().unwrap();
        assert!(features.recursive_read_only_mounts);
        let error = fake(folder.path(), "echo no").features().unwrap_err();
        assert!(error.to_string().contains("make no sense"), "{error}");
    }
}
