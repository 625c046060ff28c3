//! Specification files, read again when they change.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use carpel_spec::cdi::{Catalogue, Found, Injection, Specification};

use crate::error::Error;

/// Far more than any real specification.
const LARGEST: u64 = 8 << 20;

/// The directories that operators put specifications into.
#[derive(Debug)]
pub(crate) struct Cdi {
    /// In order of priority, the last one first.
    directories: Vec<PathBuf>,
    known: Mutex<HashMap<PathBuf, Known>>,
}

type Content = Result<Specification, String>;

#[derive(Debug, Clone)]
struct Known {
    stamp: Stamp,
    content: Arc<Content>,
}

/// Changes whenever a file is written or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

struct File {
    path: PathBuf,
    priority: usize,
    content: Arc<Content>,
}

impl Cdi {
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            known: Mutex::default(),
        }
    }

    /// What the named devices change about a container. May wait for a disk.
    pub(crate) fn inject(&self, names: &[String]) -> Result<Injection, Error> {
        if names.is_empty() {
            return Ok(Injection::default());
        }
        let files = self.files()?;
        let shown = |path: &Path| path.display().to_string();
        let directories: Vec<_> = self.directories.iter().map(|path| shown(path)).collect();
        let catalogue = Catalogue {
            directories: &directories,
            files: files
                .iter()
                .map(|file| Found {
                    file: shown(&file.path),
                    priority: file.priority,
                    content: file.content.as_ref().as_ref().map_err(Clone::clone),
                })
                .collect(),
        };
        Ok(catalogue.inject(names)?)
    }

    /// Every specification there is now.
    fn files(&self) -> Result<Vec<File>, Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::new();
        for (priority, directory) in self.directories.iter().enumerate() {
            for path in list(directory)? {
                let content = look(&mut known, &path);
                files.push(File {
                    path,
                    priority,
                    content,
                });
            }
        }
        known.retain(|path, _| files.iter().any(|file| file.path == *path));
        Ok(files)
    }
}

/// The specification files of a directory, by name; none where there is no directory.
fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let what = format!("list {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(&*what))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(&*what))?.path();
        if path.extension().is_some_and(|e| e == "json" || e == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn look(known: &mut HashMap<PathBuf, Known>, path: &Path) -> Arc<Content> {
    let stamp = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Stamp::of(&metadata),
        Ok(_) => return Arc::new(Err("is no file".to_owned())),
        Err(error) => return Arc::new(Err(error.to_string())),
    };
    if let Some(same) = known.get(path).filter(|known| known.stamp == stamp) {
        return Arc::clone(&same.content);
    }
    let content = Arc::new(read(path));
    if let Err(why) = content.as_ref() {
        tracing::warn!(file = %path.display(), why, "CDI specification is not used");
    }
    let fresh = Known {
        stamp,
        content: Arc::clone(&content),
    };
    known.insert(path.to_owned(), fresh);
    content
}

fn read(path: &Path) -> Content {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(LARGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > LARGEST {
        return Err(format!("is larger than {LARGEST} bytes"));
    }
    let specification: Specification = if path.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else {
        // As the reference implementation reads it: `fileMode: 0660` is octal.
        let options = serde_saphyr::options! {
            with_snippet: false,
            legacy_octal_numbers: true,
        };
        serde_saphyr::from_str_with_options(&text, options)
            .map_err(|error| first_line(&error.to_string()))?
    };
    specification.verify()
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or("malformed").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(device: &str) -> String {
        format!(
            r#"{{"cdiVersion": "0.6.0", "kind": "v/c", "devices": [{{"name": "{device}",
                "containerEdits": {{"additionalGids": [5]}}}}]}}"#
        )
    }

    const YAML: &str = "cdiVersion: 0.5.0\nkind: v/yaml\ndevices:\n- name: a\n  containerEdits:\n\
        \x20   deviceNodes:\n    - path: /dev/null\n      fileMode: 0o640\n";

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_formats_are_read_and_a_bad_file_breaks_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let cdi = Cdi::new(vec![dir.path().to_owned(), dir.path().join("missing")]);
        fs::write(dir.path().join("a.json"), json("x")).unwrap();
        fs::write(dir.path().join("b.yaml"), YAML).unwrap();
        fs::write(dir.path().join("c.json"), "{").unwrap();
        fs::write(dir.path().join("d.txt"), "{").unwrap();
        fs::create_dir(dir.path().join("e.json")).unwrap();
        let found = cdi.inject(&names(&["v/c=x", "v/yaml=a"])).unwrap();
        assert_eq!((found.groups.as_slice(), found.nodes.len()), (&[5][..], 1));
        let error = cdi.inject(&names(&["v/c=y"])).unwrap_err().to_string();
        for part in ["v/c=y", "c.json", "e.json", "missing"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("d.txt"), "{error}");
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let cdi = Cdi::new(vec![dir.path().to_owned()]);
        assert!(cdi.inject(&names(&["v/c=x"])).is_err());
        assert!(cdi.inject(&[]).is_ok());
        let file = dir.path().join("a.json");
        fs::write(&file, json("x")).unwrap();
        assert!(cdi.inject(&names(&["v/c=x"])).is_ok());
        fs::write(dir.path().join("new"), json("y")).unwrap();
        fs::rename(dir.path().join("new"), &file).unwrap();
        assert!(cdi.inject(&names(&["v/c=x"])).is_err());
        assert!(cdi.inject(&names(&["v/c=y"])).is_ok());
        fs::remove_file(&file).unwrap();
        assert!(cdi.inject(&names(&["v/c=y"])).is_err());
    }
}
