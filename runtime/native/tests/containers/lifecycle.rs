//! From create to the end of the first process.

use std::os::unix::fs::MetadataExt;

use carpel_native::Error;
use carpel_sys::clone::{self, Ended};
use serde_json::json;

use crate::Case;
use crate::harness::{Extra, assert_no_children, config, create, refusal, sh, start, try_create};

pub(crate) const CASES: &[Case] = &[
    (
        "a_container_waits_for_its_start_and_tells_its_status",
        waits_for_start,
    ),
    ("a_container_that_is_given_up_runs_nothing", given_up),
    (
        "a_program_that_is_missing_is_told_at_the_start",
        missing_program,
    ),
    (
        "a_program_without_its_interpreter_is_told_apart",
        missing_interpreter,
    ),
    (
        "the_first_process_is_the_holders_child_and_number_one_inside",
        first_process,
    ),
    ("a_pid_namespace_is_joined_by_its_path", joined_pid),
    ("a_killed_container_tells_the_signal", killed),
    (
        "nobody_inside_can_look_at_a_process_before_its_program",
        hidden_before_start,
    ),
    ("what_is_not_done_is_refused_by_name", refused_by_name),
    (
        "bad_requests_change_nothing_and_leave_nothing",
        bad_requests,
    ),
    ("hundred_containers_leave_no_descriptor_behind", no_leak),
];

fn waits_for_start() {
    let container = create(
        config(&["sh", "-c", "echo hello; exit 7"]),
        Extra::default(),
    );
    let mut running = container.start();
    running.started().unwrap();
    let (text, ended) = running.finish();
    assert_eq!((text.as_str(), ended), ("hello\n", Ended::Exited(7)));
    assert_no_children();
}

fn given_up() {
    let container = create(config(&["sh", "-c", "echo hello"]), Extra::default());
    let (text, ended) = container.give_up().finish();
    assert_eq!(text, "");
    assert_ne!(ended, Ended::Exited(0));
}

fn missing_program() {
    for (name, said) in [
        (
            "nothing",
            "exec: \"nothing\": executable file not found in $PATH",
        ),
        (
            "/no/thing",
            "exec: \"/no/thing\": no such file or directory",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/etc", "exec: \"/etc\": permission denied"),
    ] {
        let mut running = start(config(&[name]), Extra::default());
        let error = running.started().unwrap_err();
        assert!(
            matches!(&error, Error::CannotExecute(text) if text == said),
            "{error}"
        );
        assert_eq!(running.finish().1, Ended::Exited(127));
    }
}

fn missing_interpreter() {
    let script = "#!/no/interpreter\n";
    let image = std::path::Path::new(crate::harness::IMAGE);
    std::fs::write(image.join("bin/odd"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(image.join("bin/odd"), mode).unwrap();
    let mut running = start(config(&["/bin/odd"]), Extra::default());
    let error = running.started().unwrap_err();
    assert!(error.to_string().contains("interpreter"), "{error}");
    running.finish();
}

fn first_process() {
    let mut running = start(
        config(&["sh", "-c", "echo $$; sleep 600"]),
        Extra::default(),
    );
    assert_eq!(running.line(), "1");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid)).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(fields[1], std::process::id().to_string(), "parent");
    assert_eq!(fields[3], running.pid.to_string(), "session");
    running.kill();
    assert_no_children();
}

