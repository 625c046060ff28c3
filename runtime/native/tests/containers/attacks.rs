//! Images and containers that want out. Each case names what it keeps shut.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use carpel_native::{Cgroup, Error};
use carpel_sys::clone::{self, SingleThreaded};
use carpel_sys::mount;
use carpel_sys::namespace::Kinds;
use serde_json::json;

use crate::Case;
use crate::harness::{
    Extra, IMAGE, config, exec_output, exec_sh, output, refusal, sh, sleeper, start, try_create,
    try_exec,
};

pub(crate) const CASES: &[Case] = &[
    (
        "cve_2024_21626_no_descriptor_is_leaked_to_a_program",
        leaked_descriptors,
    ),
    (
        "cve_2024_21626_a_working_directory_through_a_descriptor_is_refused",
        magic_directory,
    ),
    (
        "cve_2025_31133_masks_do_not_trust_the_images_null_device",
        replaced_null,
    ),
    (
        "cve_2025_52881_writes_to_proc_do_not_go_where_a_container_points",
        redirected_proc,
    ),
    (
        "cve_2026_41579_system_directories_that_are_links_are_refused",
        linked_directories,
    ),
    (
        "cve_2019_19921_nothing_but_a_procfs_is_mounted_on_proc",
        covered_proc,
    ),
    (
        "cve_2024_45310_mount_points_are_made_inside_only",
        made_outside,
    ),
    (
        "cve_2021_30465_a_mount_point_in_a_volume_stays_in_it",
        volume_links,
    ),
    (
        "cve_2021_30465_a_volume_whose_links_change_all_the_time_stays_shut",
        exchanged_links,
    ),
    (
        "cve_2016_9962_an_exec_is_hidden_while_it_enters",
        hidden_exec,
    ),
    (
        "a_fifo_as_user_database_does_not_hang_the_start",
        fifo_passwd,
    ),
];

fn image(path: &str) -> std::path::PathBuf {
    Path::new(IMAGE).join(path)
}

/// Three are its own, the fourth is the directory that it reads.
fn leaked_descriptors() {
    let list = ["ls", "-l", "/proc/self/fd"];
    let check = |text: &str| {
        let entries = text.lines().skip(1).filter(|line| !line.starts_with("ls:"));
        let names = entries.filter_map(|line| {
            line.split_whitespace()
                .skip_while(|word| !word.contains(':'))
                .nth(1)
        });
        let found: Vec<&str> = names.collect();
        assert!(
            found.len() <= 4 && found.starts_with(&["0", "1", "2"]),
            "{text}"
        );
        assert_eq!(text.matches("-> pipe:").count(), 2, "{text}");
        assert_eq!(
            text.matches("-> ").count(),
            3,
            "the directory itself is closed: {text}"
        );
    };
    let open: Vec<fs::File> = (0..40).map(|_| fs::File::open("/").unwrap()).collect();
    check(&output(config(&list), Extra::default()));
    let container = sleeper();
    let mut process = config(&list)["process"].take();
    check(&exec_output(container.pid, &mut process));
    container.kill();
    drop(open);
}

fn magic_directory() {
    for number in 0..40 {
        symlink(
            format!("/proc/self/fd/{number}"),
            image(&format!("link{number}")),
        )
        .unwrap();
    }
    let container = sleeper();
    let mut places = vec![
        "/proc/self/cwd".to_owned(),
        "/proc/self/root/tmp".to_owned(),
    ];
    places.extend((0..40).map(|number| format!("/link{number}")));
    places.extend((3..40).map(|number| format!("/proc/self/fd/{number}")));
    places.extend((3..20).map(|number| format!("/proc/self/fd/{number}/../..")));
    for place in places {
        let mut config = config(&["sh", "-c", "pwd; ls ../../../.."]);
        config["process"]["cwd"] = json!(place);
        match try_create(config.clone(), Extra::default()) {
            Err(Error::Invalid(_) | Error::CannotExecute(_) | Error::Os { .. }) => {}
            other => panic!("{place}: {:?}", other.map(|container| container.created)),
        }
        match try_exec(
            container.pid,
            &config["process"].take(),
            None,
            Cgroup::default(),
        ) {
            Err(Error::Invalid(_) | Error::CannotExecute(_)) => {}
            Err(other) => panic!("{place}: {other:?}"),
            Ok(_) => panic!("{place} was entered"),
        }
    }
    container.kill();
}

