//! Writes that are done all, or taken back.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::files;
use crate::plan::Setting;

/// A write and what was there before it.
#[derive(Debug)]
struct Done {
    path: PathBuf,
    before: String,
}

/// Writes that can be taken back, the last one first.
#[derive(Debug, Default)]
pub(crate) struct Change {
    done: Vec<Done>,
}

impl Change {
    /// Writes each setting into its file. At the first that the kernel refuses all
    /// that were written take their old values again, so that either all hold or none.
    pub(crate) fn write(&mut self, settings: &[(PathBuf, Setting)]) -> Result<()> {
        for (path, setting) in settings {
            if let Err(error) = self.write_one(path.clone(), setting) {
                return Err(self.fail(error));
            }
        }
        Ok(())
    }

    /// Takes everything back because of `error`, and tells what could not be.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        let left = self.undo();
        if left.is_empty() {
            return error;
        }
        Error::HalfDone {
            cause: Box::new(error),
            left,
        }
    }

    fn write_one(&mut self, path: PathBuf, setting: &Setting) -> Result<()> {
        let before = match files::read_if_there(&path)? {
            Some(before) => before,
            None if setting.may_lack => return Ok(()),
            None => {
                let name = format!("{} (for {})", setting.controller, setting.file);
                return Err(Error::NoController(name));
            }
        };
        match files::try_write(&path, &setting.value) {
            Ok(()) => {
                self.done.push(Done { path, before });
                Ok(())
            }
            Err(error) if setting.may_lack && error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::Limit {
                path,
                value: setting.value.clone(),
                source,
            }),
        }
    }

    /// Each state on the way back was valid on the way there.
    fn undo(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        while let Some(Done { path, before }) = self.done.pop() {
            if let Err(error) = files::try_write(&path, before.trim_end()) {
                left.push(format!("{} ({error})", path.display()));
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::Change;
    use crate::error::Error;
    use crate::limits::Limits;
    use crate::plan::{self, Setting};

    /// A folder that looks like a group.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("carpel-cgroup-{name}-{}", std::process::id());
            let tree = Self(std::env::temp_dir().join(name));
            fs::create_dir_all(&tree.0).unwrap();
            for (file, text) in files {
                fs::write(tree.0.join(file), text).unwrap();
            }
            tree
        }

        fn settings(&self, settings: Vec<Setting>) -> Vec<(PathBuf, Setting)> {
            let place = |s: Setting| (self.0.join(&s.file), s);
            settings.into_iter().map(place).collect()
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn limits() -> Limits {
        Limits {
            cpu_shares: 5120,
            memory: 2222,
            memory_swap: 3333,
            pids: 99,
            ..Limits::default()
        }
    }

    #[test]
    fn a_change_is_made_whole() {
        let tree = Tree::new(
            "whole",
            &[
                ("cpu.weight", "100"),
                ("memory.max", "1111"),
                ("memory.swap.max", "1000"),
                ("pids.max", "11"),
            ],
        );
        let settings = tree.settings(plan::v2(&limits(), &|_| None));
        Change::default().write(&settings).unwrap();
        let texts = ["cpu.weight", "memory.max", "memory.swap.max", "pids.max"];
        assert_eq!(
            texts.map(|file| tree.text(file)),
            ["196", "2222", "1111", "99"].map(|new| new.to_owned())
        );
    }

    #[test]
    fn a_refused_value_takes_back_those_before_it_and_is_named() {
        let tree = Tree::new(
            "refused",
            &[
                ("cpu.shares", "1024"),
                ("memory.memsw.limit_in_bytes", "1000"),
                ("pids.max", "11"),
            ],
        );
        // A file that takes no number above 1000.
        let odd = tree.0.join("memory.limit_in_bytes");
        std::os::unix::fs::symlink("/proc/self/oom_score_adj", &odd).unwrap();
        let settings = tree.settings(plan::v1(&limits(), &|_| Some("1".into())));
        let error = Change::default().write(&settings).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Limit { .. }), "{text}");
        assert!(
            text.contains("memory.limit_in_bytes") && text.contains("2222"),
            "{text}"
        );
        assert_eq!(tree.text("cpu.shares"), "1024");
        assert_eq!(tree.text("memory.memsw.limit_in_bytes"), "1000");
        assert_eq!(tree.text("pids.max"), "11");
    }

    #[test]
    fn a_file_that_is_not_there_names_its_controller() {
        let tree = Tree::new("lacks", &[("cpu.weight", "1024")]);
        let settings = tree.settings(plan::v2(&limits(), &|_| None));
        let text = Change::default().write(&settings).unwrap_err().to_string();
        assert!(text.contains("memory.max"), "{text}");
        assert_eq!(tree.text("cpu.weight"), "1024");
    }

    #[test]
    fn what_cannot_be_taken_back_is_told() {
        let tree = Tree::new("half", &[("pids.max", "11")]);
        let mut change = Change::default();
        let settings = tree.settings(plan::v2(
            &Limits {
                pids: 12,
                ..Limits::default()
            },
            &|_| None,
        ));
        change.write(&settings).unwrap();
        fs::remove_file(tree.0.join("pids.max")).unwrap();
        let error = change.fail(Error::NoController("x".into())).to_string();
        assert!(error.contains("pids.max") && error.contains('x'), "{error}");
    }
}
