//! What a container may do.

use carpel_native::{Cgroup, Error};
use serde_json::{Value, json};

use crate::Case;
use crate::harness::{
    Extra, capabilities, config, create, exec_output, filter_without, output, refusal, sh, sleeper,
    start, try_exec,
};

pub(crate) const CASES: &[Case] = &[
    ("user_groups_and_umask_are_set_and_no_others_kept", user),
    (
        "capabilities_are_those_named_and_none_inherited",
        capability_sets,
    ),
    (
        "a_user_keeps_ambient_capabilities_over_its_program",
        ambient,
    ),
    ("capabilities_nobody_holds_are_left_out", unheld),
    ("no_new_privs_is_on_only_if_asked", no_new_privs),
    ("the_filter_is_on_the_first_process_and_on_execs", seccomp),
    ("a_filter_that_is_none_is_refused", bad_seccomp),
    ("limits_of_resources_are_set", limits),
    ("a_lower_oom_score_is_set_or_reported", oom_score),
    (
        "sysctls_are_set_in_the_namespaces_of_the_container",
        sysctls,
    ),
    ("a_session_keyring_is_not_the_holders", keyring),
];

fn user() {
    let mut config = config(&[
        "sh",
        "-c",
        "id -u; id -g; id -G; umask; grep Groups /proc/self/status",
    ]);
    config["process"]["user"] =
        json!({ "uid": 1000, "gid": 2000, "additionalGids": [3000, 3001], "umask": 0o77 });
    let text = output(config, Extra::default());
    assert_eq!(
        text,
        "1000\n2000\n2000 3000 3001\n0077\nGroups:\t3000 3001 \n"
    );
    assert_eq!(
        sh("umask; grep Groups /proc/self/status"),
        "0022\nGroups:\t \n"
    );
}

fn caps_of(status: &str, kind: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(kind)).unwrap();
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

fn status(config: &mut Value) -> String {
    config["process"]["args"] = json!(["cat", "/proc/self/status"]);
    output(config.clone(), Extra::default())
}

fn capability_sets() {
    let asked = 1 | 1 << 5 | 1 << 6 | 1 << 7;
    let container = sleeper();
    let mut process = config(&["cat", "/proc/self/status"])["process"].take();
    for text in [
        status(&mut config(&[])),
        exec_output(container.pid, &mut process),
    ] {
        assert_eq!(caps_of(&text, "CapInh"), 0, "{text}");
        assert_eq!(caps_of(&text, "CapAmb"), 0, "{text}");
        for kind in ["CapBnd", "CapPrm", "CapEff"] {
            assert_eq!(caps_of(&text, kind), asked, "{text}");
        }
    }
    container.kill();
    let mut user = config(&[]);
    user["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let text = status(&mut user);
    assert_eq!(
        (caps_of(&text, "CapEff"), caps_of(&text, "CapPrm")),
        (0, 0),
        "{text}"
    );
    assert_eq!(caps_of(&text, "CapBnd"), asked, "{text}");
    let mut nothing = config(&[]);
    nothing["process"]["capabilities"].take();
    let text = status(&mut nothing);
    assert_eq!(
        (caps_of(&text, "CapEff"), caps_of(&text, "CapBnd")),
        (0, 0),
        "{text}"
    );
}

fn ambient() {
    let mut config = config(&[]);
    let names = ["CAP_KILL"];
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    config["process"]["capabilities"] = json!({
        "bounding": names, "effective": names, "permitted": names,
        "inheritable": names, "ambient": names,
    });
    let text = status(&mut config);
    for kind in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(caps_of(&text, kind), 1 << 5, "{kind}: {text}");
    }
}

fn unheld() {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut config = config(&[]);
    let all: Vec<String> = serde_json::from_value(json!([
        "CAP_CHOWN",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_ADMIN",
        "CAP_SYS_MODULE",
        "CAP_BPF",
    ]))
    .unwrap();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    config["process"]["capabilities"] = capabilities(&names);
    let wanted = 1 | 1 << 24 | 1 << 21 | 1 << 16 | 1 << 39;
    let text = status(&mut config);
    assert_eq!(
        caps_of(&text, "CapPrm"),
        wanted & caps_of(&own, "CapPrm"),
        "{text}"
    );
}