fn replaced_null() {
    fs::create_dir(image("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", image("dev/null")).unwrap();
    fs::write(image("secret"), "visible").unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let mut config = config(&[
        "sh",
        "-c",
        "stat -c %t:%T /secret /proc/interrupts; cat /secret",
    ]);
    config["linux"]["maskedPaths"] = json!(["/secret", "/proc/interrupts"]);
    assert_eq!(output(config.clone(), Extra::default()), "1:3\n1:3\n");
    // The same without a fresh /dev: the image's own lies in plain sight.
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let mut running = start(config, Extra::default());
    running.started().unwrap();
    let (text, _) = running.finish();
    assert!(text.starts_with("1:3\n1:3\n"), "{text}");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(),
        pattern
    );
}

fn redirected_proc() {
    // A container that covers what the executor writes to, for every exec after it.
    let mut config = config(&[
        "sh",
        "-c",
        "mount -t tmpfs x /proc && echo covered && sleep 600",
    ]);
    let names = ["CAP_SYS_ADMIN"];
    config["process"]["capabilities"] = crate::harness::capabilities(&names);
    let mut running = start(config, Extra::default());
    assert_eq!(running.line(), "covered");
    let mut process = crate::harness::config(&["sh", "-c", "ls -A /proc"])["process"].take();
    process["oomScoreAdj"] = json!(555);
    let text = exec_output(running.pid, &mut process);
    assert_eq!(text, "", "nothing was written into the cover");
    process["args"] = json!(["sleep", "600"]);
    let beside = try_exec(running.pid, &process, None, Cgroup::default()).unwrap();
    let path = format!("/proc/{}/oom_score_adj", beside.pid);
    assert_eq!(fs::read_to_string(path).unwrap(), "555\n");
    beside.kill();
    running.kill();
}

fn linked_directories() {
    fs::create_dir("/tmp/outside").unwrap();
    for target in [
        "/",
        "../../..",
        "/tmp",
        "../../../tmp/outside",
        "/tmp/outside",
        "dangling",
    ] {
        for name in ["proc", "sys", "dev"] {
            let link = image(name);
            symlink(target, &link).unwrap();
            let error = refusal(config(&["true"]), Extra::default());
            assert!(
                matches!(error, Error::Invalid(_)),
                "{name} -> {target}: {error:?}"
            );
            fs::remove_file(link).unwrap();
        }
    }
    fs::write(image("dev"), "").unwrap();
    let error = refusal(config(&["true"]), Extra::default());
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(fs::read_dir("/tmp/outside").unwrap().next().is_none());
}

fn covered_proc() {
    fs::create_dir_all("/tmp/fake/self/attr").unwrap();
    let volume =
        |place: &str| json!({ "destination": place, "type": "bind", "source": "/tmp/fake" });
    for place in ["/proc", "/proc/self", "/proc/sys", "/proc/self/attr"] {
        let mut config = config(&["true"]);
        config["mounts"].as_array_mut().unwrap().push(volume(place));
        let index = config["mounts"].as_array().unwrap().len() - 1;
        let error = refusal(config.clone(), Extra::default());
        assert!(matches!(error, Error::Invalid(_)), "{place}: {error:?}");
        let passed = vec![(index, mount::clone_path("/tmp/fake", true).unwrap())];
        let error = refusal(
            config,
            Extra {
                mounts: passed,
                ..Extra::default()
            },
        );
        assert!(matches!(error, Error::Invalid(_)), "{place}: {error:?}");
    }
    // By way of a link of the image as well.
    symlink("/proc", image("way")).unwrap();
    for place in ["/way", "/way/self/attr", "/way/sys/kernel"] {
        let mut config = config(&["true"]);
        config["mounts"].as_array_mut().unwrap().push(volume(place));
        let error = refusal(config, Extra::default());
        assert!(matches!(error, Error::Invalid(_)), "{place}: {error:?}");
    }
    // A view of the host's own is fine, and so is a file that only informs.
    let mut config = config(&["sh", "-c", "cat /proc/uptime; ls /proc/1"]);
    fs::write("/tmp/uptime", "1.0 1.0\n").unwrap();
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "destination": "/proc/uptime", "type": "bind", "source": "/tmp/uptime" }));
    assert!(output(config, Extra::default()).starts_with("1.0 1.0\n"));
}

