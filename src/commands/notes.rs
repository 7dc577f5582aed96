//! `annotate`, `pin`, `unpin`: what is noted on a backup after it was taken.
//!
//! A note goes, with one id, to every repository that holds the backup.

use super::open::repository_failure;
use super::set::{Found, find};
use super::{Context, Outcome, VERSION, no_stdout};
use crate::failure::{Class, Failure};
use crate::repo::RepoError;
use crate::repo::notes::{Annotate, Note, Notes, Pin, Says, Unpin};
use crate::report::render::{iso, local_zone, utc_and_local};
use crate::restore::target_time::{self, Here};
use crate::units::Timestamp;
use serde_json::json;

pub(super) fn annotate(context: &Context<'_>) -> Result<Outcome, Failure> {
    let mut change = Annotate::default();
    for (key, value) in context.settings.annotations() {
        // The last word on a key counts.
        change.set.remove(&key);
        change.remove.remove(&key);
        if value.is_empty() {
            change.remove.insert(key);
        } else {
            change.set.insert(key, value);
        }
    }
    let set = change.set.iter().map(|(key, value)| format!("{key}={value}"));
    let removed = change.remove.iter().map(|key| format!("{key} removed"));
    let words = format!("is annotated: {}", set.chain(removed).collect::<Vec<_>>().join(", "));
    note(context, |_| Ok(Some((Says::Annotate(change), words))), "")
}

pub(super) fn pin(context: &Context<'_>) -> Result<Outcome, Failure> {
    let now = context.env.now();
    let until = context.settings.until().map(|text| moment(context, text, now)).transpose()?;
    let pin = Pin {
        reason: context.settings.reason().map(str::to_owned),
        until_unix_us: until.map(Timestamp::as_unix_micros),
    };
    let words = match until {
        None => "is pinned: it is kept until it is unpinned".to_owned(),
        Some(until) => format!("is pinned until {}", utc_and_local(until, &local_zone())),
    };
    note(context, |_| Ok(Some((Says::Pin(pin), words))), "")
}

pub(super) fn unpin(context: &Context<'_>) -> Result<Outcome, Failure> {
    let says = |notes: &Notes| {
        let mut ids: Vec<String> = notes.pins().iter().map(|one| one.note.to_string()).collect();
        let pins = ids.len();
        let mut damaged = 0;
        for (id, error) in notes.unsettled() {
            // A note that cannot be reached may be a pin that somebody needs; one that is damaged for good
            // would keep the backup for ever.
            if !matches!(error, RepoError::Damaged { .. } | RepoError::Missing { .. }) {
                return Err(Failure::new(Class::StorageUnavailable, "could not read what is pinned")
                    .because_text(error.to_string())
                    .next("Try again when the repository can be read."));
            }
            context.report.warn(format!("a note that may have been a pin is undone unread: {error}"));
            ids.push(id.to_string());
            damaged += 1;
        }
        if ids.is_empty() {
            return Ok(None);
        }
        let words = match (pins, damaged) {
            (1, 0) => "is unpinned".to_owned(),
            (0, _) => "is unpinned: what could not be read is undone".to_owned(),
            (pins, _) => format!("is unpinned: {pins} pins are undone"),
        };
        Ok(Some((Says::Unpin(Unpin { notes: ids }), words)))
    };
    note(context, says, "is not pinned")
}

fn moment(context: &Context<'_>, text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let here = Here::new(now, local_zone());
    let refuse = || Failure::new(Class::Usage, format!("cannot pin until {text}"));
    let read = target_time::parse(text, &here).map_err(|error| {
        let readings: Vec<String> = error.readings().to_vec();
        let failure = refuse().because(error);
        match readings.as_slice() {
            [] => failure.next("Write a date and time: --until='2027-03-31 00:00:00+01'."),
            _ => readings.iter().fold(failure, |failure, reading| failure.next(format!("Write {reading}."))),
        }
    })?;
    if read.at <= now {
        return Err(refuse().because_text("that is over already").next("Name a moment to come."));
    }
    if let Some(zone) = read.assumed_zone {
        context.report.info(format!("--until={text} is read as a time in {zone}"));
    }
    Ok(read.at)
}

