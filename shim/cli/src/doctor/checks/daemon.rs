//! Whether it answers, and what it says of itself.

use crate::doctor::facts::Daemon;
use crate::doctor::line::{Line, Lines};

pub(super) fn judge(daemon: &Daemon) -> Vec<Line> {
    let mut lines = Lines::of("daemon");
    let socket = daemon.socket.display();
    if let Some(why) = &daemon.unreachable {
        lines.fail(
            format!("nobody answers at {socket}: {why}"),
            "start carpeld, and look at its log (journalctl -u carpel)",
        );
        return lines.lines;
    }
    lines.ok(format!("{} answers at {socket}", daemon.version));
    for condition in &daemon.not_ready {
        lines.fail(condition.clone(), "look at the log of carpeld");
    }
    if let Some(why) = &daemon.no_admin {
        let message = format!("its own socket does not answer: {why}");
        lines.warn(message, "name it by --admin-socket, if this is carpeld");
    }
    match &daemon.images {
        Some(Ok(images)) => lines.ok(format!("{images} images")),
        Some(Err(why)) => lines.fail(format!("images: {why}"), "look at the log of carpeld"),
        None => {}
    }
    for pod in &daemon.quarantined {
        lines.warn(
            format!("the record of pod {pod} cannot be read"),
            "carpel delete it; carpel describe says why",
        );
    }
    lines.lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::line::Level;

    fn worst(daemon: &Daemon) -> Level {
        judge(daemon)
            .into_iter()
            .map(|line| line.level)
            .max()
            .unwrap()
    }

    #[test]
    fn silence_is_a_failure_and_says_nothing_else() {
        let daemon = Daemon {
            unreachable: Some("no such file".into()),
            ..Daemon::default()
        };
        let lines = judge(&daemon);
        assert_eq!((lines.len(), lines[0].level), (1, Level::Failed));
    }

    #[test]
    fn what_it_says_of_itself_counts() {
        let well = Daemon {
            images: Some(Ok(3)),
            ..Daemon::default()
        };
        assert_eq!(worst(&well), Level::Ok);
        let with = |change: fn(&mut Daemon)| {
            let mut daemon = well.clone();
            change(&mut daemon);
            worst(&daemon)
        };
        assert_eq!(
            with(|d| d.not_ready = vec!["NetworkReady: no".into()]),
            Level::Failed
        );
        assert_eq!(with(|d| d.images = Some(Err("disk".into()))), Level::Failed);
        assert_eq!(with(|d| d.no_admin = Some("no".into())), Level::Warning);
        assert_eq!(with(|d| d.quarantined = vec!["x".into()]), Level::Warning);
    }
}
