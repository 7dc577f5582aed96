//! `version`.

use super::{Context, Outcome, no_stdout};
use crate::failure::Failure;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let written = if context.report.is_json() {
        context.report.json(&serde_json::json!({ "version": VERSION }))
    } else {
        context.report.data(format!("walden {VERSION}\n"))
    };
    written.map_err(no_stdout)?;
    Ok(Outcome::Done)
}
