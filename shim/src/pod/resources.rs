//! Limits in the form of records.

use carpel_proto::state;
use carpel_spec::intent::{HugepageLimit, Resources};

pub(super) fn to_record(resources: &Resources) -> state::Resources {
    let hugepages = resources
        .hugepages
        .iter()
        .map(|limit| state::HugepageLimit {
            page_size: limit.page_size.clone(),
            limit: limit.limit,
        });
    state::Resources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit: resources.memory_limit,
        memory_swap_limit: resources.memory_swap_limit,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepages: hugepages.collect(),
        unified: resources.unified.clone().into_iter().collect(),
    }
}

pub(super) fn of_record(record: &state::Resources) -> Resources {
    let hugepages = record.hugepages.iter().map(|limit| HugepageLimit {
        page_size: limit.page_size.clone(),
        limit: limit.limit,
    });
    Resources {
        cpu_period: record.cpu_period,
        cpu_quota: record.cpu_quota,
        cpu_shares: record.cpu_shares,
        memory_limit: record.memory_limit,
        memory_swap_limit: record.memory_swap_limit,
        oom_score_adj: record.oom_score_adj,
        cpuset_cpus: record.cpuset_cpus.clone(),
        cpuset_mems: record.cpuset_mems.clone(),
        hugepages: hugepages.collect(),
        unified: record.unified.clone().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use carpel_spec::intent::{HugepageLimit, Resources};

    use super::{of_record, to_record};

    #[test]
    fn a_record_keeps_every_field() {
        let resources = Resources {
            cpu_period: 1,
            cpu_quota: 2,
            cpu_shares: 3,
            memory_limit: 4,
            memory_swap_limit: 5,
            oom_score_adj: 6,
            cpuset_cpus: "7".into(),
            cpuset_mems: "8".into(),
            hugepages: vec![HugepageLimit {
                page_size: "2MB".into(),
                limit: 9,
            }],
            unified: [("memory.high".to_owned(), "10".to_owned())].into(),
        };
        assert_eq!(of_record(&to_record(&resources)), resources);
    }
}
