//! Commands about the node and about carpel itself.

use serde_json::Value;

use crate::harness::Harness;

#[test]
fn each_shell_gets_a_script_that_knows_the_commands() {
    let harness = Harness::new();
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef carpel"),
        ("fish", "complete -c carpel"),
    ] {
        let script = harness.carpel(&["completion", shell]).succeed();
        for word in [sign, "doctor", "pods-only"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let told = harness.carpel(&["completion", "cmd"]).fail(2);
    assert!(told.contains("cmd"), "{told}");
}

#[test]
fn bash_takes_the_script() {
    let harness = Harness::new();
    let script = harness.carpel(&["completion", "bash"]).succeed();
    let path = harness.write("carpel.bash", script.as_bytes());
    let checked = std::process::Command::new("bash")
        .args(["-n", &path])
        .status()
        .unwrap();
    assert!(checked.success());
}

#[test]
fn there_is_a_page_for_each_command() {
    let harness = Harness::new();
    let dir = harness.path("man/deep");
    harness.carpel(&["man", &dir]).succeed();
    for page in [
        "carpel.1",
        "carpel-doctor.1",
        "carpel-save.1",
        "carpel-events.1",
    ] {
        let text = std::fs::read_to_string(format!("{dir}/{page}")).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH"), "{page}");
    }
    let file = harness.write("file", b"");
    let told = harness.carpel(&["man", &file]).fail(1);
    assert!(told.contains(&file), "{told}");
}

#[test]
fn doctor_passes_on_what_the_daemon_says_is_left_over() {
    let harness = Harness::with_admin();
    let done = harness.carpel(&["doctor", "--carpeld", "/nonexistent/carpeld", "-o", "json"]);
    assert!(matches!(done.0.status.code(), Some(1 | 2)));
    let report: Value = serde_json::from_slice(&done.0.stdout).unwrap();
    let lines = report["lines"].as_array().unwrap();
    let of = |topic: &str| {
        lines
            .iter()
            .filter(|line| line["topic"] == topic)
            .collect::<Vec<_>>()
    };
    let leftovers = of("leftovers");
    assert_eq!(leftovers.len(), 1, "{leftovers:?}");
    assert_eq!(leftovers[0]["message"], "link cpl0123: device of nobody");
    assert_eq!(leftovers[0]["level"], "warning");
    for topic in ["kernel", "cgroups", "config", "network", "rights", "daemon"] {
        assert!(!of(topic).is_empty(), "{topic}");
    }
    let counted = ["ok", "warnings", "failed"].map(|kind| report[kind].as_u64().unwrap());
    assert_eq!(counted.iter().sum::<u64>(), lines.len() as u64);
}

#[test]
fn doctor_without_a_daemon_fails_and_still_tells_the_rest() {
    let harness = Harness::new();
    let nowhere = harness.path("nowhere.sock");
    let done = harness.carpel(&["--socket", &nowhere, "doctor"]);
    assert_eq!(done.0.status.code(), Some(2));
    let told = String::from_utf8(done.0.stdout).unwrap();
    for part in [
        "nobody answers",
        &nowhere,
        "kernel",
        "-> start carpeld",
        "failed",
    ] {
        assert!(told.contains(part), "no {part} in {told}");
    }
}

#[test]
fn what_a_runtime_cannot_do_is_told() {
    let harness = Harness::new();
    let told = harness.carpel(&["stats"]).fail(1);
    assert!(told.contains("ask what pods use"), "{told}");
    let told = harness.carpel(&["events", "--for", "1s"]).fail(1);
    assert!(told.contains("follow events"), "{told}");
}
