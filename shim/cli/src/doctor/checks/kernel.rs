//! Its version, and the features that we use.

use crate::doctor::facts::{Kernel, Module};
use crate::doctor::line::{Level, Line, Lines};

/// Since when, what, and how bad it is to be without.
const SINCE: [((u32, u32), &str, Level, &str); 7] = [
    ((5, 3), "clone3", Level::Failed, NEWER),
    ((5, 6), "openat2", Level::Failed, NEWER),
    ((5, 12), "mount_setattr", Level::Failed, NEWER),
    (
        (5, 14),
        "cgroup.kill",
        Level::Warning,
        "without it processes are killed one by one; a newer kernel is better",
    ),
    ((5, 15), "what Carpel is written for", Level::Failed, NEWER),
    (
        (5, 19),
        "idmapped mounts under overlay",
        Level::Warning,
        "pods with user namespaces need Linux 5.19",
    ),
    (
        (6, 7),
        "overlay's lowerdir+",
        Level::Warning,
        "images are limited to about 14 layers before Linux 6.7",
    ),
];

const NEWER: &str = "install a kernel of 5.15 or newer";

pub(super) fn judge(kernel: &Kernel) -> Vec<Line> {
    let mut lines = Lines::of("kernel");
    match parse(&kernel.release) {
        None => lines.warn(
            format!("version {:?} cannot be read", kernel.release),
            "Carpel needs Linux 5.15 or newer",
        ),
        Some(version) => {
            let missing: Vec<_> = SINCE
                .iter()
                .filter(|(since, ..)| version < *since)
                .collect();
            for (since, what, level, advice) in &missing {
                let message = format!(
                    "{} has no {what}, which came with {}.{}",
                    kernel.release, since.0, since.1
                );
                lines.add(*level, message, advice);
            }
            if missing.is_empty() {
                lines.ok(format!("Linux {}", kernel.release));
            }
        }
    }
    feature(&mut lines, "pidfd", kernel.pidfd, NEWER);
    let advice = "use a kernel with CONFIG_SECCOMP_FILTER";
    feature(&mut lines, "seccomp", kernel.seccomp, advice);
    let loadable = kernel.modules.get("overlay") == Some(&Module::Loadable);
    let advice = "use a kernel with CONFIG_OVERLAY_FS";
    feature(&mut lines, "overlayfs", kernel.overlay || loadable, advice);
    match kernel.user_namespaces {
        Some(1..) => lines.ok("user namespaces"),
        Some(0) => lines.warn(
            "user namespaces are turned off",
            "set user.max_user_namespaces above 0 for pods that want them",
        ),
        None => lines.warn(
            "no user namespaces",
            "use a kernel with CONFIG_USER_NS for pods that want them",
        ),
    }
    lines.lines
}

fn feature(lines: &mut Lines, name: &str, there: bool, advice: &str) {
    match there {
        true => lines.ok(name),
        false => lines.fail(format!("no {name}"), advice),
    }
}

/// `6.18.5-cloud` is 6.18.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(release: &str) -> Kernel {
        Kernel {
            release: release.into(),
            pidfd: true,
            seccomp: true,
            overlay: true,
            user_namespaces: Some(9),
            ..Kernel::default()
        }
    }

    fn worst(kernel: &Kernel) -> Level {
        let levels = judge(kernel).into_iter().map(|line| line.level);
        levels.max().unwrap()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(worst(&kernel("6.18.0")), Level::Ok);
        assert_eq!(worst(&kernel("10.0-rc1")), Level::Ok);
        assert_eq!(worst(&kernel("6.1.0-13-amd64")), Level::Warning);
        assert_eq!(worst(&kernel("5.10.0")), Level::Failed);
        assert_eq!(worst(&kernel("strange")), Level::Warning);
    }

    #[test]
    fn an_old_kernel_is_told_of_what_it_lacks() {
        let lines = judge(&kernel("6.1.0"));
        assert!(lines.iter().any(|line| line.message.contains("lowerdir+")
            && line.advice.contains("14 layers")));
    }

    #[test]
    fn each_missing_feature_is_named() {
        let bare = Kernel {
            release: "6.18.0".into(),
            ..Kernel::default()
        };
        let lines = judge(&bare);
        for feature in ["pidfd", "seccomp", "overlayfs", "user namespaces"] {
            let line = lines.iter().find(|line| line.message.contains(feature));
            assert_ne!(line.unwrap().level, Level::Ok, "{feature}");
        }
        let mut loadable = bare;
        loadable.modules.insert("overlay", Module::Loadable);
        let lines = judge(&loadable);
        assert!(lines.iter().any(|line| line.message == "overlayfs"));
    }
}
