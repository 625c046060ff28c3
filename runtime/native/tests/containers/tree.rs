//! The tree that a container sees.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use carpel_sys::mount::{self, Attr, Flags, Propagation};
use serde_json::{Value, json};

use crate::Case;
use crate::harness::{Extra, IMAGE, config, output, sh, start};

pub(crate) const CASES: &[Case] = &[
    (
        "the_root_is_the_image_and_nothing_of_the_host",
        only_the_image,
    ),
    ("standard_mounts_have_their_options", standard_mounts),
    ("devices_work_and_links_are_there", devices),
    ("devices_of_the_configuration_are_made", own_devices),
    ("passed_mounts_are_attached_in_order", passed_mounts),
    ("a_passed_file_is_attached_over_a_file", passed_file),
    (
        "propagation_of_a_passed_mount_stays_what_it_was",
        propagation,
    ),
    (
        "a_path_of_the_holders_tree_is_bound_with_its_options",
        bound_path,
    ),
    ("a_tmpfs_has_its_size_and_mode", tmpfs),
    ("a_read_only_root_takes_no_file", readonly_root),
    ("hidden_paths_are_empty_or_read_only", hidden_paths),
    (
        "a_read_only_path_keeps_the_mounts_below_it",
        readonly_submounts,
    ),
    (
        "no_mount_of_a_container_is_seen_by_the_holder",
        holder_sees_nothing,
    ),
];

fn with_mount(args: &[&str], mount: Value) -> Value {
    let mut config = config(args);
    config["mounts"].as_array_mut().unwrap().push(mount);
    config
}

/// Index of the mount that [`with_mount`] adds.
fn last(config: &Value) -> usize {
    config["mounts"].as_array().unwrap().len() - 1
}

fn only_the_image() {
    let mut expected: Vec<String> = fs::read_dir(IMAGE)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    expected.extend(["proc", "dev", "sys"].map(str::to_owned));
    expected.sort();
    assert_eq!(sh("ls /").split_whitespace().collect::<Vec<_>>(), expected);
    let mounts = sh("cat /proc/self/mountinfo");
    assert_eq!(
        mounts
            .lines()
            .filter(|line| line.split(' ').nth(4) == Some("/"))
            .count(),
        1
    );
    let strays: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|place| {
            !["/proc", "/dev", "/sys"]
                .iter()
                .any(|own| place.starts_with(own))
        })
        .collect();
    assert_eq!(strays, ["/"], "{mounts}");
}

fn standard_mounts() {
    let mounts = sh("cat /proc/mounts");
    let options_of = |place: &str| {
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(place))
            .unwrap();
        let mut fields = line.split(' ').skip(2);
        let kind = fields.next().unwrap().to_owned();
        let options: Vec<String> = fields
            .next()
            .unwrap()
            .split(',')
            .map(str::to_owned)
            .collect();
        (kind, options)
    };
    assert!(
        mounts.contains("proc /proc proc") && mounts.contains("sysfs /sys sysfs"),
        "{mounts}"
    );
    for (place, kind, wanted) in [
        ("/proc", "proc", &["rw", "nosuid", "nodev", "noexec"][..]),
        (
            "/dev",
            "tmpfs",
            &["rw", "nosuid", "size=65536k", "mode=755"],
        ),
        (
            "/dev/pts",
            "devpts",
            &[
                "rw",
                "nosuid",
                "noexec",
                "gid=5",
                "mode=620",
                "ptmxmode=666",
            ],
        ),
        (
            "/dev/mqueue",
            "mqueue",
            &["rw", "nosuid", "nodev", "noexec"],
        ),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
    ] {
        let (found, options) = options_of(place);
        assert_eq!(found, kind, "{place}");
        for option in wanted {
            assert!(
                options.iter().any(|it| it == option),
                "{place}: {option} in {options:?}"
            );
        }
    }
}