fn joined_pid() {
    let first = crate::harness::sleeper();
    let mut joining = config(&["sh", "-c", "cat /proc/1/cmdline; [ $$ -gt 1 ]"]);
    joining["linux"]["namespaces"] = json!([
        { "type": "mount" },
        { "type": "pid", "path": format!("/proc/{}/ns/pid", first.pid) },
    ]);
    let text = crate::harness::output(joining, Extra::default());
    // The shell it began as may not have become it yet.
    assert!(text.contains("sleep"), "{text}");
    let mut inheriting = config(&["readlink", "/proc/self/ns/pid"]);
    inheriting["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    let ours = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let text = crate::harness::output(inheriting, Extra::default());
    assert_eq!(text.trim(), ours.to_str().unwrap());
    first.kill();
}

fn killed() {
    let (_, ended) = crate::harness::sleeper().kill();
    assert_eq!(ended, Ended::Signaled(9));
}

fn hidden_before_start() {
    let mut config = config(&["sleep", "600"]);
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let container = create(config, Extra::default());
    let owner = |pid: i32| std::fs::metadata(format!("/proc/{pid}/fd")).unwrap().uid();
    assert_eq!(
        owner(container.created.pid),
        0,
        "files of a process that may not be dumped"
    );
    let mut running = container.start();
    running.started().unwrap();
    assert_eq!(owner(running.pid), 1000);
    running.kill();
}

fn refused_by_name() {
    let changes = [
        ("/process/terminal", json!(true), "terminal"),
        ("/linux/namespaces", json!([{ "type": "user" }]), "User"),
        ("/linux/namespaces", json!([{ "type": "time" }]), "Time"),
        (
            "/linux/uidMappings",
            json!([{ "hostID": 1, "containerID": 0, "size": 1 }]),
            "uidMappings",
        ),
        ("/hooks", json!({}), "hooks"),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 1 }),
            "ioPriority",
        ),
        (
            "/process/apparmorProfile",
            json!("no-such-profile"),
            "AppArmor",
        ),
    ];
    for (place, value, said) in changes {
        let mut config = config(&["true"]);
        let (parent, name) = place.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        let error = refusal(config, Extra::default());
        assert!(
            matches!(&error, Error::Unsupported(text) if text.contains(said)),
            "{error}"
        );
    }
}

fn bad_requests() {
    let changes = [
        ("/process/args", json!([])),
        ("/process/env", json!(["A=\u{0}"])),
        ("/process/cwd", json!("tmp")),
        (
            "/process/user",
            json!({ "uid": 4_294_967_295_u32, "gid": 0 }),
        ),
        ("/linux/sysctl", json!({ "net/../../self/attr/exec": "1" })),
        ("/linux/rootfsPropagation", json!("sideways")),
        ("/mounts", json!([{ "destination": "/", "type": "tmpfs" }])),
        (
            "/mounts",
            json!([{ "destination": "/a", "type": "bind", "source": "relative" }]),
        ),
    ];
    for (place, value) in changes {
        let mut config = config(&["true"]);
        let (parent, name) = place.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        let error = refusal(config, Extra::default());
        assert!(matches!(error, Error::Invalid(_)), "{place}: {error:?}");
    }
    let mut absent = config(&["true"]);
    absent["mounts"] = json!([{ "destination": "/a", "type": "bind", "source": "/no/such" }]);
    let error = refusal(absent, Extra::default());
    assert!(error.to_string().contains("/no/such"), "{error}");
    let mut unknown = config(&["true"]);
    unknown["mounts"] = json!([{ "destination": "/a", "type": "nofs", "source": "x" }]);
    let error = refusal(unknown, Extra::default());
    assert!(error.to_string().contains("nofs on /a"), "{error}");
    assert!(sh("echo still fine").contains("still fine"));
}

fn no_leak() {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = (count(), mounts());
    for round in 0..100 {
        match round % 3 {
            0 => assert_eq!(sh("echo x"), "x\n"),
            1 => drop(
                create(config(&["true"]), Extra::default())
                    .give_up()
                    .finish(),
            ),
            _ => {
                let mut bad = config(&["true"]);
                bad["mounts"] = json!([{ "destination": "/proc", "type": "tmpfs" }]);
                drop(try_create(bad, Extra::default()).err().unwrap());
            }
        }
    }
    assert_eq!(before, (count(), mounts()));
    assert_no_children();
    assert!(clone::wait(1).is_err());
}
