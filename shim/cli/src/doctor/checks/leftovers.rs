//! What stands on the node without a record.

use carpel_proto::admin::Leftover;

use crate::doctor::facts::Leftovers;
use crate::doctor::line::{Line, Lines};

/// Of each kind; the rest is counted.
const SHOWN: usize = 20;

pub(super) fn judge(leftovers: Option<&Result<Leftovers, String>>) -> Vec<Line> {
    let mut lines = Lines::of("leftovers");
    let leftovers = match leftovers {
        Some(Ok(leftovers)) => leftovers,
        Some(Err(why)) => {
            lines.warn(format!("cannot look: {why}"), "name carpeld by --carpeld");
            return lines.lines;
        }
        None => return lines.lines,
    };
    for leftover in leftovers.found.iter().take(SHOWN) {
        let Leftover { kind, name, what } = leftover;
        lines.warn(
            format!("{} {name}: {what}", kind.replace('_', " ")),
            advice(kind),
        );
    }
    if let Some(more @ 1..) = leftovers.found.len().checked_sub(SHOWN) {
        lines.warn(format!("and {more} more"), "restart carpeld");
    }
    for why in &leftovers.failures {
        lines.warn(
            format!("cannot look everywhere: {why}"),
            "run it as root, in the host's namespaces",
        );
    }
    if lines.lines.is_empty() {
        lines.ok("none");
    }
    lines.lines
}

fn advice(kind: &str) -> &'static str {
    match kind {
        "pod" => "remove it (carpel delete, crictl rmp); the kubelet does so by itself",
        "mount" => "unmount it: somebody else has mounted it",
        "namespace" => "goes with the process that keeps it",
        _ => "restart carpeld: it clears away at its start; pods go on running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::line::Level;

    fn found(number: usize) -> Result<Leftovers, String> {
        let leftover = Leftover {
            kind: "run_dir".into(),
            name: "/run/x".into(),
            what: "of nobody".into(),
        };
        Ok(Leftovers {
            found: vec![leftover; number],
            failures: Vec::new(),
        })
    }

    #[test]
    fn none_is_well_and_each_is_named() {
        let lines = judge(Some(&found(0)));
        assert_eq!((lines.len(), lines[0].level), (1, Level::Ok));
        let lines = judge(Some(&found(2)));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].message, "run dir /run/x: of nobody");
        assert_eq!(lines[0].level, Level::Warning);
    }

    #[test]
    fn of_many_the_first_are_shown() {
        let lines = judge(Some(&found(25)));
        assert_eq!(lines.len(), SHOWN + 1);
        assert!(lines[SHOWN].message.contains("5 more"));
        assert_eq!(judge(Some(&found(SHOWN))).len(), SHOWN);
    }

    #[test]
    fn where_nobody_could_look_is_told() {
        assert_eq!(judge(Some(&Err("no".into())))[0].level, Level::Warning);
        let half = Ok(Leftovers {
            failures: vec!["cgroups: no".into()],
            ..Leftovers::default()
        });
        assert_eq!(judge(Some(&half))[0].level, Level::Warning);
        assert!(judge(None).is_empty());
    }
}
