//! The configuration file's syntax: sections, `key=value`, whole-line comments, and the number of every line.
//!
//! A value is everything after the first `=`, without blanks around it: nothing is quoted or escaped, and
//! `#` within a value is part of it, because passphrases contain all of these.

use std::fmt;

/// One `key=value` line.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The section it stands in, without brackets.
    pub section: String,
    /// The key as written.
    pub key: String,
    /// The value, trimmed.
    pub value: String,
    /// The line, from 1.
    pub line: usize,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Neither a section nor `key=value`.
    NoEqualsSign,
    /// Nothing before the `=`.
    NoKey,
    /// Nothing after the `=`.
    NoValue,
    /// An option before the first section.
    NoSection,
    /// A section without its closing bracket or without a name.
    BadSection,
    /// Bytes that are not UTF-8.
    NotUtf8,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEqualsSign => "the line is neither [section] nor option=value",
            Self::NoKey => "there is no option before the =",
            Self::NoValue => "there is no value after the =; remove the line to use the default",
            Self::NoSection => {
                "the option stands before the first section; most options belong under [global]"
            }
            Self::BadSection => "a section is written [name]",
            Self::NotUtf8 => "the line is not UTF-8 text",
        })
    }
}

/// What a file says: its entries, its sections with the line each begins at, and what is wrong.
#[derive(Default)]
pub struct Parsed {
    /// In the order of the file.
    pub entries: Vec<Entry>,
    /// In the order of the file, empty sections too.
    pub sections: Vec<(String, usize)>,
    /// Lines that could not be understood.
    pub problems: Vec<(usize, Problem)>,
}

/// Reads a file's contents. Never fails: what is wrong is listed, so that the rest can still be used.
#[must_use]
pub fn parse(contents: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let contents = contents.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(contents);
    for (number, line) in contents.split(|byte| *byte == b'\n').enumerate() {
        let number = number + 1;
        let mut wrong = |problem| parsed.problems.push((number, problem));
        let Ok(line) = std::str::from_utf8(line) else {
            wrong(Problem::NotUtf8);
            continue;
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            match rest.strip_suffix(']').map(str::trim) {
                Some(name) if !name.is_empty() && !name.contains(['[', ']']) => {
                    parsed.sections.push((name.to_owned(), number));
                }
                _ => wrong(Problem::BadSection),
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            wrong(Problem::NoEqualsSign);
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        match parsed.sections.last() {
            _ if key.is_empty() => wrong(Problem::NoKey),
            _ if value.is_empty() => wrong(Problem::NoValue),
            None => wrong(Problem::NoSection),
            Some((section, _)) => parsed.entries.push(Entry {
                section: section.clone(),
                key: key.to_owned(),
                value: value.to_owned(),
                line: number,
            }),
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_taken_verbatim() {
        let parsed = parse(
            b"\xEF\xBB\xBF# comment\r\n; another\n[global]\nrepo1-cipher-pass = a=b #\\\"c; \r\n\n [main:backup] \nx=y",
        );
        let read: Vec<_> = parsed
            .entries
            .iter()
            .map(|e| (e.section.as_str(), e.key.as_str(), e.value.as_str(), e.line))
            .collect();
        assert_eq!(read, [("global", "repo1-cipher-pass", "a=b #\\\"c;", 4), ("main:backup", "x", "y", 7)]);
        assert!(parsed.problems.is_empty());
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let parsed = parse(b"a=b\n[]\n[x\n[global]\nnothing\n=v\nk=\n\xFF=1\nok=1\n");
        assert_eq!(
            parsed.problems,
            [
                (1, Problem::NoSection),
                (2, Problem::BadSection),
                (3, Problem::BadSection),
                (5, Problem::NoEqualsSign),
                (6, Problem::NoKey),
                (7, Problem::NoValue),
                (8, Problem::NotUtf8),
            ]
        );
        assert_eq!(parsed.entries.len(), 1);
    }

    proptest! {
        #[test]
        fn no_contents_make_it_panic(contents: Vec<u8>) {
            let _ = parse(&contents);
        }
    }
}