fn devices() {
    let text = sh(
        "echo x > /dev/null && head -c 2 /dev/zero | wc -c && head -c 1 /dev/urandom | wc -c; \
                   stat -c '%n %t:%T %a %u' /dev/null /dev/zero /dev/full /dev/random /dev/tty; \
                   readlink /dev/fd; readlink /dev/stdin; readlink /dev/ptmx; ls -d /dev/ptmx/ 2>&1 | wc -l; \
                   touch /dev/ptmx && echo pty",
    );
    let expected = "2\n1\n/dev/null 1:3 666 0\n/dev/zero 1:5 666 0\n/dev/full 1:7 666 0\n\
                    /dev/random 1:8 666 0\n/dev/tty 5:0 666 0\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n1\npty\n";
    assert_eq!(text, expected);
}

fn own_devices() {
    let list = "stat -c '%n %F %t:%T %a %u:%g' /dev/deep/er /dev/null /dev/pipe /srv/full";
    let mut config = config(&["sh", "-c", list]);
    config["linux"]["devices"] = json!([
        { "path": "/dev/deep/er", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
          "uid": 7, "gid": 8 },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o622 },
        { "path": "/srv/full", "type": "c", "major": 1, "minor": 7 },
    ]);
    let expected = "/dev/deep/er character special file 1:5 640 7:8\n\
                    /dev/null character special file 1:3 600 0:0\n\
                    /dev/pipe fifo 0:0 622 0:0\n\
                    /srv/full character special file 1:7 666 0:0\n";
    assert_eq!(output(config, Extra::default()), expected);
}

fn passed_mounts() {
    for dir in ["outer", "inner"] {
        fs::create_dir_all(Path::new("/tmp").join(dir)).unwrap();
        fs::write(Path::new("/tmp").join(dir).join(dir), "").unwrap();
    }
    let bind = |place: &str| json!({ "destination": place, "type": "bind", "source": "/host" });
    let mut config = with_mount(&["sh", "-c", "ls /data /data/sub"], bind("/data"));
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(bind("/data/sub"));
    let inner = last(&config);
    let passed = vec![
        (inner, mount::clone_path("/tmp/inner", true).unwrap()),
        (inner - 1, mount::clone_path("/tmp/outer", true).unwrap()),
    ];
    let text = output(
        config,
        Extra {
            mounts: passed,
            ..Extra::default()
        },
    );
    assert_eq!(text, "/data:\nouter\nsub\n\n/data/sub:\ninner\n");
}

fn passed_file() {
    fs::write("/tmp/hosts", "127.0.0.1 here\n").unwrap();
    fs::write(Path::new(IMAGE).join("etc/hosts"), "of the image").unwrap();
    let mount = |place: &str| json!({ "destination": place, "type": "bind", "source": "/h" });
    let mut config = with_mount(&["cat", "/etc/hosts", "/run/new/file"], mount("/etc/hosts"));
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(mount("/run/new/file"));
    let passed = (last(&config) - 1..=last(&config))
        .map(|index| (index, mount::clone_path("/tmp/hosts", false).unwrap()))
        .collect();
    let text = output(
        config,
        Extra {
            mounts: passed,
            ..Extra::default()
        },
    );
    assert_eq!(text, "127.0.0.1 here\n127.0.0.1 here\n");
}

fn propagation() {
    fs::create_dir_all("/tmp/volume/sub").unwrap();
    let own = mount::clone_path("/tmp/volume", false).unwrap();
    mount::set_attr(&own, &Attr::propagation(Propagation::Shared), false).unwrap();
    mount::attach_at(own, rustix::fs::CWD, "/tmp/volume").unwrap();
    for (kind, seen) in [
        (None, true),
        (Some(Propagation::Slave), true),
        (Some(Propagation::Private), false),
    ] {
        let copy = mount::clone_path("/tmp/volume", true).unwrap();
        let attr = Attr {
            propagation: kind,
            ..Attr::default()
        };
        mount::set_attr(&copy, &attr, true).unwrap();
        let script = "echo ready; until [ -e /data/go ]; do sleep 0.01; done; ls /data/sub";
        let config = with_mount(
            &["sh", "-c", script],
            json!({ "destination": "/data", "type": "bind", "source": "/v" }),
        );
        let extra = Extra {
            mounts: vec![(last(&config), copy)],
            ..Extra::default()
        };
        let mut running = start(config, extra);
        assert_eq!(running.line(), "ready");
        let later = mount::tmpfs(None, 0o755, Flags::NONE).unwrap();
        mount::attach_at(later, rustix::fs::CWD, "/tmp/volume/sub").unwrap();
        fs::write("/tmp/volume/sub/later", "").unwrap();
        fs::write("/tmp/volume/go", "").unwrap();
        let (text, _) = running.finish();
        assert_eq!(text, if seen { "later\n" } else { "" }, "{kind:?}");
        mount::detach("/tmp/volume/sub").unwrap();
        fs::remove_file("/tmp/volume/go").unwrap();
    }
}

