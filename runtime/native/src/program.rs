//! The program of a process: what it is called with, where it is found.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use oci_spec::runtime::Process;

use crate::error::{Error, Result};
use crate::passwd;

/// Where to look when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to execute. All strings are ready for the kernel before anything is cloned.
#[derive(Debug)]
pub(crate) struct Program {
    args: Vec<CString>,
    env: Vec<CString>,
    pub(crate) cwd: PathBuf,
}

impl Program {
    pub(crate) fn new(process: &Process) -> Result<Self> {
        let args = strings("argument", process.args().as_deref().unwrap_or_default())?;
        if args.first().is_none_or(|name| name.is_empty()) {
            return Err(Error::Invalid("the process has no command".to_owned()));
        }
        let env = strings(
            "environment variable",
            process.env().as_deref().unwrap_or_default(),
        )?;
        let cwd = process.cwd().clone();
        if !cwd.is_absolute() || cwd.as_os_str().as_bytes().contains(&0) {
            return Err(Error::Invalid(format!(
                "working directory {cwd:?} is not absolute"
            )));
        }
        Ok(Self { args, env, cwd })
    }

    /// Adds `HOME` by the user database below `root`, if it is not set.
    pub(crate) fn complete(&mut self, root: BorrowedFd<'_>, uid: u32) {
        if self.variable(b"HOME").is_none() {
            let home = [b"HOME=", &passwd::home_of(root, uid)[..]].concat();
            self.env.extend(CString::new(home));
        }
    }

    fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.env.iter().find_map(|entry| {
            let rest = entry.to_bytes().strip_prefix(name)?;
            rest.strip_prefix(b"=")
        })
    }

    /// Becomes the program; returns only why it did not.
    pub(crate) fn execute(&self) -> Error {
        let name = &self.args[0];
        if name.to_bytes().contains(&b'/') {
            return self.explain(self.try_at(name.to_bytes()));
        }
        let mut worst = Errno::ENOENT;
        for dir in self
            .variable(b"PATH")
            .unwrap_or(DEFAULT_PATH)
            .split(|byte| *byte == b':')
        {
            let dir = if dir.is_empty() { b"." } else { dir };
            match self.try_at(&[dir, b"/", name.to_bytes()].concat()) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => worst = Errno::EACCES,
                other => return self.explain(other),
            }
        }
        match worst {
            Errno::ENOENT => Error::CannotExecute(format!(
                "exec: {:?}: executable file not found in $PATH",
                name.to_string_lossy()
            )),
            other => self.explain(other),
        }
    }

    fn try_at(&self, path: &[u8]) -> Errno {
        match CString::new(path) {
            Ok(path) => match nix::unistd::execve(&path, &self.args, &self.env) {
                Err(errno) => errno,
                Ok(never) => match never {},
            },
            Err(_) => Errno::EINVAL,
        }
    }

    fn explain(&self, errno: Errno) -> Error {
        let name = self.args[0].to_string_lossy();
        let here = || Path::new(&*name).exists();
        match errno {
            Errno::ENOENT if here() => Error::CannotExecute(format!(
                "exec: {name:?}: no such file or directory (its interpreter is missing)"
            )),
            Errno::ENOENT | Errno::ENOTDIR => {
                Error::CannotExecute(format!("exec: {name:?}: no such file or directory"))
            }
            Errno::EACCES | Errno::EPERM => {
                Error::CannotExecute(format!("exec: {name:?}: permission denied"))
            }
            Errno::ENOEXEC => Error::CannotExecute(format!("exec: {name:?}: exec format error")),
            other => {
                Error::CannotExecute(format!("exec: {name:?}: {}", std::io::Error::from(other)))
            }
        }
    }
}

fn strings(kind: &str, values: &[String]) -> Result<Vec<CString>> {
    let convert = |value: &String| {
        CString::new(value.as_bytes())
            .map_err(|_| Error::Invalid(format!("{kind} {value:?} contains a NUL")))
    };
    values.iter().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(args: &[&str], env: &[&str]) -> Process {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut process = Process::default();
        process.set_args(Some(own(args))).set_env(Some(own(env)));
        process
    }

    #[test]
    fn what_cannot_be_handed_over_is_refused() {
        for bad in [
            process(&[], &[]),
            process(&[""], &[]),
            process(&["a\0"], &[]),
            process(&["a"], &["A=\0"]),
        ] {
            assert!(matches!(Program::new(&bad), Err(Error::Invalid(_))));
        }
        let mut relative = process(&["a"], &[]);
        relative.set_cwd("tmp".into());
        assert!(matches!(Program::new(&relative), Err(Error::Invalid(_))));
    }

    #[test]
    fn variables_are_whole_names() {
        let program = Program::new(&process(&["a"], &["XHOME=1", "HOMER=2", "HOME=/h=x"])).unwrap();
        assert_eq!(program.variable(b"HOME"), Some(&b"/h=x"[..]));
        assert_eq!(program.variable(b"PATH"), None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let missing =
            Program::new(&process(&["no-such-program"], &["PATH=/bin:/nowhere"])).unwrap();
        let text = missing.execute().to_string();
        assert_eq!(
            text,
            "exec: \"no-such-program\": executable file not found in $PATH"
        );
        let missing = Program::new(&process(&["/no/such"], &[])).unwrap();
        assert!(
            missing
                .execute()
                .to_string()
                .ends_with("no such file or directory")
        );
        let directory = Program::new(&process(&["/tmp"], &[])).unwrap();
        assert!(
            directory
                .execute()
                .to_string()
                .ends_with("permission denied")
        );
        let no_program = Program::new(&process(&["/etc/passwd"], &[])).unwrap();
        assert!(matches!(no_program.execute(), Error::CannotExecute(_)));
    }
}
