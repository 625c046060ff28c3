//! A root file system with a shell: busybox and its libraries.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use carpel_sys::mount;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 14] = [
    "sh", "cat", "echo", "sleep", "true", "hostname", "kill", "ps", "seq", "head", "tr", "mkdir",
    "ls", "setsid",
];

/// A detached mount of the image; the directory itself is gone when the last is.
pub(crate) fn mount() -> OwnedFd {
    static IMAGE: OnceLock<OwnedFd> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let image = mount::tmpfs(Some(64 << 20), 0o755, mount::Flags::NONE).unwrap();
        // Reached by descriptor: it stands in no mount table.
        fill(&PathBuf::from(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&image)
        )));
        image
    });
    mount::clone_tree(image, "", false).unwrap()
}

fn fill(root: &Path) {
    for dir in ["bin", "proc", "dev", "tmp", "shm", "sys"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let ldd = Command::new("ldd").arg(BUSYBOX).output().unwrap();
    let text = String::from_utf8(ldd.stdout).unwrap();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(library, target).unwrap();
    }
}
