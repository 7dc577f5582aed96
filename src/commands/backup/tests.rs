//! Words for what no test brings about on a real server: it would take a server of an age, or a disk of a size.

use super::*;
use crate::commands::testing::{self, Shelf};

/// Compares with `fixtures/golden/backup/NAME`; `UPDATE=1` rewrites it.
fn golden(name: &str, actual: &str) {
    testing::golden(&format!("backup/{name}"), actual);
}

/// What `act` makes of a backup into the first repository of a shelf; and what was told meanwhile.
fn with<R>(act: impl FnOnce(&Context<'_>, &RepositorySettings) -> R) -> (R, String) {
    let shelf = Shelf::new();
    let line = [vec!["--stanza=shop".to_owned()], shelf.options(1)].concat();
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let (made, seen) = testing::with("backup", &line, |context| {
        let target = context.settings.repository_to_write().unwrap();
        act(context, &target)
    });
    (made, format!("{}{}", seen.data(), seen.console()))
}

fn refused(error: BackupError) -> (Class, String) {
    let (failure, _) = with(|context, target| failure(error, context.settings, target));
    (failure.class(), format!("{failure}\n"))
}

#[test]
fn a_version_that_cannot_be_backed_up_is_refused_in_words() {
    let version = |server: u16, stanza: Option<u16>| BackupError::Version {
        server: PgMajor::new(server),
        stanza: stanza.map(PgMajor::new),
    };
    let (class, old) = refused(version(13, None));
    let (_, other) = refused(version(18, Some(17)));
    assert_eq!(class, Class::PostgresRefuses);
    golden("version.txt", &format!("{old}\n{other}"));
}

#[test]
fn a_repository_with_too_little_room_is_told_before_anything_is_stored() {
    let [free, needed, total] = [3, 12, 300].map(|gib| ByteCount::new(gib << 30));
    let (class, refused) = refused(BackupError::NoSpace { free, needed, total });
    assert_eq!(class, Class::LocalFileSystem);
    let (is_short, warned) = with(|context, target| {
        let shown = Shown::new(context, target);
        shown.room_is_short(needed, total);
        shown.room_is_short.load(Ordering::Relaxed)
    });
    assert!(is_short, "exit 50 rests on it");
    golden("no-room.txt", &format!("{refused}\n{warned}"));
}
