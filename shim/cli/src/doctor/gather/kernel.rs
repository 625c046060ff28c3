//! The kernel, by its own word and by trying.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::doctor::facts::{Kernel, Module};

const MODULES: [&str; 6] = [
    "overlay",
    "bridge",
    "veth",
    "nf_tables",
    "nf_nat",
    "nf_conntrack",
];

pub(super) fn look() -> Kernel {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let namespaces = fs::read_to_string("/proc/sys/user/max_user_namespaces").ok();
    let dir = Path::new("/lib/modules").join(&release);
    let listed = |file: &str| fs::read_to_string(dir.join(file)).ok();
    Kernel {
        pidfd: pidfd_open(getpid(), PidfdFlags::empty()).is_ok(),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        overlay: read("/proc/filesystems")
            .lines()
            .any(|line| line.ends_with("\toverlay")),
        user_namespaces: match Path::new("/proc/self/ns/user").exists() {
            true => namespaces.and_then(|text| text.trim().parse().ok()),
            false => None,
        },
        modules: modules(
            &read("/proc/modules"),
            listed("modules.builtin").as_deref(),
            listed("modules.dep").as_deref(),
        ),
        release,
    }
}

fn modules(
    loaded: &str,
    builtin: Option<&str>,
    on_disk: Option<&str>,
) -> BTreeMap<&'static str, Module> {
    let state = |name: &str| {
        let is = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or_default();
            let stem = file.split('.').next().unwrap_or_default();
            stem.replace('-', "_") == name
        };
        let here = loaded
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
            || builtin.is_some_and(|list| list.lines().any(is));
        let path = |line: &str| line.split(':').next().is_some_and(is);
        match (here, builtin.is_some(), on_disk) {
            (true, ..) => Module::Here,
            (_, _, Some(list)) if list.lines().any(path) => Module::Loadable,
            (_, true, Some(_)) => Module::Missing,
            _ => Module::Unknown,
        }
    };
    MODULES.map(|name| (name, state(name))).into()
}

#[cfg(test)]
mod tests {
    use super::{Module, look, modules};

    #[test]
    fn modules_are_loaded_built_in_on_disk_or_missing() {
        let found = modules(
            "bridge 1 0 - Live 0x0\n",
            Some("kernel/fs/overlayfs/overlay.ko\n"),
            Some("kernel/drivers/net/veth.ko.xz: kernel/a.ko\nkernel/net/nf-tables.ko:\n"),
        );
        assert_eq!(found["bridge"], Module::Here);
        assert_eq!(found["overlay"], Module::Here);
        assert_eq!(found["veth"], Module::Loadable);
        assert_eq!(found["nf_tables"], Module::Loadable);
        assert_eq!(found["nf_nat"], Module::Missing);
        assert_eq!(modules("", None, None)["veth"], Module::Unknown);
    }

    #[test]
    fn this_kernel_tells_something() {
        let kernel = look();
        assert!(kernel.release.contains('.') && kernel.pidfd);
    }
}