fn made_outside() {
    fs::create_dir("/tmp/outside").unwrap();
    for (number, target) in [
        "/tmp/outside/x",
        "../../../../../tmp/outside/x",
        "/../tmp/outside/x",
    ]
    .iter()
    .enumerate()
    {
        symlink(target, image(&format!("etc/link{number}"))).unwrap();
    }
    symlink("/tmp/outside", image("srv")).unwrap();
    fs::write("/tmp/source", "bound").unwrap();
    let mut config = config(&[
        "sh",
        "-c",
        "cat /etc/link0 /etc/link1 /etc/link2 /srv/deep/file; ls /tmp/outside",
    ]);
    for place in ["/etc/link0", "/etc/link1", "/etc/link2", "/srv/deep/file"] {
        let bind = json!({ "destination": place, "type": "bind", "source": "/tmp/source" });
        config["mounts"].as_array_mut().unwrap().push(bind);
    }
    config["process"]["cwd"] = json!("/srv/work");
    let text = output(config, Extra::default());
    assert_eq!(text, "boundboundboundbounddeep\nwork\nx\n");
    assert!(
        fs::read_dir("/tmp/outside").unwrap().next().is_none(),
        "made on the host"
    );
}

fn volume_links() {
    fs::create_dir_all("/tmp/volume").unwrap();
    fs::create_dir_all("/tmp/outside/sub").unwrap();
    symlink("../../../../../tmp/outside", "/tmp/volume/a").unwrap();
    symlink("/tmp/outside", "/tmp/volume/b").unwrap();
    let bind = |place: &str| json!({ "destination": place, "type": "tmpfs", "source": "x" });
    for link in ["a", "b"] {
        let mut config = config(&["sh", "-c", "grep -c /tmp/outside/sub /proc/mounts"]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/data", "type": "bind", "source": "/tmp/volume" }));
        mounts.push(bind(&format!("/data/{link}/sub")));
        assert_eq!(
            output(config, Extra::default()),
            "1\n",
            "resolved in the container"
        );
    }
    assert_eq!(fs::read_dir("/tmp/outside").unwrap().count(), 1);
}

/// Swaps a directory of the volume with a link out of it, until it is killed.
fn exchanger() -> i32 {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let swap = || {
        renameat_with(
            CWD,
            "/tmp/volume/a",
            CWD,
            "/tmp/volume/b",
            RenameFlags::EXCHANGE,
        )
    };
    clone::spawn(SingleThreaded::verify().unwrap(), Kinds::NONE, None, || {
        while swap().is_ok() {}
        1
    })
    .unwrap()
}

fn exchanged_links() {
    fs::create_dir_all("/tmp/volume/a").unwrap();
    fs::create_dir("/tmp/outside").unwrap();
    symlink("/../../../tmp/outside", "/tmp/volume/b").unwrap();
    let swapper = exchanger();
    let mut inside = 0;
    for _ in 0..60 {
        let mut config = config(&["cat", "/proc/self/mountinfo"]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/data", "type": "bind", "source": "/tmp/volume" }));
        mounts.push(json!({ "destination": "/data/a/sub", "type": "tmpfs", "source": "mark" }));
        match try_create(config, Extra::default()) {
            Ok(container) => {
                let (text, _) = container.start().finish();
                let line = text.lines().find(|line| line.contains(" mark ")).unwrap();
                let place = line.split(' ').nth(4).unwrap();
                let known = ["/data/a/sub", "/data/b/sub", "/tmp/outside/sub"];
                assert!(known.contains(&place), "{place}");
                inside += 1;
            }
            // What was there was gone again.
            Err(Error::Os { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(
            fs::read_dir("/tmp/outside").unwrap().next().is_none(),
            "made on the host"
        );
    }
    assert!(inside > 0, "not one container came to be");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(swapper).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    clone::wait(swapper).unwrap();
}

fn hidden_exec() {
    // Root of the container, with all capabilities that a pod usually has, looks at
    // every process there is as fast as it can.
    let script = "echo up; while :; do for p in /proc/[0-9]*; do \
                  [ ${p#/proc/} = 1 ] || for f in $p/fd/*; do readlink $f; done; done; done \
                  2>/dev/null | grep -v '^pipe:\\|^/dev/null\\|/fd$'";
    let mut running = start(config(&["sh", "-c", script]), Extra::default());
    assert_eq!(running.line(), "up");
    for _ in 0..20 {
        exec_sh(running.pid, "true");
    }
    let (text, _) = running.kill();
    let strange: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("/proc/"))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

fn fifo_passwd() {
    fs::remove_file(image("etc/passwd")).unwrap();
    let status = std::process::Command::new("mkfifo")
        .arg(image("etc/passwd"))
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(sh("echo $HOME"), "/\n");
}
