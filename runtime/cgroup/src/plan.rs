//! Which writes make a group keep its limits, in an order that the kernel accepts.
//! Pure: what the files say now comes as a function.

use crate::limits::Limits;

/// What a file of the group says now; None if there is no such file.
pub(crate) type Now<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One write into a file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: String,
    pub(crate) file: String,
    pub(crate) value: String,
    /// A kernel without the file does what is asked for all the same.
    pub(crate) may_lack: bool,
}

impl Setting {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass numbers and temporaries"
    )]
    fn new(file: impl Into<String>, value: impl ToString) -> Self {
        let file = file.into();
        Self {
            controller: file.split('.').next().unwrap_or_default().to_owned(),
            file,
            value: value.to_string(),
            may_lack: false,
        }
    }

    fn may_lack(mut self, may: bool) -> Self {
        self.may_lack = may;
        self
    }
}

const PERIOD: u64 = 100_000;

/// Writes for version 1.
pub(crate) fn v1(limits: &Limits, now: Now<'_>) -> Vec<Setting> {
    let mut all = cpuset(limits);
    if limits.cpu_shares != 0 {
        all.push(Setting::new("cpu.shares", limits.cpu_shares));
    }
    all.extend(cpu_time_v1(limits, now));
    all.extend(memory_v1(limits, now));
    if limits.pids > 0 {
        all.push(Setting::new("pids.max", limits.pids));
    }
    for (size, limit) in &limits.hugepages {
        let file = |kind: &str| format!("hugetlb.{size}.{kind}limit_in_bytes");
        // Reservations count too where the kernel can (5.7): mmap fails, not SIGBUS.
        all.push(Setting::new(file("rsvd."), limit).may_lack(true));
        all.push(Setting::new(file(""), limit).may_lack(*limit == 0));
    }
    all
}

/// Writes for version 2.
pub(crate) fn v2(limits: &Limits, now: Now<'_>) -> Vec<Setting> {
    let mut all = cpuset(limits);
    if limits.cpu_shares != 0 {
        all.push(Setting::new("cpu.weight", weight(limits.cpu_shares)));
    }
    if limits.cpu_quota != 0 || limits.cpu_period != 0 {
        all.push(Setting::new("cpu.max", cpu_max(limits, now)));
    }
    if limits.memory != 0 {
        all.push(Setting::new("memory.max", or_max(limits.memory)));
    }
    if limits.memory_swap != 0 {
        // v2 counts swap alone; the request counts memory and swap together.
        let swap = match limits.memory_swap {
            all if all < 0 => -1,
            both => (both - limits.memory.max(0)).max(0),
        };
        all.push(Setting::new("memory.swap.max", or_max(swap)).may_lack(swap == 0));
    }
    if limits.pids > 0 {
        all.push(Setting::new("pids.max", limits.pids));
    }
    for (size, limit) in &limits.hugepages {
        let file = |kind: &str| format!("hugetlb.{size}.{kind}max");
        all.push(Setting::new(file("rsvd."), limit).may_lack(true));
        all.push(Setting::new(file(""), limit).may_lack(*limit == 0));
    }
    for (file, value) in &limits.unified {
        all.push(Setting::new(file, value));
    }
    all
}

fn cpuset(limits: &Limits) -> Vec<Setting> {
    let sets = [
        ("cpuset.cpus", &limits.cpuset_cpus),
        ("cpuset.mems", &limits.cpuset_mems),
    ];
    let given = sets.into_iter().filter(|(_, set)| !set.is_empty());
    given.map(|(file, set)| Setting::new(file, set)).collect()
}

/// The kernel refuses a share of time beyond the parent's, at every step: between the
/// two writes it must not be larger than before and after. So a longer period comes
/// first, a shorter one last.
fn cpu_time_v1(limits: &Limits, now: Now<'_>) -> Vec<Setting> {
    let period =
        (limits.cpu_period != 0).then(|| Setting::new("cpu.cfs_period_us", limits.cpu_period));
    let quota =
        (limits.cpu_quota != 0).then(|| Setting::new("cpu.cfs_quota_us", limits.cpu_quota.max(-1)));
    let old = number(now, "cpu.cfs_period_us").unwrap_or(PERIOD);
    let (first, last) = if limits.cpu_period >= old {
        (period, quota)
    } else {
        (quota, period)
    };
    first.into_iter().chain(last).collect()
}

