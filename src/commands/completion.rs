//! `completion`.

use super::{Context, Outcome, arguments, no_stdout, word};
use crate::failure::{Class, Failure};
use clap_complete::Shell;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let wanted = word(context, 0).unwrap_or_default();
    let shell = match wanted.as_ref() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        other => {
            return Err(Failure::new(Class::Usage, format!("there are no completions for \"{other}\""))
                .next("Name bash, zsh or fish."));
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut arguments::whole(), "walden", &mut script);
    context.report.data(script).map_err(no_stdout)?;
    Ok(Outcome::Done)
}
