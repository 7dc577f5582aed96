//! Whether what retention says makes sense.

use super::finding::Finding;
use crate::report::render;
use crate::settings::RetentionSettings;

const TOPIC: &str = "retention";

/// `expires_itself`: expire runs after each backup. `may_delete`: what trying the storage out has shown, if it could be.
pub(super) fn judge(
    name: &str,
    retention: RetentionSettings,
    expires_itself: bool,
    may_delete: Option<bool>,
) -> Vec<Finding> {
    let full = retention.full.map(|number| match number {
        1 => "the last full backup and all since".to_owned(),
        _ => format!("the last {number} full backups and all since the oldest of them"),
    });
    let window = retention
        .window
        .map(|window| format!("what any moment of the last {} needs", render::duration(window)));
    let kept: Vec<String> = [window, full].into_iter().flatten().collect();
    if kept.is_empty() {
        return vec![
            Finding::warning(
                TOPIC,
                format!(
                    "{name}: no retention is set, so nothing is ever removed and it grows until it is full"
                ),
            )
            .next(format!("Say what stays, for example {name}-keep-window=14d (`walden help expire`).")),
        ];
    }
    let text = format!("{name} keeps {}", kept.join(", and "));
    let mut found = vec![if retention.full == Some(1) && retention.window.is_none() {
        Finding::warning(TOPIC, format!("{text}: should that one turn out damaged, there is no other"))
            .next(format!("{name}-retention-full=2, or {name}-keep-window."))
    } else {
        Finding::ok(TOPIC, text)
    }];
    if expires_itself && may_delete == Some(false) {
        found.push(
            Finding::warning(
                TOPIC,
                format!("{name}: expire runs after each backup, and these credentials may not delete: each ends with a warning"),
            )
            .next("Set expire-auto=n, and run `walden expire` with credentials that may delete."),
        );
    } else if !expires_itself {
        found.push(Finding::note(
            TOPIC,
            format!("{name}: expire-auto=n, so only `walden expire` removes something"),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn said(full: Option<u32>, days: Option<u64>, expires_itself: bool, may_delete: Option<bool>) -> String {
        let window = days.map(|days| Duration::from_secs(days * 86_400));
        let found = judge("repo1", RetentionSettings { full, window }, expires_itself, may_delete);
        found.iter().map(Finding::line).collect()
    }

    #[test]
    fn what_stays_is_said_and_what_makes_no_sense() {
        assert!(
            said(None, None, true, None)
                .starts_with("warning  repo1: no retention is set, so nothing is ever removed")
        );
        assert_eq!(
            said(Some(4), Some(14), true, Some(true)),
            "ok       repo1 keeps what any moment of the last 14 d needs, and the last 4 full backups and all since the \
             oldest of them\n"
        );
        assert!(
            said(Some(1), None, true, None)
                .starts_with("warning  repo1 keeps the last full backup and all since: ")
        );
        assert!(said(Some(1), Some(7), true, None).starts_with("ok       "));
        assert!(
            said(Some(2), None, true, Some(false))
                .contains("warning  repo1: expire runs after each backup, and these")
        );
        assert!(said(Some(2), None, false, Some(false)).contains("note     repo1: expire-auto=n"));
    }
}