/// One line of both: the half that is not asked for stays.
fn cpu_max(limits: &Limits, now: Now<'_>) -> String {
    let line = now("cpu.max").unwrap_or_default();
    let mut old = line.split_whitespace();
    let old_quota = old.next().unwrap_or("max").to_owned();
    let old_period = old
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(PERIOD);
    let quota = match limits.cpu_quota {
        0 => old_quota,
        quota => or_max(quota),
    };
    let period = match limits.cpu_period {
        0 => old_period,
        period => period,
    };
    format!("{quota} {period}")
}

/// Memory never may be more than memory and swap together, at no step.
fn memory_v1(limits: &Limits, now: Now<'_>) -> Vec<Setting> {
    let memory =
        (limits.memory != 0).then(|| Setting::new("memory.limit_in_bytes", limits.memory.max(-1)));
    let both = (limits.memory_swap != 0).then(|| {
        // Equal limits mean "no swap", which holds where swap is not accounted.
        let no_swap = limits.memory_swap == limits.memory || limits.memory_swap < 0;
        Setting::new("memory.memsw.limit_in_bytes", limits.memory_swap.max(-1)).may_lack(no_swap)
    });
    let old = number(now, "memory.limit_in_bytes").unwrap_or(u64::MAX);
    let raises =
        limits.memory_swap < 0 || u64::try_from(limits.memory_swap).is_ok_and(|new| new >= old);
    let (first, last) = if raises {
        (both, memory)
    } else {
        (memory, both)
    };
    first.into_iter().chain(last).collect()
}

fn number(now: Now<'_>, file: &str) -> Option<u64> {
    now(file)?.trim().parse().ok()
}

fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// From shares (2 to 262144) to a weight (1 to 10000), as Kubernetes converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Bytes that must go before a v2 group may be limited to `limit`: the kernel would
/// kill for them.
pub(crate) fn excess(usage: u64, limit: i64) -> Option<u64> {
    let limit = u64::try_from(limit).ok().filter(|limit| *limit > 0)?;
    usage.checked_sub(limit).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::{Limits, Setting, excess, v1, v2, weight};

    fn shown(settings: &[Setting]) -> Vec<String> {
        let one = |s: &Setting| {
            let may = if s.may_lack { "?" } else { "" };
            format!("{}{may}={}", s.file, s.value)
        };
        settings.iter().map(one).collect()
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    fn files<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            let found = files.iter().find(|(file, _)| *file == name);
            found.map(|(_, text)| (*text).to_owned())
        }
    }

    #[test]
    fn shares_become_a_weight() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
        assert_eq!((weight(0), weight(u64::MAX)), (1, 10_000));
    }

    #[test]
    fn nothing_asked_for_writes_nothing() {
        let nothing = Limits::default();
        assert!(v1(&nothing, &none).is_empty() && v2(&nothing, &none).is_empty());
    }

    #[test]
    fn each_limit_is_told_in_the_words_of_its_version() {
        let limits = Limits {
            cpu_shares: 1024,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            memory: 1 << 20,
            memory_swap: 1 << 20,
            pids: 7,
            cpuset_cpus: "0-1".into(),
            unified: [("memory.high".to_owned(), "900000".to_owned())].into(),
            ..Limits::default()
        };
        assert_eq!(
            shown(&v1(&limits, &none)),
            [
                "cpuset.cpus=0-1",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=20000",
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes?=1048576",
                "pids.max=7"
            ]
        );
        assert_eq!(
            shown(&v2(&limits, &none)),
            [
                "cpuset.cpus=0-1",
                "cpu.weight=39",
                "cpu.max=20000 100000",
                "memory.max=1048576",
                "memory.swap.max?=0",
                "pids.max=7",
                "memory.high=900000"
            ]
        );
    }

    #[test]
    fn memory_and_swap_change_in_the_order_that_never_crosses() {
        let now = files(&[("memory.limit_in_bytes", "100\n")]);
        let order = |memory, memory_swap| {
            let limits = Limits {
                memory,
                memory_swap,
                ..Limits::default()
            };
            let files = v1(&limits, &now).into_iter().map(|s| s.file);
            files.collect::<Vec<_>>()
        };
        let (memory, both) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        assert_eq!(order(200, 200), [both, memory]);
        assert_eq!(order(200, -1), [both, memory]);
        assert_eq!(order(50, 50), [memory, both]);
        assert_eq!(order(50, 120), [both, memory]);
        assert_eq!(order(50, 0), [memory]);
        assert_eq!(order(-1, -1), [both, memory]);
    }

    #[test]
    fn a_longer_period_comes_first_and_a_shorter_one_last() {
        let now = files(&[("cpu.cfs_period_us", "100000\n")]);
        let order = |cpu_quota, cpu_period| {
            let limits = Limits {
                cpu_quota,
                cpu_period,
                ..Limits::default()
            };
            shown(&v1(&limits, &now))
        };
        assert_eq!(
            order(5000, 200_000),
            ["cpu.cfs_period_us=200000", "cpu.cfs_quota_us=5000"]
        );
        assert_eq!(
            order(5000, 50_000),
            ["cpu.cfs_quota_us=5000", "cpu.cfs_period_us=50000"]
        );
        assert_eq!(order(-7, 0), ["cpu.cfs_quota_us=-1"]);
        assert_eq!(order(0, 7000), ["cpu.cfs_period_us=7000"]);
    }

    #[test]
    fn on_v2_the_half_of_cpu_max_that_is_not_asked_for_stays() {
        let now = files(&[("cpu.max", "20000 50000\n")]);
        let line = |cpu_quota, cpu_period| {
            let limits = Limits {
                cpu_quota,
                cpu_period,
                ..Limits::default()
            };
            v2(&limits, &now)[0].value.clone()
        };
        assert_eq!(line(30_000, 0), "30000 50000");
        assert_eq!(line(0, 70_000), "20000 70000");
        assert_eq!(line(-1, 0), "max 50000");
        let limits = Limits {
            cpu_quota: 10,
            ..Limits::default()
        };
        assert_eq!(v2(&limits, &none)[0].value, "10 100000");
    }

    #[test]
    fn on_v2_swap_is_what_is_beyond_memory() {
        let swap = |memory, memory_swap| {
            let limits = Limits {
                memory,
                memory_swap,
                ..Limits::default()
            };
            shown(&v2(&limits, &none)).pop().unwrap()
        };
        assert_eq!(swap(100, 150), "memory.swap.max=50");
        assert_eq!(swap(100, 100), "memory.swap.max?=0");
        assert_eq!(swap(100, -1), "memory.swap.max=max");
    }

    #[test]
    fn huge_pages_of_zero_are_written_where_the_files_are() {
        let limits = Limits {
            hugepages: vec![("2MB".into(), 0), ("1GB".into(), 1 << 30)],
            ..Limits::default()
        };
        assert_eq!(
            shown(&v1(&limits, &none)),
            [
                "hugetlb.2MB.rsvd.limit_in_bytes?=0",
                "hugetlb.2MB.limit_in_bytes?=0",
                "hugetlb.1GB.rsvd.limit_in_bytes?=1073741824",
                "hugetlb.1GB.limit_in_bytes=1073741824"
            ]
        );
        assert_eq!(
            shown(&v2(&limits, &none))[1..3],
            ["hugetlb.2MB.max?=0", "hugetlb.1GB.rsvd.max?=1073741824"]
        );
    }

    #[test]
    fn only_what_is_beyond_the_new_limit_must_go() {
        assert_eq!(excess(100, 70), Some(30));
        assert_eq!(
            (excess(70, 70), excess(100, -1), excess(100, 0)),
            (None, None, None)
        );
    }
}
