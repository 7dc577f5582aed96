//! Being interrupted. The first signal asks, the second one ends the process.
//!
//! To be listened to from the first moment that is ours: an `archive-push` that dies by a signal makes PostgreSQL's
//! archiver end with FATAL (`shell_archive_file` of archive/shell_archive.c, `wait_result_is_any_signal`), one that exits
//! with 71 is tried again. What is left is the time between exec and `main`, in which the loader and the runtime are at
//! work, about a millisecond: whoever is called cannot close it, only who calls could, by starting it with the signals
//! blocked, and PostgreSQL does not. Nothing is lost in it: nothing was begun, and the archiver is started again.
//! Blocking the signals instead of handling them would not begin earlier, and would keep a person's second Ctrl-C from
//! a process that hangs.

use super::guard::Role;
use crate::failure::Class;
use crate::pipeline::StopFlag;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Lets SIGINT and SIGTERM set `stop`. Two system calls.
///
/// `archive-get` keeps the default: PostgreSQL reads death by SIGTERM as its own shutdown, and at the target
/// nothing shows before it is whole. For `archive-push` a second signal exits with 71, since death by a signal
/// would end PostgreSQL's archiver; for all others it kills.
pub(super) fn listen(role: Role, stop: &StopFlag) -> io::Result<()> {
    if role == Role::Get {
        return Ok(());
    }
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In the order of registration: the condition is looked at before the first signal sets it.
        if role == Role::Push {
            let code = i32::from(Class::Interrupted.exit_code());
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&asked))?;
        } else {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&asked))?;
        }
        signal_hook::flag::register(signal, Arc::clone(&asked))?;
        let number = usize::try_from(signal).unwrap_or(usize::MAX);
        signal_hook::flag::register_usize(signal, stop.cell(), number)?;
    }
    Ok(())
}

/// How a run ends that was interrupted and did not finish: by the signal, except for `archive-push`.
pub(super) fn end(role: Role, signal: i32) -> u8 {
    if role == Role::Other {
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    // Reached by archive-push, or where the signal could not be raised.
    Class::Interrupted.exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_asks() {
        let stop = StopFlag::new();
        listen(Role::Other, &stop).unwrap();
        assert_eq!(stop.signal(), None);
        signal_hook::low_level::raise(SIGINT).unwrap();
        assert_eq!(stop.signal(), Some(SIGINT));
    }
}
