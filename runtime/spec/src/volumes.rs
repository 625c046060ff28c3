//! Volumes that an image asks for.

use crate::error::{Error, Result};
use crate::intent::Mount;
use crate::mounts::{GeneratedFile, is_at_or_below, parts};

/// Far more than any real image has.
const MOST: usize = 64;

/// What the runtime itself mounts, and keeps as it is.
const OWN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// A directory of the daemon's that a container has at a path of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageVolume {
    /// Absolute path in the container.
    pub destination: String,
    /// Absolute path on the host.
    pub source: String,
}

/// Where a container needs volumes of its own: the image's paths, parents first, but
/// for what a mount of the client or of the runtime covers anyway.
pub fn image_volumes(
    paths: &[String],
    mounts: &[Mount],
    generated: &[GeneratedFile],
) -> Result<Vec<String>> {
    let covered = |path: &str| {
        OWN.iter().any(|own| is_at_or_below(path, own))
            || mounts
                .iter()
                .any(|mount| is_at_or_below(path, &mount.container_path))
            || generated
                .iter()
                .any(|file| is_at_or_below(path, &file.destination))
    };
    let mut needed = Vec::new();
    for text in paths {
        let path = resolve(text);
        if text.contains('\0') || path == "/" {
            let why = "is no path below the root";
            return Err(Error::invalid("image volume", text, why));
        }
        if !covered(&path) && !needed.contains(&path) {
            needed.push(path);
        }
        if needed.len() > MOST {
            let why = format!("are more than {MOST}");
            return Err(Error::invalid("image volumes", paths.len(), why));
        }
    }
    needed.sort_by_key(|path| (parts(path).count(), path.clone()));
    Ok(needed)
}

/// Absolute and without `..`, which at the root leads to the root.
fn resolve(path: &str) -> String {
    let mut resolved: Vec<&str> = Vec::new();
    for part in parts(path) {
        if part == ".." {
            resolved.pop();
        } else {
            resolved.push(part);
        }
    }
    format!("/{}", resolved.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(paths: &[&str], mounted: &[&str]) -> Result<Vec<String>> {
        let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
        let mounts: Vec<_> = mounted
            .iter()
            .map(|path| Mount {
                container_path: (*path).to_owned(),
                ..Mount::default()
            })
            .collect();
        let hosts = GeneratedFile {
            destination: "/etc/hosts".to_owned(),
            source: "/run/hosts".to_owned(),
            readonly: false,
        };
        image_volumes(&paths, &mounts, &[hosts])
    }

    #[test]
    fn parents_come_first_and_each_path_once() {
        let found = needed(&["/a/b/c", "data", "/a//b/c/", "/a"], &[]).unwrap();
        assert_eq!(found, ["/a", "/data", "/a/b/c"]);
    }

    #[test]
    fn what_is_covered_needs_none() {
        let paths = ["/data", "/data/sub", "/datum", "/etc/hosts", "/other"];
        assert_eq!(needed(&paths, &["/data/", "/other"]).unwrap(), ["/datum"]);
        let own = ["/proc", "/sys/fs/cgroup", "/dev/shm", "/device"];
        assert_eq!(needed(&own, &[]).unwrap(), ["/device"]);
    }

    #[test]
    fn climbing_ends_at_the_root() {
        assert_eq!(
            needed(&["/../../etc", "/x/../y"], &[]).unwrap(),
            ["/etc", "/y"]
        );
        for path in ["/", "", "..", "/a/..", "/a\0"] {
            let error = needed(&[path], &[]).unwrap_err().to_string();
            assert!(error.starts_with("image volume"), "{error}");
        }
    }

    #[test]
    fn too_many_are_refused() {
        let paths: Vec<_> = (0..=MOST).map(|number| format!("/v/{number}")).collect();
        assert!(image_volumes(&paths, &[], &[]).is_err());
        assert_eq!(image_volumes(&paths[1..], &[], &[]).unwrap().len(), MOST);
    }
}
