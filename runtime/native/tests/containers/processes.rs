//! What a program finds when it starts, as a container's first or by exec.

use carpel_native::{Cgroup, Error};
use carpel_sys::clone::Ended;
use serde_json::json;

use crate::Case;
use crate::harness::{
    Extra, assert_no_children, config, exec_output, exec_sh, output, sh, sleeper, start, try_exec,
};

pub(crate) const CASES: &[Case] = &[
    ("the_environment_is_that_of_the_configuration", environment),
    ("a_home_that_is_not_set_comes_from_the_image", home),
    ("stdin_is_passed_on", stdin),
    ("signals_are_as_a_program_expects_them", signals),
    ("an_executed_program_shares_all_namespaces", exec_namespaces),
    (
        "an_executed_program_has_rights_and_directory_of_its_own",
        exec_process,
    ),
    ("a_missing_program_fails_its_exec", exec_missing),
    ("an_exec_in_a_dead_container_fails", exec_dead),
    ("an_executed_program_has_the_containers_oom_score", exec_oom),
    (
        "a_directory_is_made_for_the_first_process_only",
        working_directory,
    ),
    ("a_host_name_is_set_where_the_namespace_is_new", hostname),
    ("a_user_may_reopen_its_own_output", reopen_stdout),
];

fn environment() {
    let text = sh("env | sort | grep -v '^PWD=\\|^SHLVL=\\|^_='");
    assert_eq!(text, "HOME=/root\nLANG=C\nPATH=/usr/bin:/bin\n");
}

fn home() {
    let home_of = |uid: u32, env: &[&str]| {
        let mut config = config(&["/bin/sh", "-c", "echo $HOME"]);
        config["process"]["user"]["uid"] = json!(uid);
        config["process"]["env"] = json!(env);
        output(config, Extra::default())
    };
    assert_eq!(home_of(1000, &[]), "/home/web\n");
    assert_eq!(home_of(4711, &[]), "/\n");
    assert_eq!(home_of(1000, &["HOME=/else"]), "/else\n");
}

fn stdin() {
    let extra = Extra {
        input: Some("to be read"),
        ..Extra::default()
    };
    assert_eq!(output(config(&["cat"]), extra), "to be read");
}

fn signals() {
    let show = "grep -E '^Sig(Blk|Ign|Cgt)|^ShdPnd' /proc/self/status";
    let clean = "ShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n\
                 SigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n";
    let show = show.split('\'').collect::<Vec<_>>();
    let args = ["grep", "-E", show[1], "/proc/self/status"];
    assert_eq!(output(config(&args), Extra::default()), clean);
    let container = sleeper();
    let mut process = config(&args)["process"].take();
    assert_eq!(exec_output(container.pid, &mut process), clean);
    container.kill();
}

fn exec_namespaces() {
    let container = sleeper();
    let list = "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
    let of_init = ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .map(|name| std::fs::read_link(format!("/proc/{}/ns/{name}", container.pid)).unwrap())
        .map(|link| format!("{}\n", link.display()))
        .concat();
    assert_eq!(exec_sh(container.pid, list), of_init);
    assert!(exec_sh(container.pid, "cat /proc/1/cmdline").contains("sleep"));
    assert_eq!(
        exec_sh(container.pid, "echo made > /tmp/file; ls /"),
        sh("ls /")
    );
    assert_eq!(exec_sh(container.pid, "cat /tmp/file"), "made\n");
    container.kill();
    assert_no_children();
}

fn exec_process() {
    let container = sleeper();
    let mut process = config(&[
        "sh",
        "-c",
        "id -u; id -g; id -G; pwd; umask; ulimit -n; exit 5",
    ])["process"]
        .take();
    process["user"] = json!({ "uid": 33, "gid": 44, "additionalGids": [55], "umask": 0o27 });
    process["cwd"] = json!("/usr/bin");
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 100 }]);
    let running = try_exec(container.pid, &process, None, Cgroup::default()).unwrap();
    let (text, ended) = running.finish();
    assert_eq!(text, "33\n44\n44 55\n/usr/bin\n0027\n99\n");
    assert_eq!(ended, Ended::Exited(5));
    container.kill();
}

fn exec_missing() {
    let container = sleeper();
    let mut process = config(&["nothing"])["process"].take();
    let error = try_exec(container.pid, &process, None, Cgroup::default())
        .err()
        .unwrap();
    assert!(matches!(error, Error::CannotExecute(_)), "{error:?}");
    process["args"] = json!(["true"]);
    process["cwd"] = json!("/no/directory");
    let error = try_exec(container.pid, &process, None, Cgroup::default())
        .err()
        .unwrap();
    assert!(matches!(error, Error::CannotExecute(_)), "{error:?}");
    process["terminal"] = json!(true);
    let error = try_exec(container.pid, &process, None, Cgroup::default())
        .err()
        .unwrap();
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    container.kill();
    assert_no_children();
}

fn exec_dead() {
    let running = start(config(&["true"]), Extra::default());
    let pidfd = rustix::process::Pid::from_raw(running.pid).unwrap();
    let waited = rustix::process::waitid(
        rustix::process::WaitId::Pid(pidfd),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
    );
    assert!(waited.unwrap().unwrap().exited());
    let process = config(&["true"])["process"].take();
    let error = try_exec(running.pid, &process, None, Cgroup::default())
        .err()
        .unwrap();
    assert!(matches!(error, Error::Os { .. }), "{error:?}");
    running.finish();
}

fn exec_oom() {
    let extra = Extra {
        oom_score_adj: Some(321),
        ..Extra::default()
    };
    let mut running = start(config(&["sh", "-c", "echo up; sleep 600"]), extra);
    running.line();
    assert_eq!(
        exec_sh(running.pid, "cat /proc/self/oom_score_adj"),
        "321\n"
    );
    let mut process = config(&["cat", "/proc/self/oom_score_adj"])["process"].take();
    process["oomScoreAdj"] = json!(777);
    assert_eq!(exec_output(running.pid, &mut process), "777\n");
    running.kill();
}

fn working_directory() {
    let mut config = config(&["sh", "-c", "pwd; stat -c %a:%u /srv/deep"]);
    config["process"]["cwd"] = json!("/srv/deep/er");
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    assert_eq!(output(config, Extra::default()), "/srv/deep/er\n755:0\n");
}

fn hostname() {
    let mut config = config(&["cat", "/proc/sys/kernel/hostname"]);
    config["hostname"] = json!("inner");
    let outside = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(output(config.clone(), Extra::default()), outside);
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "uts" }));
    assert_eq!(output(config, Extra::default()), "inner\n");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
        outside
    );
}

fn reopen_stdout() {
    let mut config = config(&["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"]);
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    assert_eq!(output(config, Extra::default()), "out\nerr\n");
    let null = std::fs::metadata("/dev/null").unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&null),
        0,
        "the holder's null device"
    );
}
