//! `key-generate`: a new random key, on stdout and nowhere else.

use super::{Context, Outcome, no_stdout};
use crate::failure::{Class, Failure};
use crate::repo::keys::Secret;
use std::io::IsTerminal as _;
use zeroize::Zeroizing;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let cannot = || Failure::new(Class::LocalFileSystem, "cannot make a key");
    let secret = Secret::generate(context.env).map_err(|error| cannot().because(error))?;
    let key = secret.key_string().ok_or_else(cannot)?;
    let line = Zeroizing::new(format!("{}\n", key.as_str()));
    context.report.data(line.as_bytes()).map_err(no_stdout)?;
    // Whoever redirects it knows what to do with it.
    if std::io::stdout().is_terminal() {
        context.report.info(
            "\nPut this line into a file that only the user who runs walden can read (mode 0600), and name the \
             file:\n  repo1-cipher-type=aes-256-gcm\n  repo1-cipher-pass-file=/etc/walden/repo1.key\n\
             Keep a copy in a second place, away from the repository: without it nobody can read the backups.",
        );
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing;

    #[test]
    fn stdout_gets_a_key_that_parses_and_nothing_else_is_said() {
        let run_once = || {
            let (outcome, seen) = testing::run("key-generate", &[], run);
            assert_eq!(outcome.unwrap(), Outcome::Done);
            assert_eq!(seen.console(), "");
            seen.data()
        };
        let (one, two) = (run_once(), run_once());
        assert_ne!(one, two);
        for line in [one, two] {
            assert!(line.starts_with("walden-key-1.") && line.ends_with('\n') && line.lines().count() == 1);
            assert!(matches!(Secret::parse(&line), Ok(Secret::Key(_))));
        }
    }
}
