//! `man`: manual pages from the tables, in the roff of man(7).

use super::help::{CONFIGURATION, EXIT_CODES, by_topic, usage};
use super::{Context, Outcome, no_stdout, version::VERSION, word};
use crate::failure::{Class, Failure};
use crate::settings::table::{OptionSpec, Places};
use crate::settings::{CommandSpec, command_named, commands, describe};
use std::fmt::Write as _;

/// When the pages were last gone through: the date of the version.
const DATE: &str = "2026-11-21";

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    if let Some(directory) = context.settings.output_directory() {
        for (name, page) in pages() {
            write(directory, &name, &page)?;
        }
        return Ok(Outcome::Done);
    }
    let page = match word(context, 0) {
        None => program(),
        Some(name) => command_named(&name).map(of_command).ok_or_else(|| {
            Failure::new(Class::Usage, format!("there is no page about \"{name}\""))
                .next("`walden help` lists the commands.")
        })?,
    };
    context.report.data(page).map_err(no_stdout)?;
    Ok(Outcome::Done)
}

#[allow(clippy::disallowed_methods, reason = "a generated page is no data: it can be written again")]
fn write(directory: &std::path::Path, name: &str, page: &str) -> Result<(), Failure> {
    let path = directory.join(name);
    std::fs::write(&path, page).map_err(|error| {
        Failure::new(Class::LocalFileSystem, format!("could not write {}", path.display())).because(error)
    })
}

/// Every page with the name of its file.
#[must_use]
pub fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("walden.1".to_owned(), program())];
    pages.extend(commands().iter().map(|spec| (format!("walden-{}.1", spec.name), of_command(spec))));
    pages
}

/// Text as roff takes it: no line may begin with a dot or a quote, backslashes and dashes are escaped.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

fn header(page: &mut String, name: &str, short: &str) {
    let title = name.to_uppercase();
    let _ = writeln!(page, ".TH {} 1 \"{DATE}\" \"walden {VERSION}\" \"walden\"", escaped(&title));
    let _ = writeln!(page, ".SH NAME\n{} \\- {}", escaped(name), escaped(short));
}

fn program() -> String {
    let mut page = String::new();
    header(&mut page, "walden", "PostgreSQL backup and point-in-time recovery");
    page.push_str(".SH SYNOPSIS\n.B walden\n[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n");
    page.push_str(".SH DESCRIPTION\n");
    page.push_str(&escaped(
        "walden takes base backups over the replication protocol, archives WAL, keeps both in a repository, \
         compressed and encrypted, and brings a cluster back to any moment it holds.",
    ));
    page.push_str("\n.SH COMMANDS\n");
    for spec in commands() {
        let _ = writeln!(page, ".TP\n.BR walden\\-{} (1)\n{}", escaped(spec.name), escaped(spec.short));
    }
    page.push_str(".SH CONFIGURATION\n");
    let mut example = false;
    let mut lines = CONFIGURATION.lines().peekable();
    while let Some(line) = lines.next() {
        let is_example = line.starts_with('[') || (example && line.contains('=') && !line.contains(' '));
        if is_example != example && !(example && line.is_empty()) {
            page.push_str(if is_example { ".nf\n" } else { ".fi\n" });
            example = is_example;
        }
        let _ = match line {
            "" if example => writeln!(page),
            // A numbered line begins a paragraph by itself.
            "" if lines.peek().is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit())) => Ok(()),
            "" => writeln!(page, ".PP"),
            line if line.starts_with(|c: char| c.is_ascii_digit()) => {
                let (number, text) = line.split_once(' ').unwrap_or(("", line));
                writeln!(page, ".IP {number} 4\n{}", escaped(text))
            }
            line => writeln!(page, "{}", escaped(line)),
        };
    }
    if example {
        page.push_str(".fi\n");
    }
    exit_status(&mut page);
    page.push_str(".SH FILES\n.TP\n.I /etc/walden/walden.conf\nthe configuration\n.TP\n.I /etc/walden/conf.d/*.conf\nread after it, in the order of their names\n");
    page
}

fn exit_status(page: &mut String) {
    page.push_str(".SH EXIT STATUS\n.TP\n.B 0\ndone\n");
    for (_, code, words) in Class::ALL {
        let _ = writeln!(page, ".TP\n.B {code}\n{}", escaped(words));
    }
    let _ = writeln!(page, ".PP\n{}", escaped(EXIT_CODES));
}

fn of_command(spec: &CommandSpec) -> String {
    let mut page = String::new();
    header(&mut page, &format!("walden-{}", spec.name), spec.short);
    let _ = writeln!(page, ".SH SYNOPSIS\n.B {}", escaped(&usage(spec)));
    let _ = writeln!(page, ".SH DESCRIPTION\n{}", escaped(spec.long));
    for (topic, options) in by_topic(spec.name) {
        let _ = writeln!(page, ".SH {} OPTIONS", topic.title().to_uppercase());
        for option in options {
            of_option(&mut page, option, spec.name);
        }
    }
    page.push_str(".SH EXIT STATUS\nSee\n.BR walden (1).\n");
    page
}

fn of_option(page: &mut String, spec: &OptionSpec, command: &str) {
    let name = escaped(&spec.written(None));
    let _ = match spec.places {
        Places::NotOnCommandLine => writeln!(page, ".TP\n\\fB{name}\\fR (configuration file, environment)"),
        _ if spec.is_boolean() => writeln!(page, ".TP\n\\fB\\-\\-{name}\\fR, \\fB\\-\\-no\\-{name}\\fR"),
        _ => writeln!(page, ".TP\n\\fB\\-\\-{name}\\fR=\\fIVALUE\\fR"),
    };
    let mut short = spec.short.to_owned();
    if let Some(first) = short.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let value = describe(spec);
    let default = match spec.default_value(command) {
        Some(default) => format!("Default: {default}."),
        None if spec.required_by.contains(&command) => "It must be given.".to_owned(),
        None => format!("Without it: {}.", spec.unset),
    };
    let mut takes = value.strip_prefix("it ").unwrap_or(&value).to_owned();
    if let Some(first) = takes.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let _ = writeln!(
        page,
        "{}.\n{}\n{}. {}",
        escaped(&short),
        escaped(spec.long),
        escaped(&takes),
        escaped(&default)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `UPDATE=1` rewrites the pages.
    #[test]
    fn the_pages_in_man_are_those_of_the_tables() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
        for (name, page) in pages() {
            let path = directory.join(&name);
            if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
                std::fs::create_dir_all(&directory).unwrap();
                write(&directory, &name, &page).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == page, "{} is out of date: UPDATE=1 writes it", path.display());
        }
        for entry in std::fs::read_dir(&directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(pages().iter().any(|(page, _)| *page == name), "{name} is the page of nothing");
        }
    }

    #[test]
    fn the_exit_codes_of_the_page_are_those_of_the_program() {
        let page = program();
        for (_, code, words) in Class::ALL {
            assert!(page.contains(&format!(".B {code}\n{}\n", escaped(words))), "{code}");
        }
    }

    #[test]
    fn text_cannot_become_a_request() {
        assert_eq!(escaped(".pgpass\n'x' -a\\b"), "\\&.pgpass\n\\&'x' \\-a\\eb");
    }
}
