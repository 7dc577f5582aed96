//! PostgreSQL's configuration files and the two quotings of a `restore_command`.
//!
//! Files are bytes: comments and values may be in any encoding. What is not understood is kept as it is.

/// A line that sets something (`guc-file.l`): its name in lower case and its value, unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The name, in lower case: PostgreSQL does not tell cases apart.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
}

/// What a line of a configuration file sets; `None` for blank lines, comments and what PostgreSQL would refuse.
#[must_use]
pub fn line(text: &[u8]) -> Option<Line> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|b| !is_name(*b)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.first().is_none_or(|b| b.is_ascii_digit() || *b == b'.') {
        return None;
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let mut rest = rest.trim_ascii_start();
    if let [b'=', after @ ..] = rest {
        rest = after.trim_ascii_start();
    }
    let value = match rest.first()? {
        b'#' => return None,
        b'\'' => unquoted(rest)?,
        _ => rest.iter().copied().take_while(|b| !b.is_ascii_whitespace() && *b != b'#').collect(),
    };
    Some(Line { name, value })
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || byte >= 0x80
}

/// `DeescapeQuotedString`: `''` and `\'` are a quote, backslash escapes as in C.
fn unquoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut bytes = text.get(1..)?.iter().copied().peekable();
    loop {
        match bytes.next()? {
            b'\'' if bytes.peek() == Some(&b'\'') => {
                bytes.next();
                value.push(b'\'');
            }
            b'\'' => return Some(value),
            b'\\' => match bytes.next()? {
                b'b' => value.push(0x08),
                b'f' => value.push(0x0C),
                b'n' => value.push(b'\n'),
                b'r' => value.push(b'\r'),
                b't' => value.push(b'\t'),
                digit @ b'0'..=b'7' => {
                    let mut code = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(next @ b'0'..=b'7') = bytes.peek().copied() else { break };
                        code = code * 8 + u32::from(next - b'0');
                        bytes.next();
                    }
                    value.push((code & 0xFF) as u8);
                }
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

/// The value as a configuration file has it, quoted.
#[must_use]
pub fn quoted(value: &[u8]) -> Vec<u8> {
    let mut text = vec![b'\''];
    for byte in value {
        match byte {
            b'\'' => text.extend(b"''"),
            b'\\' => text.extend(b"\\\\"),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            other => text.push(*other),
        }
    }
    text.push(b'\'');
    text
}

/// The word as a POSIX shell has it, quoted only where it must be.
#[must_use]
pub fn shell_word(word: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./:=,+@".contains(b);
    if !word.is_empty() && word.iter().all(plain) {
        return word.to_vec();
    }
    let mut text = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => text.extend(b"'\\''"),
            other => text.push(*other),
        }
    }
    text.push(b'\'');
    text
}

/// Doubles `%`, which PostgreSQL would replace in a `restore_command`.
#[must_use]
pub fn without_placeholders(text: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len());
    for byte in text {
        escaped.push(*byte);
        if *byte == b'%' {
            escaped.push(b'%');
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> Option<(String, String)> {
        line(text.as_bytes()).map(|line| (line.name, String::from_utf8(line.value).unwrap()))
    }

    #[test]
    fn lines_are_read_as_postgresql_reads_them() {
        for (text, name, value) in [
            ("port = 5432", "port", "5432"),
            ("  Port 5432 # comment", "port", "5432"),
            ("restore_command='cp ''/a b/%f'' %p'", "restore_command", "cp '/a b/%f' %p"),
            (r"x.y = 'a\\b\'c\101\n'", "x.y", "a\\b'cA\n"),
            ("primary_conninfo = ''", "primary_conninfo", ""),
            ("include_if_exists = 'x.conf'", "include_if_exists", "x.conf"),
        ] {
            assert_eq!(set(text), Some((name.to_owned(), value.to_owned())), "{text}");
        }
        for nothing in
            ["", "# port = 1", "   ", "port", "port =", "port = # 5", "'x' = 1", "1x = 2", "x = 'open"]
        {
            assert_eq!(set(nothing), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(value in proptest::collection::vec(1_u8.., 0..40)) {
            let mut text = b"restore_command = ".to_vec();
            text.extend(quoted(&value));
            prop_assert!(!text.contains(&b'\n'));
            prop_assert_eq!(line(&text).unwrap().value, value);
        }

        #[test]
        fn no_line_makes_the_reader_panic(text: Vec<u8>) {
            let _ = line(&text);
        }

        #[test]
        fn a_shell_gives_the_word_back(word in proptest::collection::vec(1_u8.., 0..20)) {
            use std::os::unix::ffi::OsStrExt;
            let mut command = b"printf %s ".to_vec();
            command.extend(shell_word(&word));
            let output = std::process::Command::new("sh")
                .arg("-c").arg(std::ffi::OsStr::from_bytes(&command)).output().unwrap();
            prop_assert_eq!(output.stdout, word);
        }
    }
}
