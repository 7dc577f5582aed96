//! From text to values.

use super::Secret;
use super::table::{Kind, OptionSpec};
use crate::units::{ByteCount, Stanza};
use std::path::PathBuf;
use std::time::Duration;

/// A value of the kind its option has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `y` or `n`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// An amount of data.
    Size(ByteCount),
    /// A length of time.
    Duration(Duration),
    /// Text, or one of some words.
    Text(String),
    /// A path.
    Path(PathBuf),
    /// A stanza's name.
    Stanza(Stanza),
    /// Keys and values in the order given.
    Map(Vec<(String, String)>),
    /// What must not be shown.
    Secret(Secret),
}

/// Why a text is no value of its option. Never holds a secret: it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue(String);

impl std::fmt::Display for BadValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadValue {}

/// Reads `texts` (several only for lists) as a value of `spec`.
///
/// # Errors
/// In words that say what would do.
pub fn parse(spec: &OptionSpec, texts: &[&str], from_file: bool) -> Result<Value, BadValue> {
    let bad = |words: String| Err(BadValue(words));
    // Of several texts for a single value the last counts; duplicates are refused before.
    let text = texts.last().copied().unwrap_or("");
    if text.is_empty() {
        return bad("it is empty".into());
    }
    if text.contains('\0') {
        return bad("it holds a zero byte".into());
    }
    if spec.secret {
        return Ok(Value::Secret(Secret::new(text.to_owned())));
    }
    match spec.kind {
        Kind::Boolean => match text {
            "y" => Ok(Value::Boolean(true)),
            "n" => Ok(Value::Boolean(false)),
            _ => bad("it takes y or n".into()),
        },
        Kind::Integer(low, high) => match text.parse::<i64>() {
            Ok(number) if (low..=high).contains(&number) && !text.starts_with('+') => {
                Ok(Value::Integer(number))
            }
            _ => bad(describe(spec)),
        },
        Kind::Size(low, high) => match text.parse::<ByteCount>() {
            Ok(size) if (low..=high).contains(&size.as_u64()) => Ok(Value::Size(size)),
            _ => bad(describe(spec)),
        },
        Kind::Duration(low, high) => match milliseconds(text) {
            Some(length) if (low..=high).contains(&length) => {
                Ok(Value::Duration(Duration::from_millis(length)))
            }
            _ => bad(describe(spec)),
        },
        Kind::Choice(words, known_elsewhere) => {
            if words.contains(&text) {
                return Ok(Value::Text(text.to_owned()));
            }
            match known_elsewhere.iter().find(|(word, _)| *word == text) {
                Some((_, instead)) => bad((*instead).to_owned()),
                None => bad(describe(spec)),
            }
        }
        Kind::Path => {
            let path = PathBuf::from(text);
            if from_file && !path.is_absolute() {
                return bad("in a file a path must begin with /".into());
            }
            Ok(Value::Path(path))
        }
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::Stanza => {
            text.parse().map(Value::Stanza).map_err(|e: crate::units::NotAStanza| BadValue(e.to_string()))
        }
        Kind::Map => {
            let mut pairs: Vec<(String, String)> = Vec::new();
            for text in texts {
                match text.split_once('=') {
                    Some((key, value)) if !key.trim().is_empty() => {
                        pairs.push((key.trim().to_owned(), value.to_owned()));
                    }
                    _ => return bad(format!("\"{text}\" is not of the form key=value")),
                }
            }
            Ok(Value::Map(pairs))
        }
    }
}

/// What values an option takes, as a sentence without its full stop.
#[must_use]
pub fn describe(spec: &OptionSpec) -> String {
    match spec.kind {
        Kind::Boolean => "it takes y or n".into(),
        Kind::Integer(low, high) => format!("it takes a whole number from {low} to {high}"),
        Kind::Size(low, high) => {
            format!("it takes a size from {} to {}, such as 16MiB", size_words(low), size_words(high))
        }
        Kind::Duration(low, high) => format!(
            "it takes a length of time from {} to {}, such as 90s, 5m or 1h; a bare number means seconds",
            duration_words(low),
            duration_words(high)
        ),
        Kind::Choice(words, _) => match words {
            [only] => format!("it takes {only}"),
            [first @ .., last] => format!("it takes {} or {last}", first.join(", ")),
            [] => "it takes nothing".into(),
        },
        Kind::Path => "it takes a path".into(),
        Kind::Text => "it takes text".into(),
        Kind::Stanza => "it takes a stanza's name".into(),
        Kind::Map => "it takes key=value and may be repeated".into(),
    }
}

fn size_words(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}")
}

const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// As it would be written in the configuration.
pub(super) fn duration_words(milliseconds: u64) -> String {
    UNITS
        .iter()
        .find(|(unit, length)| {
            *unit != "w" && milliseconds >= *length && milliseconds.is_multiple_of(*length)
        })
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, length)| format!("{}{unit}", milliseconds / length),
        )
}

/// `1m`, `500ms`, `90`; `None` for anything else and for what overflows.
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let length = match unit {
        "" => 1000,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(length)
}

impl Value {
    /// As it would be written in the configuration; secrets as stars.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Boolean(true) => "y".into(),
            Self::Boolean(false) => "n".into(),
            Self::Integer(number) => number.to_string(),
            Self::Size(size) => size_words(size.as_u64()),
            Self::Duration(length) => duration_words(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)),
            Self::Text(text) => text.clone(),
            Self::Path(path) => path.display().to_string(),
            Self::Stanza(stanza) => stanza.to_string(),
            Self::Map(pairs) => {
                pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
            }
            Self::Secret(_) => "********".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::options;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_of_time_are_read_and_written() {
        for (text, length) in [("90", 90_000), ("500ms", 500), ("1m", 60_000), ("1w", 604_800_000)] {
            assert_eq!(milliseconds(text), Some(length), "{text}");
        }
        for bad in ["", "m", "-1", "1 m", "1.5h", "99999999999999999999", "9999999999999w", "1y"] {
            assert_eq!(milliseconds(bad), None, "{bad}");
        }
        assert_eq!(duration_words(90_000), "90s");
        assert_eq!(duration_words(1_800_000), "30m");
    }

    #[test]
    fn every_default_is_a_value_of_its_option() {
        for spec in options() {
            let own = spec.default.into_iter().chain(spec.default_for.iter().map(|(_, value)| *value));
            for default in own {
                let value = parse(spec, &[default], true).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
                assert_eq!(value.shown(), default, "{} is not shown as it is written", spec.name);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(text in "\\PC{0,30}") {
            for spec in options().filter(|spec| !spec.secret) {
                if let Ok(value) = parse(spec, &[&text], false) {
                    prop_assert_eq!(&parse(spec, &[&value.shown()], false), &Ok(value), "{}", spec.name);
                }
            }
        }
    }
}