/// Writes what `says` makes of the notes there are, into every repository that holds the backup. `None` is
/// said as `nothing`.
fn note(
    context: &Context<'_>,
    says: impl FnOnce(&Notes) -> Result<Option<(Says, String)>, Failure>,
    nothing: &str,
) -> Result<Outcome, Failure> {
    let stanza = context.settings.stanza()?;
    let Found { id, holders, failures } =
        find(context.settings, stanza, context.settings.set().unwrap_or(""))?;
    let mut notes = Notes::default();
    for holder in &holders {
        notes.merge(holder.repository.read_notes(stanza, &id, &holder.entry.notes));
    }
    let mut warned = !failures.is_empty();
    for failure in &failures {
        context.report.warn(failure.one_line());
    }
    let mut written = Vec::new();
    let mut note = None;
    let words = match says(&notes)? {
        None => nothing.to_owned(),
        Some((says, words)) => {
            let made = Note::new(&id, notes.newest(), says, VERSION, context.env).map_err(|error| {
                Failure::new(Class::LocalFileSystem, "could not make a note").because(error)
            })?;
            let mut first_failure = None;
            for holder in &holders {
                match holder.repository.write_note(stanza, &made, context.env) {
                    Ok(()) => written.push(holder.settings.index),
                    Err(error) => {
                        let name = holder.settings.name();
                        let gone = matches!(&error, RepoError::Missing { .. });
                        let what = format!("could not note anything on backup {id} in {name}");
                        let failure = if gone {
                            Failure::new(Class::NoRepository, what)
                                .because_text(format!("it was removed from {name} meanwhile"))
                        } else {
                            repository_failure(error, &holder.settings, what)
                        };
                        warned = true;
                        if let Some(earlier) = first_failure.replace(failure) {
                            context.report.warn(earlier.one_line());
                        }
                    }
                }
            }
            match first_failure {
                Some(failure) if written.is_empty() => return Err(failure),
                Some(failure) => context.report.warn(failure.one_line()),
                None => {}
            }
            notes.add(made.clone());
            note = Some(made.note_id);
            words
        }
    };
    if context.report.is_json() {
        let record = holders.first().map(|holder| holder.record.annotations.clone()).unwrap_or_default();
        let now = context.env.now();
        let document = json!({
            "backup": id.as_str(),
            "note": note.map(|note| note.to_string()),
            "repositories": written,
            "annotations": notes.annotations(&record),
            "pins": pins_json(&notes, now),
        });
        context.report.json(&document).map_err(no_stdout)?;
    } else {
        let places: Vec<String> = written.iter().map(|index| format!("repo{index}")).collect();
        let places = if places.is_empty() { String::new() } else { format!(" (in {})", places.join(", ")) };
        context.report.info(format!("backup {id} {words}{places}"));
    }
    Ok(if warned { Outcome::DoneWithWarnings } else { Outcome::Done })
}

