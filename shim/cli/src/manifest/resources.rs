//! Requests and limits in the terms of a cgroup, by the kubelet's formulas.

use carpel_proto::cri::{HugepageLimit, LinuxContainerResources};

use super::model::Resources;

const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// `memory` is the node's, for the order in which the kernel picks what to kill.
pub(super) fn convert(resources: &Resources, memory: i64) -> LinuxContainerResources {
    let shares = resources.cpu_request.or(resources.cpu_limit);
    LinuxContainerResources {
        cpu_period: resources.cpu_limit.map_or(0, |_| PERIOD),
        cpu_quota: resources.cpu_limit.map_or(0, quota),
        cpu_shares: shares.map_or(0, cpu_shares),
        memory_limit_in_bytes: resources.memory_limit.unwrap_or(0),
        oom_score_adj: resources
            .memory_request
            .map_or(0, |request| oom_score(request, memory)),
        hugepage_limits: resources
            .huge_pages
            .iter()
            .map(|(size, limit)| HugepageLimit {
                page_size: format!("{size}B"),
                limit: *limit,
            })
            .collect(),
        ..LinuxContainerResources::default()
    }
}

fn quota(milli: i64) -> i64 {
    (milli.saturating_mul(PERIOD) / 1000).max(MIN_QUOTA)
}

fn cpu_shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The more of the node a container asked for, the later it is killed.
fn oom_score(request: i64, memory: i64) -> i64 {
    if memory <= 0 {
        return 0;
    }
    (1000 - request.saturating_mul(1000) / memory).clamp(2, 999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory() {
        let given = Resources {
            cpu_request: Some(250),
            cpu_limit: Some(500),
            memory_request: Some(1 << 28),
            memory_limit: Some(1 << 29),
            huge_pages: vec![("2Mi".to_owned(), 4 << 20)],
        };
        let out = convert(&given, 1 << 30);
        assert_eq!(
            (out.cpu_period, out.cpu_quota, out.cpu_shares),
            (100_000, 50_000, 256)
        );
        assert_eq!(
            (out.memory_limit_in_bytes, out.oom_score_adj),
            (1 << 29, 750)
        );
        assert_eq!(out.hugepage_limits[0].page_size, "2MiB");
    }

    #[test]
    fn a_limit_alone_is_a_request_too_and_nothing_is_nothing() {
        let limit = Resources {
            cpu_limit: Some(5),
            ..Resources::default()
        };
        let out = convert(&limit, 1 << 30);
        assert_eq!((out.cpu_quota, out.cpu_shares), (1000, 5));
        assert_eq!(
            convert(&Resources::default(), 1 << 30),
            LinuxContainerResources::default()
        );
    }
}
