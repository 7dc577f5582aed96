//! The line that makes a server archive, as it must stand in `postgresql.conf`.
//!
//! The server has neither this run's `PATH` nor its environment and arguments: the program is named by its whole
//! path, and what was given to this run and not in the file is repeated, secrets left out.

use crate::restore::conf;
use crate::settings::{Form, Settings};
use std::path::Path;

/// `archive_command = '/usr/local/bin/walden --stanza=shop archive-push "%p"'`
pub(super) fn archive_command(settings: &Settings) -> String {
    let program = std::env::current_exe().ok();
    line(program.as_deref().unwrap_or(Path::new("walden")), settings)
}

fn line(program: &Path, settings: &Settings) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut command = shell(program.as_os_str().as_bytes());
    // WAL goes to every repository, whichever this run was about.
    for given in settings.to_repeat().into_iter().filter(|given| given.name != "repo") {
        let option = match given.form {
            Form::Set(value) => format!("--{}={value}", given.name),
            Form::No => format!("--no-{}", given.name),
            Form::Reset => format!("--reset-{}", given.name),
        };
        command.push(b' ');
        command.extend(shell(option.as_bytes()));
    }
    command.extend(b" archive-push \"%p\"");
    format!("archive_command = {}", String::from_utf8_lossy(&conf::quoted(&command)))
}

fn shell(word: &[u8]) -> Vec<u8> {
    conf::without_placeholders(&conf::shell_word(word))
}