/// Pins for programs: those that were not undone.
pub(super) fn pins_json(notes: &Notes, now: Timestamp) -> Vec<serde_json::Value> {
    let holding = notes.holding(now);
    let one = |one: &crate::repo::notes::PinOf| {
        json!({
            "note": one.note.to_string(),
            "pinned_at": iso(one.at),
            "reason": one.pin.reason,
            "until_at": one.pin.until().map(iso),
            "holds": holding.contains(one),
        })
    };
    notes.pins().iter().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests {
    use super::*;
    use crate::commands::Runner;
    use crate::commands::testing::{self, Shelf, record, shop};
    use serde_json::Value;

    /// A shelf with one backup, and its id.
    fn shelf() -> (Shelf, String) {
        let shelf = Shelf::new();
        let record = record(5);
        shelf.commit(&record);
        (shelf, record.backup_id.to_string())
    }

    fn call(
        shelves: &[&Shelf],
        command: &str,
        runner: Runner,
        more: &[&str],
    ) -> (Result<Outcome, Failure>, String, String) {
        let options: Vec<String> =
            shelves.iter().zip(1..).flat_map(|(shelf, index)| shelf.options(index)).collect();
        let line: Vec<&str> =
            options.iter().map(String::as_str).chain(["--stanza=shop"]).chain(more.iter().copied()).collect();
        let (outcome, seen) = testing::run(command, &line, runner);
        (outcome, seen.data(), seen.console())
    }

    fn notes_of(shelf: &Shelf, id: &str) -> Notes {
        let id = id.parse().unwrap();
        let catalog = shelf.repository.catalog(&shop()).unwrap();
        shelf.repository.read_notes(&shop(), &id, &catalog.entries[&id].notes)
    }

    #[test]
    fn notes_change_and_pins_come_and_go() {
        let (shelf, id) = shelf();
        let set = format!("--set={}", &id[..20]);
        let told = call(&[&shelf], "annotate", annotate, &[&set, "--annotation=ticket=OPS-311"]);
        assert_eq!(told.0.unwrap(), Outcome::Done);
        assert_eq!(told.2, format!("backup {id} is annotated: ticket=OPS-311 (in repo1)\n"));
        let told = call(&[&shelf], "annotate", annotate, &[&set, "--annotation=ticket="]);
        assert_eq!(told.2, format!("backup {id} is annotated: ticket removed (in repo1)\n"));
        assert!(notes_of(&shelf, &id).annotations(&Default::default()).is_empty());

        assert_eq!(call(&[&shelf], "unpin", unpin, &[&set]).2, format!("backup {id} is not pinned\n"));
        call(&[&shelf], "pin", pin, &[&set, "--reason=audit"]).0.unwrap();
        let told = call(&[&shelf], "pin", pin, &[&set, "--until=2027-03-31 00:00:00Z"]);
        assert_eq!(told.2, format!("backup {id} is pinned until 2027-03-31 00:00:00 UTC (in repo1)\n"));
        assert_eq!(notes_of(&shelf, &id).pins().len(), 2);
        let told = call(&[&shelf], "unpin", unpin, &[&set]);
        assert_eq!(told.2, format!("backup {id} is unpinned: 2 pins are undone (in repo1)\n"));
        assert!(notes_of(&shelf, &id).pins().is_empty());
    }

    #[test]
    fn a_moment_that_is_over_or_unclear_is_refused() {
        let (shelf, id) = shelf();
        let set = format!("--set={id}");
        for until in ["2026-11-20 00:00:00Z", "tomorrow", "2027-03-31", "03/04/2027 10:00"] {
            let refused = call(&[&shelf], "pin", pin, &[&set, &format!("--until={until}")]).0.unwrap_err();
            assert_eq!(refused.class(), Class::Usage, "{refused}");
        }
        assert!(notes_of(&shelf, &id).is_empty());
    }

    #[test]
    fn a_note_goes_to_every_repository_that_holds_the_backup_under_one_name() {
        let (one, two, empty) = (Shelf::new(), Shelf::new(), Shelf::new());
        let record = record(5);
        one.commit(&record);
        two.commit(&record);
        let id = record.backup_id.to_string();
        let set = format!("--set={id}");
        let told = call(&[&one, &empty, &two], "pin", pin, &[&set, "--reason=audit"]);
        assert_eq!(
            told.2,
            format!("backup {id} is pinned: it is kept until it is unpinned (in repo1, repo3)\n")
        );
        assert_eq!(notes_of(&one, &id).pins(), notes_of(&two, &id).pins());
        // A pin that only one of them knows is undone in both.
        call(&[&two], "pin", pin, &[&set]).0.unwrap();
        call(&[&one, &two], "unpin", unpin, &[&set]).0.unwrap();
        assert!(notes_of(&one, &id).pins().is_empty() && notes_of(&two, &id).pins().is_empty());

        // One that cannot be reached: done where it can be, and said.
        std::fs::rename(two.join("repo"), two.join("away")).unwrap();
        let told = call(&[&one, &two], "pin", pin, &[&set]);
        assert_eq!(told.0.unwrap(), Outcome::DoneWithWarnings);
        assert!(told.2.contains("repo2") && told.2.contains("(in repo1)"), "{}", told.2);
        assert_eq!(call(&[&two], "pin", pin, &[&set]).0.unwrap_err().class(), Class::NoRepository);
    }

    #[test]
    fn what_is_no_backup_cannot_be_noted_on() {
        let (shelf, id) = shelf();
        let mut other = record(6);
        shelf.commit(&other);
        let refused = |set: &str| {
            let failure = call(&[&shelf], "pin", pin, &[&format!("--set={set}")]).0.unwrap_err();
            (failure.class(), failure.what().to_owned())
        };
        assert_eq!(refused("2026").0, Class::Usage);
        assert_eq!(refused("2025"), (Class::NoRepository, "there is no backup 2025".into()));
        let id = id.parse().unwrap();
        let retired = crate::repo::layout::retired(&shop(), &id).unwrap();
        shelf.repository.create_json(&retired, &serde_json::json!({}), &shelf.env).unwrap();
        assert_eq!(refused(id.as_str()).0, Class::NoRepository);
        // Now only one is left that begins so, and one that is still being taken is none.
        other.backup_id = crate::units::BackupId::new(testing::NOW, crate::units::BackupKind::Full, [9; 13]);
        shelf.begin(&other);
        assert!(call(&[&shelf], "pin", pin, &["--set=2026"]).0.is_ok());
    }

    #[test]
    fn a_damaged_note_is_said_and_can_be_undone() {
        let (shelf, id) = shelf();
        let set = format!("--set={id}");
        call(&[&shelf], "pin", pin, &[&set]).0.unwrap();
        let pinned = notes_of(&shelf, &id).newest().unwrap();
        std::fs::write(shelf.join(&format!("repo/shop/catalog/{id}.9-{pinned}")), "x").unwrap();
        assert_eq!(notes_of(&shelf, &id).unsettled().count(), 1);
        let told = call(&[&shelf], "unpin", unpin, &[&set]);
        assert!(told.2.contains("undone unread") && told.2.contains("is damaged"), "{}", told.2);
        assert_eq!(notes_of(&shelf, &id).unsettled().count(), 0);
    }

    #[test]
    fn programs_are_told_what_holds_now() {
        let (shelf, id) = shelf();
        let set = format!("--set={id}");
        let more = [&set, "--reason=audit", "--output=json"];
        // The captured report speaks text whatever is asked for; the document is built of the same values.
        call(&[&shelf], "pin", pin, &more).0.unwrap();
        let notes = notes_of(&shelf, &id);
        let pins = pins_json(&notes, testing::NOW);
        assert_eq!(pins.len(), 1);
        let expected: Value = serde_json::json!({
            "note": notes.newest().unwrap().to_string(),
            "pinned_at": pins[0]["pinned_at"],
            "reason": "audit",
            "until_at": null,
            "holds": true,
        });
        assert_eq!(pins[0], expected);
    }
}