fn bound_path() {
    fs::create_dir_all("/tmp/shm").unwrap();
    fs::write("/tmp/shm/segment", "x").unwrap();
    let bind = |options: Value| json!({ "destination": "/dev/shm", "type": "bind", "source": "/tmp/shm", "options": options });
    let script = "cat /dev/shm/segment; touch /dev/shm/new 2>/dev/null && echo rw; \
                  grep /dev/shm /proc/mounts | cut -d ' ' -f 4";
    let config = with_mount(
        &["sh", "-c", script],
        bind(json!(["rbind", "ro", "nosuid", "noexec"])),
    );
    let text = output(config, Extra::default());
    assert!(text.starts_with("xro,nosuid,noexec,"), "{text}");
    let config = with_mount(&["sh", "-c", script], bind(json!(["rbind", "rw", "nodev"])));
    let text = output(config, Extra::default());
    assert!(text.starts_with("xrw\nrw,nodev,"), "{text}");
}

fn tmpfs() {
    let config = with_mount(
        &[
            "sh",
            "-c",
            "stat -c %a /scratch; head -c 70000 /dev/zero > /scratch/f 2>/dev/null || \
           stat -c %s /scratch/f",
        ],
        json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
                "options": ["mode=1770", "size=64k", "noexec"] }),
    );
    assert_eq!(output(config, Extra::default()), "1770\n65536\n");
}

fn readonly_root() {
    let script = "touch /new 2>&1; touch /dev/ok && touch /etc/passwd 2>&1";
    let mut config = config(&["sh", "-c", script]);
    config["root"]["readonly"] = json!(true);
    config["process"]["cwd"] = json!("/made/before");
    let mut running = start(config, Extra::default());
    running.started().unwrap();
    let (text, _) = running.finish();
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
}

fn hidden_paths() {
    let text = sh(
        "stat -c '%t:%T %F' /proc/interrupts /proc/keys; ls -A /proc/scsi /sys/firmware 2>/dev/null; \
                   touch /sys/firmware/x 2>&1; echo 1 2>&1 > /proc/sys/kernel/panic; true",
    );
    assert!(
        text.starts_with("1:3 character special file\n1:3 character special file\n"),
        "{text}"
    );
    let rest: Vec<&str> = text.lines().skip(2).collect();
    assert_eq!(text.matches("Read-only file system").count(), 2, "{rest:?}");
    let hidden = sh("cat /proc/interrupts | wc -c");
    assert_eq!(hidden.trim(), "0");
}

fn readonly_submounts() {
    fs::create_dir_all("/tmp/volume").unwrap();
    fs::write("/tmp/volume/file", "below").unwrap();
    let mut config = with_mount(
        &["sh", "-c", "cat /srv/data/file; touch /srv/data/x 2>&1"],
        json!({ "destination": "/srv/data", "type": "bind", "source": "/tmp/volume" }),
    );
    config["linux"]["readonlyPaths"] = json!(["/srv"]);
    let mut running = start(config, Extra::default());
    running.started().unwrap();
    let (text, _) = running.finish();
    assert!(
        text.starts_with("below") && text.contains("Read-only"),
        "{text}"
    );
}

fn holder_sees_nothing() {
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root: OwnedFd = crate::harness::rootfs();
    let before = table();
    let container = crate::harness::create(
        config(&["sleep", "600"]),
        Extra {
            rootfs: Some(root),
            ..Extra::default()
        },
    );
    assert_eq!(table(), before);
    let running = container.start();
    assert_eq!(table(), before);
    running.kill();
    assert_eq!(table(), before);
}
