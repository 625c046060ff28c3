//! Mounts of a container, in the order in which they are made.

use std::path::PathBuf;

use oci_spec::runtime::Mount as OciMount;

use crate::cdi::MountEdit;
use crate::intent::{Mount, NamespaceMode, Propagation, Restrict};
use crate::plan::Input;
use crate::volumes::ImageVolume;

/// A file that the daemon wrote for the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Absolute path in the container.
    pub destination: String,
    /// Absolute path on the host.
    pub source: String,
    pub readonly: bool,
}

/// A mount of the spec whose detached mount has to be passed along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSource {
    /// Index into the spec's mounts.
    pub mount_index: usize,
    /// Absolute path on the host; a symlink there is followed.
    pub host_path: String,
    /// With the mounts below it.
    pub recursive: bool,
    pub readonly: bool,
    /// Read-only for the mounts below it as well.
    pub recursive_read_only: bool,
    pub propagation: Propagation,
    pub restrict: Restrict,
    pub selinux_relabel: bool,
    /// Which of the client's mounts it is, if it is one of them.
    pub requested: Option<usize>,
}

struct Planned {
    mount: OciMount,
    source: Option<MountSource>,
}

/// Defaults first, then the image's volumes, then what the daemon and the client add,
/// parents before what lies below them: nothing of an image hides what a client asks
/// for. A client's mount takes the place of the defaults it covers.
pub(crate) fn build(input: &Input<'_>) -> (Vec<OciMount>, Vec<MountSource>) {
    let requested = &input.container.mounts;
    let covered = |destination: &str| {
        requested
            .iter()
            .any(|mount| is_at_or_below(destination, &mount.container_path))
    };
    let replaced = |file: &GeneratedFile| {
        requested
            .iter()
            .any(|mount| same(&mount.container_path, &file.destination))
    };
    let mut added: Vec<Planned> = input
        .generated
        .iter()
        .filter(|file| !replaced(file))
        .map(generated)
        .collect();
    added.extend(
        requested
            .iter()
            .enumerate()
            .map(|(index, mount)| volume(index, mount)),
    );
    added.extend(input.cdi.mounts.iter().map(device_mount));
    added.sort_by_key(|planned| depth(planned.mount.destination()));
    let planned = defaults(input)
        .into_iter()
        .filter(|planned| !covered(&planned.mount.destination().to_string_lossy()))
        .chain(input.volumes.iter().map(image_volume))
        .chain(added);
    let mut mounts = Vec::new();
    let mut sources = Vec::new();
    for Planned { mount, source } in planned {
        sources.extend(source.map(|source| MountSource {
            mount_index: mounts.len(),
            ..source
        }));
        mounts.push(mount);
    }
    (mounts, sources)
}

