//! The guard in front of everything: what PostgreSQL may read into the exit code.
//!
//! For `restore_command` 1 to 125 means "the archive ends here", and recovery ends: a usage error (2) or a
//! panic (101) would silently lose everything that was archived after. For `archive_command` a code above
//! 125 ends the archiver. So the role of a call is decided from its bare arguments, before anything of it
//! is understood, and whatever happens afterwards is brought into the role's range.

use super::scan::scan;
use crate::failure::Class;
use crate::settings::{command_named, distance};
use crate::units::WalFileName;
use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};

/// Who reads the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `restore_command`: 0, 1 or 200.
    Get,
    /// `archive_command`: never above 125.
    Push,
    /// A person or a script.
    Other,
}

/// What the arguments look like.
#[must_use]
pub fn role(arguments: &[OsString]) -> Role {
    let exact = |name: &str| arguments.iter().any(|argument| argument == name);
    let command = scan(arguments).command();
    match command.as_deref() {
        Some("archive-get") => return Role::Get,
        Some("archive-push") => return Role::Push,
        // What explains or prints is never run by a server, whatever it is asked about.
        Some("help" | "man" | "completion" | "config") => return Role::Other,
        // An unknown option may have hidden the command: `--tpyo backup archive-get %f %p`.
        Some(name) if command_named(name).is_some() && !exact("archive-get") => return Role::Other,
        _ => {}
    }
    if exact("archive-get") {
        return Role::Get;
    }
    if exact("archive-push") {
        return Role::Push;
    }
    let word = command.as_deref().unwrap_or("");
    let (to_push, to_get) = (distance(word, "archive-push"), distance(word, "archive-get"));
    if arguments.iter().any(|argument| is_what_a_server_asks_for(&argument.to_string_lossy())) {
        // Only a command that is clearly meant to be the other one is let out of the stricter range.
        return if to_push < to_get && to_push <= 3 { Role::Push } else { Role::Get };
    }
    match () {
        () if to_get <= 3 && to_get <= to_push => Role::Get,
        () if to_push <= 3 => Role::Push,
        () => Role::Other,
    }
}

/// `%f`, unexpanded or expanded, or the names PostgreSQL gives to what it asks for.
fn is_what_a_server_asks_for(argument: &str) -> bool {
    let last = argument.rsplit('/').next().unwrap_or(argument);
    argument == "%f"
        || argument.parse::<WalFileName>().is_ok()
        || matches!(last, "RECOVERYXLOG" | "RECOVERYHISTORY")
}

/// The exit code that the role allows for `code`.
#[must_use]
pub fn bounded(role: Role, code: u8) -> u8 {
    match (role, code) {
        (Role::Get, 0 | 1) => code,
        (Role::Get, _) => Class::CouldNotFindOut.exit_code(),
        (Role::Push, 126..) => Class::Bug.exit_code(),
        (Role::Push | Role::Other, _) => code,
    }
}

/// Runs `body` so that nothing, a panic included, ends outside the role's range. A panic is told on one line.
pub fn guarded(role: Role, body: impl FnOnce() -> u8) -> u8 {
    panic::set_hook(Box::new(move |info| {
        use std::io::Write as _;
        let what = info.payload_as_str().unwrap_or("(without words)").replace(['\n', '\r'], " ");
        let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        let line = match role {
            Role::Get => format!("walden archive-get: stopped by a bug in walden{place}: {what}\n"),
            Role::Push => format!("walden archive-push: stopped by a bug in walden{place}: {what}\n"),
            Role::Other => format!(
                "error: stopped by a bug in walden\n  because: {what}{place}\n  \
                 next: Please report it with these lines and the command; what is stored is safe.\n"
            ),
        };
        let _ = std::io::stderr().write_all(line.as_bytes());
    }));
    let code = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Class::Bug.exit_code());
    bounded(role, code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn role_of(line: &str) -> Role {
        role(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_looks_like_a_get_is_one() {
        for line in [
            "archive-get %f %p",
            "--stanza=x archive-get 000000010000000000000001 pg_wal/RECOVERYXLOG",
            "--stanza x archive-get",
            "--bogus backup archive-get 000000010000000000000001 p",
            "--bogus x archive-get 000000010000000000000001 p",
            "archiv-get 000000010000000000000001 pg_wal/RECOVERYXLOG",
            "archive-gte 00000002.history pg_wal/RECOVERYHISTORY",
            "get 000000010000000000000001.partial x",
            "archive_get %f %p",
            "archive-gett",
            "000000010000000000000001 pg_wal/RECOVERYXLOG",
            "--type=time --x 000000010000000000000001",
            "wal-fetch %f %p",
            "anything /var/lib/pg/pg_wal/RECOVERYXLOG",
            "--stanza=x -- archive-get a b",
            "-x archive-get",
        ] {
            assert_eq!(role_of(line), Role::Get, "{line}");
        }
    }

    #[test]
    fn what_looks_like_a_push_is_one() {
        for line in [
            "archive-push pg_wal/000000010000000000000001",
            "--stanza=x archive-push %p",
            "archive-psh 000000010000000000000001",
            "archive-phus pg_wal/000000010000000000000001",
            "--bogus x archive-push pg_wal/000000010000000000000001",
        ] {
            assert_eq!(role_of(line), Role::Push, "{line}");
        }
    }

    #[test]
    fn other_commands_are_not_taken_for_one() {
        for line in [
            "",
            "help archive-get",
            "help archive-get system-id",
            "config archive-get",
            "man archive-push",
            "repo-ls shop/wal",
            "repo-get 000000010000000000000001",
            "backup",
            "info --output=json",
            "bakcup",
            "--version",
        ] {
            assert_eq!(role_of(line), Role::Other, "{line}");
        }
    }

    #[test]
    fn a_panic_ends_in_the_range_of_its_role() {
        for (role, code) in [(Role::Get, 200), (Role::Push, 70), (Role::Other, 70)] {
            assert_eq!(guarded(role, || panic!("on purpose")), code);
        }
        let _ = panic::take_hook();
    }

    proptest! {
        #[test]
        fn a_get_ends_in_0_1_or_200_and_a_push_never_above_125(code: u8) {
            prop_assert!(matches!(bounded(Role::Get, code), 0 | 1 | 200));
            prop_assert!(bounded(Role::Push, code) <= 125);
            prop_assert_eq!(bounded(Role::Other, code), code);
        }

        #[test]
        fn no_arguments_make_the_guard_panic(arguments in proptest::collection::vec("\\PC{0,20}", 0..6)) {
            let _ = role(&arguments.into_iter().map(OsString::from).collect::<Vec<_>>());
        }

        #[test]
        fn a_wal_name_without_a_command_is_a_get(
            timeline in 1u32.., low: u64, junk in "[a-z]{0,8}",
        ) {
            prop_assume!(command_named(&junk).is_none());
            let name = format!("{timeline:08X}{low:016X}");
            let near = distance(&junk, "archive-push") <= 3;
            let arguments = [OsString::from(junk), name.into(), "target".into()];
            prop_assert!(near || role(&arguments) == Role::Get);
        }
    }
}
