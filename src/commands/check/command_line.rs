//! Taking `archive_command` apart: whether it runs walden, and for which stanza and configuration.

use std::path::Path;

/// What an `archive_command` does, as far as it can be read off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sense {
    /// There is none.
    Empty,
    /// It reports success and stores nothing.
    Discards,
    /// It runs `walden … archive-push`.
    Walden(Call),
    /// It runs something else.
    Other {
        /// The program's name.
        program: String,
    },
    /// A script's worth of shell: not taken apart.
    Shell {
        /// Whether walden and archive-push occur in it.
        names_walden: bool,
    },
}

/// A call of walden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// The program as it is written.
    pub program: String,
    /// What `--stanza` says.
    pub stanza: Option<String>,
    /// What `--config` says.
    pub config: Option<String>,
    /// Whether `archive-push` is the command.
    pub pushes: bool,
    /// Whether PostgreSQL puts the segment's path in.
    pub names_segment: bool,
}

pub(super) fn sense(command: &str) -> Sense {
    let command = command.trim();
    if command.is_empty() {
        return Sense::Empty;
    }
    let Some(words) = words(command) else {
        return Sense::Shell { names_walden: command.contains("walden") && command.contains("archive-push") };
    };
    // NAME=value before the program is environment.
    let (environment, words): (Vec<_>, Vec<_>) = {
        let program = words.iter().position(|word| !is_assignment(word)).unwrap_or(words.len());
        let mut words = words;
        let rest = words.split_off(program);
        (words, rest)
    };
    let mut words = words.into_iter();
    let Some(program) = words.next() else { return Sense::Empty };
    let name =
        Path::new(&program).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let rest: Vec<String> = words.collect();
    match name.as_str() {
        "true" | ":" => Sense::Discards,
        "exit" if rest.first().is_none_or(|code| code == "0") => Sense::Discards,
        "walden" => Sense::Walden(call(program, &rest).or_by(&environment)),
        _ => Sense::Other { program },
    }
}

impl Call {
    /// What no option says, variables may.
    fn or_by(mut self, environment: &[String]) -> Self {
        let variable = |name: &str| {
            environment
                .iter()
                .rev()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        self.stanza = self.stanza.or_else(|| variable("WALDEN_STANZA"));
        self.config = self.config.or_else(|| variable("WALDEN_CONFIG"));
        self
    }
}

fn call(program: String, arguments: &[String]) -> Call {
    let mut call = Call { program, ..Call::default() };
    let mut arguments = arguments.iter().peekable();
    while let Some(argument) = arguments.next() {
        call.names_segment |= argument.contains("%p");
        let Some(option) = argument.strip_prefix("--") else {
            call.pushes |= argument == "archive-push";
            continue;
        };
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        let place = match name {
            "stanza" => &mut call.stanza,
            "config" => &mut call.config,
            _ => continue,
        };
        *place = value.or_else(|| arguments.next().cloned());
    }
    call
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// The words of a simple command, unquoted as `sh` would; `None` for what a shell would do more with than run it.
fn words(command: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut begun) = (Vec::new(), String::new(), false);
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                begun = true;
                loop {
                    match characters.next()? {
                        '\'' => break,
                        inside => word.push(inside),
                    }
                }
            }
            '"' => {
                begun = true;
                loop {
                    match characters.next()? {
                        '"' => break,
                        '$' | '`' => return None,
                        '\\' => word.push(characters.next()?),
                        inside => word.push(inside),
                    }
                }
            }
            '\\' => {
                begun = true;
                word.push(characters.next()?);
            }
            ';' | '|' | '&' | '<' | '>' | '$' | '`' | '(' | ')' | '*' | '?' | '[' | '#' | '\n' => {
                return None;
            }
            blank if blank.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            other => {
                begun = true;
                word.push(other);
            }
        }
    }
    if begun {
        words.push(word);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walden(command: &str) -> Call {
        match sense(command) {
            Sense::Walden(call) => call,
            other => panic!("{command}: {other:?}"),
        }
    }

    #[test]
    fn a_call_of_walden_is_recognised_with_its_stanza_and_configuration() {
        let call = walden("/usr/local/bin/walden --stanza=shop archive-push \"%p\"");
        assert_eq!(call.program, "/usr/local/bin/walden");
        assert_eq!((call.stanza.as_deref(), call.config), (Some("shop"), None));
        assert!(call.pushes && call.names_segment);
        let call = walden("TZ=UTC walden '--config=/a b/c' --stanza other archive-push %p");
        assert_eq!((call.stanza.as_deref(), call.config.as_deref()), (Some("other"), Some("/a b/c")));
        let call = walden("WALDEN_CONFIG=/a/b.conf WALDEN_STANZA='shop' walden archive-push %p");
        assert_eq!((call.stanza.as_deref(), call.config.as_deref()), (Some("shop"), Some("/a/b.conf")));
        let call = walden("WALDEN_CONFIG=/a/b.conf walden --config=/c archive-push %p");
        assert_eq!(call.config.as_deref(), Some("/c"));
        assert!(!walden("walden info").pushes);
        assert!(!walden("walden archive-push").names_segment);
    }

    #[test]
    fn what_stores_nothing_or_is_another_program_is_told_apart() {
        assert_eq!(sense("  "), Sense::Empty);
        for nothing in ["true", "/bin/true", ":", "exit 0"] {
            assert_eq!(sense(nothing), Sense::Discards, "{nothing}");
        }
        assert_eq!(sense("cp %p /mnt/%f"), Sense::Other { program: "cp".to_owned() });
        assert_eq!(sense("exit 1"), Sense::Other { program: "exit".to_owned() });
        assert_eq!(sense("test ! -f /mnt/%f && cp %p /mnt/%f"), Sense::Shell { names_walden: false });
        assert_eq!(sense("walden archive-push %p || logger no"), Sense::Shell { names_walden: true });
        assert_eq!(sense("walden 'archive-push"), Sense::Shell { names_walden: true });
    }

    proptest! {
        #[test]
        fn no_command_makes_it_panic(command in ".*") {
            sense(&command);
        }
    }
}