fn defaults(input: &Input<'_>) -> Vec<Planned> {
    let writable = if input.container.security.privileged {
        "rw"
    } else {
        "ro"
    };
    let own = |mount| Planned {
        mount,
        source: None,
    };
    vec![
        own(oci("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])),
        own(oci(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )),
        own(oci(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )),
        shared_memory(input),
        own(oci(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        )),
        own(oci(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", writable],
        )),
        own(oci(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", writable],
        )),
    ]
}

/// The pod's, which lies at `/shm` of the holder's own tree; the host's if the pod
/// shares the host's IPC.
fn shared_memory(input: &Input<'_>) -> Planned {
    let node = input.pod.security.namespaces.ipc == NamespaceMode::Node;
    let path = if node { "/dev/shm" } else { "/shm" };
    Planned {
        mount: oci(
            "/dev/shm",
            "bind",
            path,
            &["rbind", "nosuid", "noexec", "nodev", "rw"],
        ),
        source: node.then(|| source(path)),
    }
}

fn generated(file: &GeneratedFile) -> Planned {
    let access = if file.readonly { "ro" } else { "rw" };
    Planned {
        mount: oci(
            &file.destination,
            "bind",
            &file.source,
            &["rbind", "rprivate", access],
        ),
        source: Some(MountSource {
            readonly: file.readonly,
            ..source(&file.source)
        }),
    }
}

fn image_volume(volume: &ImageVolume) -> Planned {
    let options = ["rbind", "rprivate", "rw"];
    Planned {
        mount: oci(&volume.destination, "bind", &volume.source, &options),
        source: Some(source(&volume.source)),
    }
}

fn volume(index: usize, mount: &Mount) -> Planned {
    let access = match (mount.readonly, mount.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    let mut options = vec!["rbind", propagation(mount.propagation), access];
    let restrict = mount.restrict;
    let words = [
        ("rnoexec", restrict.noexec),
        ("rnodev", restrict.nodev),
        ("rnosuid", restrict.nosuid),
    ];
    options.extend(words.iter().filter(|(_, on)| *on).map(|(word, _)| *word));
    Planned {
        mount: oci(&mount.container_path, "bind", &mount.host_path, &options),
        source: Some(MountSource {
            readonly: mount.readonly,
            recursive_read_only: mount.recursive_read_only,
            propagation: mount.propagation,
            restrict,
            selinux_relabel: mount.selinux_relabel,
            requested: Some(index),
            ..source(&mount.host_path)
        }),
    }
}

/// After the client's mounts of the same depth, so that it takes their place.
fn device_mount(edit: &MountEdit) -> Planned {
    let bind = if edit.recursive { "rbind" } else { "bind" };
    let mut options = vec![bind];
    options.extend(edit.options.iter().map(String::as_str));
    Planned {
        mount: oci(&edit.container_path, "bind", &edit.host_path, &options),
        source: Some(MountSource {
            recursive: edit.recursive,
            readonly: edit.readonly,
            propagation: edit.propagation,
            restrict: edit.restrict,
            ..source(&edit.host_path)
        }),
    }
}

fn source(host_path: &str) -> MountSource {
    MountSource {
        mount_index: 0,
        host_path: host_path.to_owned(),
        recursive: true,
        readonly: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
        restrict: Restrict::default(),
        selinux_relabel: false,
        requested: None,
    }
}

fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    }
}

/// Propagation of the root that lets the mounts' own take effect, for executors
/// that do not get detached mounts.
pub(crate) fn rootfs_propagation(mounts: &[Mount]) -> Option<String> {
    let any = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    if any(Propagation::Bidirectional) {
        Some("rshared".to_owned())
    } else {
        any(Propagation::HostToContainer).then(|| "rslave".to_owned())
    }
}

fn oci(destination: &str, kind: &str, source: &str, options: &[&str]) -> OciMount {
    let mut mount = OciMount::default();
    mount
        .set_destination(PathBuf::from(clean(destination)))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// One slash between the parts, none at the end.
fn clean(path: &str) -> String {
    parts(path).fold(String::new(), |mut clean, part| {
        clean.push('/');
        clean.push_str(part);
        clean
    })
}

pub(crate) fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
}

fn same(left: &str, right: &str) -> bool {
    parts(left).eq(parts(right))
}

pub(crate) fn is_at_or_below(path: &str, parent: &str) -> bool {
    let mut below = parts(path);
    parts(parent).all(|part| below.next() == Some(part))
}

fn depth(path: &std::path::Path) -> usize {
    path.components().count()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, proptest};

    use super::*;
    use crate::plan::fixture::Fixture;

    fn at(path: &str) -> Mount {
        Mount {
            container_path: path.to_owned(),
            host_path: format!("/srv{path}"),
            ..Mount::default()
        }
    }

    fn destinations(fixture: &Fixture) -> Vec<String> {
        let (mounts, _) = build(&fixture.input());
        mounts
            .iter()
            .map(|mount| mount.destination().display().to_string())
            .collect()
    }

    const DEFAULTS: [&str; 7] = [
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/sys",
        "/sys/fs/cgroup",
    ];

    #[test]
    fn parents_come_before_children_and_equals_stay_in_order() {
        let mut fixture = Fixture::default();
        fixture.container.mounts = vec![at("/a/b/c"), at("/z"), at("/a/b/"), at("/a")];
        assert_eq!(destinations(&fixture)[..7], DEFAULTS);
        assert_eq!(destinations(&fixture)[7..], ["/z", "/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn a_mount_takes_the_place_of_the_defaults_it_covers() {
        let mut fixture = Fixture::default();
        fixture.container.mounts = vec![at("/dev/shm/")];
        let found = destinations(&fixture);
        assert_eq!(found.iter().filter(|path| *path == "/dev/shm").count(), 1);
        assert_eq!(found.len(), 7);
        fixture.container.mounts = vec![at("/dev")];
        assert_eq!(
            destinations(&fixture),
            ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]
        );
        fixture.container.mounts = vec![at("/devices")];
        assert_eq!(destinations(&fixture).len(), 8);
    }

    #[test]
    fn a_clients_hosts_file_replaces_the_generated_one() {
        let fixture = Fixture::web();
        let (mounts, sources) = build(&fixture.input());
        let hosts: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.destination() == &PathBuf::from("/etc/hosts"))
            .collect();
        assert_eq!(hosts.len(), 1);
        assert_eq!(
            hosts[0].source(),
            &Some(PathBuf::from("/var/lib/kubelet/hosts"))
        );
        for source in &sources {
            let mount = &mounts[source.mount_index];
            assert_eq!(mount.source(), &Some(PathBuf::from(&source.host_path)));
        }
        let requested: Vec<_> = sources
            .iter()
            .filter_map(|source| source.requested)
            .collect();
        assert_eq!(requested, [1, 0, 2], "in the order of the spec");
    }

    #[test]
    fn an_images_volumes_come_before_all_that_is_asked_for() {
        let mut fixture = Fixture::web();
        fixture.volumes = vec![ImageVolume {
            destination: "/very/deep/volume".to_owned(),
            source: "/v/0".to_owned(),
        }];
        let found = destinations(&fixture);
        assert_eq!(found[7], "/very/deep/volume");
        let (mounts, sources) = build(&fixture.input());
        assert_eq!((sources[0].mount_index, sources[0].requested), (7, None));
        assert_eq!(mounts[7].options().as_ref().unwrap()[2], "rw");
    }

    #[test]
    fn cve_2021_43816_only_what_a_client_asks_it_for_is_relabelled() {
        let mut fixture = Fixture::web();
        fixture.container.mounts = vec![at("/etc/hosts"), at("/data")];
        fixture.container.mounts[1].selinux_relabel = true;
        let (mounts, sources) = build(&fixture.input());
        for source in sources {
            let place = mounts[source.mount_index].destination();
            let asked = place == &PathBuf::from("/data");
            assert_eq!(source.selinux_relabel, asked, "{}", place.display());
        }
    }

    #[test]
    fn shared_memory_is_the_pods_or_the_hosts() {
        let mut fixture = Fixture::default();
        let (mounts, sources) = build(&fixture.input());
        assert_eq!(mounts[3].source(), &Some(PathBuf::from("/shm")));
        assert!(sources.is_empty());
        fixture.pod.security.namespaces.ipc = NamespaceMode::Node;
        let (_, sources) = build(&fixture.input());
        assert_eq!(
            (sources[0].mount_index, sources[0].host_path.as_str()),
            (3, "/dev/shm")
        );
    }

    #[test]
    fn options_say_what_was_asked() {
        let mut fixture = Fixture::default();
        fixture.container.mounts = vec![
            Mount {
                readonly: true,
                recursive_read_only: true,
                ..at("/r")
            },
            Mount {
                propagation: Propagation::Bidirectional,
                ..at("/s")
            },
        ];
        let (mounts, sources) = build(&fixture.input());
        assert_eq!(
            mounts[7].options().as_ref().unwrap()[..],
            ["rbind", "rprivate", "rro"]
        );
        assert_eq!(
            mounts[8].options().as_ref().unwrap()[..],
            ["rbind", "rshared", "rw"]
        );
        assert!(sources[0].recursive_read_only && sources[0].readonly);
        assert_eq!(sources[1].propagation, Propagation::Bidirectional);
        assert_eq!(
            rootfs_propagation(&fixture.container.mounts).as_deref(),
            Some("rshared")
        );
        assert_eq!(rootfs_propagation(&[at("/a")]), None);
    }

    proptest! {
        #[test]
        fn no_mount_hides_an_earlier_one(paths in vec("(/[abc]){1,4}", 0..8)) {
            let mut fixture = Fixture::default();
            fixture.container.mounts = paths.iter().map(|path| at(path)).collect();
            let found = destinations(&fixture);
            for (index, path) in found.iter().enumerate() {
                for later in &found[index + 1..] {
                    prop_assert!(path == later || !is_at_or_below(path, later), "{later} hides {path}");
                }
            }
        }
    }
}
