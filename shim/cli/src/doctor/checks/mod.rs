//! Judgement: facts in, lines out.

mod cgroups;
mod config;
mod daemon;
mod kernel;
mod leftovers;
mod network;
mod process;

use super::facts::Facts;
use super::line::Line;

/// Everything that can be said about a node, topic by topic.
pub(crate) fn judge(facts: &Facts) -> Vec<Line> {
    [
        kernel::judge(&facts.kernel),
        cgroups::judge(&facts.cgroups),
        config::judge(&facts.config, &facts.disks),
        network::judge(&facts.network, &facts.config, &facts.kernel),
        process::judge(&facts.process),
        daemon::judge(&facts.daemon),
        leftovers::judge(facts.leftovers.as_ref()),
    ]
    .concat()
}
