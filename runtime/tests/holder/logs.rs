//! Log files: changing them, and what the disk has no room for.

use std::time::Duration;

use carpel_proto::holder::ReopenLog;
use carpel_proto::holder::request::Call;

use crate::common::{Pod, open_log, read_log, wait};

fn reopen(pod: &mut Pod, id: &str, name: &str) {
    let call = ReopenLog {
        container_id: id.into(),
        log_fd: 0,
    };
    let file = open_log(&pod.dir.join(name));
    pod.daemon.call(Call::ReopenLog(call), &[file]).unwrap();
}

#[test]
fn a_new_log_file_takes_over_without_a_hole() {
    let mut pod = Pod::new();
    let script = "seq 1 200000; echo ready; sleep 100";
    pod.create("one", script);
    pod.start("one").unwrap();
    let mut files = vec![pod.log_path("one")];
    let mut finished = Vec::new();
    for n in 0..5 {
        std::thread::sleep(Duration::from_millis(5));
        let name = format!("log{n}");
        reopen(&mut pod, "one", &name);
        // From the answer on the old file stays as it is.
        finished.push(std::fs::metadata(&files[n]).unwrap().len());
        files.push(pod.dir.join(name));
    }
    let all = wait("the last line", || {
        let all: Vec<_> = files.iter().flat_map(|file| read_log(file)).collect();
        (all.last()? == "stdout F ready").then_some(all)
    });
    for (file, size) in files.iter().zip(finished) {
        assert_eq!(std::fs::metadata(file).unwrap().len(), size);
    }
    assert_eq!(all.len(), 200_001);
    for (n, line) in all[..200_000].iter().enumerate() {
        assert_eq!(line, &format!("stdout F {}", n + 1));
    }
}

#[test]
fn a_line_without_an_end_does_not_hold_up_a_new_file() {
    let mut pod = Pod::new();
    pod.create("one", "head -c 40000 /dev/zero | tr '\\0' x; sleep 100");
    pod.start("one").unwrap();
    pod.wait_log("one", "stdout P x");
    reopen(&mut pod, "one", "new");
    let old = pod.log("one");
    assert_eq!(old.last().unwrap(), "stdout F ");
    pod.delete("one");
    let lines: Vec<_> = old
        .into_iter()
        .chain(read_log(&pod.dir.join("new")))
        .collect();
    let bytes: usize = lines
        .iter()
        .map(|line| line.len() - "stdout F ".len())
        .sum();
    assert_eq!(bytes, 40_000);
}

#[test]
fn a_full_disk_costs_lines_and_is_counted() {
    let mut pod = Pod::new();
    std::os::unix::fs::symlink("/dev/full", pod.log_path("one")).unwrap();
    pod.create("one", "seq 1 10000; exit 4");
    pod.start("one").unwrap();
    let exit = pod.daemon.container_exit("one");
    assert_eq!(exit.exit_code, 4);
    let log = exit.log.unwrap();
    assert_eq!((log.written_bytes, log.dropped_bytes), (0, 48_894 - 10_000));
}