fn no_new_privs() {
    let mut config = config(&[]);
    assert!(status(&mut config).contains("NoNewPrivs:\t1"));
    config["process"]["noNewPrivileges"] = json!(false);
    assert!(status(&mut config).contains("NoNewPrivs:\t0"));
}

/// mkdir(2) and mkdirat(2): busybox uses the one that the C library prefers.
fn without_mkdir() -> Vec<u8> {
    filter_without(if cfg!(target_arch = "x86_64") { 83 } else { 34 })
}

fn seccomp() {
    for (no_new_privs, uid) in [(true, 0), (true, 1000), (false, 0), (false, 1000)] {
        let script = "grep Seccomp: /proc/self/status; mkdir /tmp/x 2>&1 && echo made; sleep 600";
        let mut config = config(&["sh", "-c", script]);
        config["process"]["noNewPrivileges"] = json!(no_new_privs);
        config["process"]["user"] = json!({ "uid": uid, "gid": uid });
        let extra = Extra {
            seccomp: Some(without_mkdir()),
            ..Extra::default()
        };
        let mut running = start(config.clone(), extra);
        running.started().unwrap();
        assert_eq!(running.line(), "Seccomp:\t2");
        let said = running.line();
        assert!(said.contains("Invalid cross-device link"), "{said}");
        let mut process = config["process"].take();
        process["args"] = json!([
            "sh",
            "-c",
            "mkdir /tmp/y 2>&1; grep Seccomp: /proc/self/status"
        ]);
        let filter = Some(without_mkdir());
        let (said, _) = try_exec(running.pid, &process, filter, Cgroup::default())
            .unwrap()
            .finish();
        assert!(
            said.contains("cross-device") && said.contains("Seccomp:\t2"),
            "{said}"
        );
        running.kill();
    }
    assert!(sh("mkdir /tmp/x && echo made").contains("made"));
}

fn bad_seccomp() {
    for bad in [vec![], vec![0; 7], vec![0xff; 16]] {
        let extra = Extra {
            seccomp: Some(bad),
            ..Extra::default()
        };
        let error = refusal(config(&["true"]), extra);
        assert!(error.to_string().contains("seccomp filter"), "{error}");
    }
}

fn limits() {
    let mut config = config(&["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"]);
    config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
    ]);
    assert_eq!(output(config, Extra::default()), "64\n128\n0\n");
}

fn oom_score() {
    let mut config = config(&["cat", "/proc/self/oom_score_adj"]);
    config["process"]["oomScoreAdj"] = json!(500);
    assert_eq!(output(config.clone(), Extra::default()), "500\n");
    // The request's own word comes before the configuration's.
    let extra = Extra {
        oom_score_adj: Some(-1000),
        ..Extra::default()
    };
    let before = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let container = create(config, extra);
    let refused = container.created.oom_score_adj_refused;
    let (text, _) = container.start().finish();
    assert_eq!(
        text,
        if refused {
            before
        } else {
            "-1000\n".to_owned()
        }
    );
}

fn sysctls() {
    let mut config = config(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    config["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "77" });
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "network" }));
    assert_eq!(output(config.clone(), Extra::default()), "77\n");
    let ours = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    assert_eq!(ours, "1024\n");
    config["linux"]["sysctl"] = json!({ "net.ipv4.no_such": "1" });
    let error = refusal(config, Extra::default());
    assert!(
        matches!(&error, Error::Os { what, .. } if what.contains("net.ipv4.no_such")),
        "{error}"
    );
}

fn keyring() {
    let sessions = |keys: &str| -> Vec<String> {
        let lines = keys.lines().filter(|line| line.contains(" _ses"));
        lines
            .map(|line| line.split_whitespace().next().unwrap().to_owned())
            .collect()
    };
    let Ok(before) = std::fs::read_to_string("/proc/keys") else {
        return;
    };
    let mut all = config(&["cat", "/proc/keys"]);
    all["linux"]["maskedPaths"] = json!([]);
    let inside = output(all, Extra::default());
    let known = sessions(&before);
    assert!(
        sessions(&inside).iter().any(|key| !known.contains(key)),
        "{before}\n{inside}"
    );
}
