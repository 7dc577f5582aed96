//! Texts that people read, kept as files: a change of words shows up in review.

use std::fs;
use std::path::Path;

/// What differs from run to run and is replaced before the comparison, in the order given.
pub enum Replace {
    /// Each occurrence of a text by another.
    Text(String, String),
    /// Each run of characters of a shape by a word. In the shape `0` is a digit, `X` an upper-case hexadecimal
    /// digit, `a` a lower-case letter or digit; `+` after one of these means one or more. Others are themselves.
    Shape(&'static str, &'static str),
}

impl Replace {
    /// A text, a path for instance, by a word.
    pub fn text(what: impl std::fmt::Display, with: &str) -> Self {
        Self::Text(what.to_string(), with.to_owned())
    }

    /// Backup identifiers.
    pub fn backup_ids() -> Vec<Self> {
        vec![
            Self::Shape("00000000T000000Z-F-aaaaaaaaaaaaa", "FULL_BACKUP"),
            Self::Shape("00000000T000000Z-I-aaaaaaaaaaaaa", "INCREMENTAL_BACKUP"),
        ]
    }

    /// Dates with times, in the forms that walden prints.
    pub fn times() -> Vec<Self> {
        vec![
            Self::Shape("0000-00-00 00:00:00.0+ UTC", "TIME"),
            Self::Shape("0000-00-00 00:00:00 UTC", "TIME"),
            Self::Shape("0000-00-00T00:00:00.0+Z", "TIME"),
            Self::Shape("0000-00-00T00:00:00Z", "TIME"),
        ]
    }

    /// Positions in the WAL.
    pub fn lsns() -> Vec<Self> {
        vec![Self::Shape("X+/X+", "LSN")]
    }

    /// Names of WAL segments.
    pub fn segments() -> Vec<Self> {
        vec![Self::Shape("XXXXXXXXXXXXXXXXXXXXXXXX", "SEGMENT")]
    }

    /// The text with it done.
    pub fn apply(&self, text: &str) -> String {
        match self {
            Self::Text(what, with) => text.replace(what.as_str(), with),
            Self::Shape(shape, with) => replace_shape(text, shape, with),
        }
    }
}

fn replace_shape(text: &str, shape: &str, with: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let shape: Vec<char> = shape.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while let Some(c) = text.get(at) {
        // Not in the middle of a longer word or number.
        let inside = at > 0 && text[at - 1].is_ascii_alphanumeric();
        match shape_length(&text[at..], &shape).filter(|_| !inside) {
            Some(length) => {
                out.push_str(with);
                at += length;
            }
            None => {
                out.push(*c);
                at += 1;
            }
        }
    }
    out
}

/// How many characters at the beginning of `text` have the shape, if the word ends there.
fn shape_length(text: &[char], shape: &[char]) -> Option<usize> {
    let fits = |class: char, c: char| match class {
        '0' => c.is_ascii_digit(),
        'X' => c.is_ascii_digit() || ('A'..='F').contains(&c),
        'a' => c.is_ascii_digit() || c.is_ascii_lowercase(),
        other => c == other,
    };
    let (mut at, mut in_shape) = (0, 0);
    while let Some(class) = shape.get(in_shape) {
        if !fits(*class, *text.get(at)?) {
            return None;
        }
        at += 1;
        in_shape += 1;
        if shape.get(in_shape) == Some(&'+') {
            in_shape += 1;
            while text.get(at).is_some_and(|c| fits(*class, *c)) {
                at += 1;
            }
        }
    }
    (!text.get(at).is_some_and(char::is_ascii_alphanumeric)).then_some(at)
}

/// Compares `actual` with `fixtures/golden/NAME.txt` after replacing what is volatile; blanks at the ends of lines
/// do not count. `UPDATE=1` writes the file instead.
///
/// Panics with both texts when they differ, and when the file is missing.
pub fn golden(name: &str, actual: &str, replacements: &[Replace]) {
    let actual = replacements.iter().fold(actual.to_owned(), |text, replace| replace.apply(&text));
    let actual: String = actual.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e} (UPDATE=1 writes it)\n--- actual\n{actual}", path.display()));
    if expected == actual {
        return;
    }
    let first = expected.lines().zip(actual.lines()).position(|(e, a)| e != a);
    let line = 1 + first.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    panic!(
        "{} differs from line {line} on (UPDATE=1 rewrites it)\n--- expected\n{expected}--- actual\n{actual}",
        path.display()
    );
}

#[test]
fn what_changes_from_run_to_run_is_replaced_and_nothing_else() {
    let text = "20261121T020411Z-I-7k2qm4x9c1wte at 2026-11-21 02:07:31 UTC, 0/3000028, /a/b, 00000002000000A50000000C.";
    let all = Replace::backup_ids()
        .into_iter()
        .chain(Replace::times())
        .chain(Replace::lsns())
        .chain(Replace::segments());
    let shown = all.fold(text.to_owned(), |text, replace| replace.apply(&text));
    assert_eq!(shown, "INCREMENTAL_BACKUP at TIME, LSN, /a/b, SEGMENT.");
}
