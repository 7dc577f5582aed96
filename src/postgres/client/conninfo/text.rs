//! The two forms of a connection string: `key=value` pairs and URIs (libpq's fe-connect.c,
//! `conninfo_parse` and `conninfo_uri_parse_options`).

use super::super::password::Password;
use super::ConninfoError;
use std::iter::Peekable;
use std::str::Chars;

fn syntax<T>(what: impl Into<String>) -> Result<T, ConninfoError> {
    Err(ConninfoError::Syntax(what.into()))
}

/// The pairs of a connection string in either form, names not checked yet.
pub(super) fn parse(string: &Password) -> Result<Vec<(String, String)>, ConninfoError> {
    let Ok(text) = std::str::from_utf8(string.bytes()) else { return syntax("it is not UTF-8") };
    let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    let pairs = match uri {
        Some(rest) => from_uri(rest)?,
        None => from_pairs(text)?,
    };
    if pairs.iter().any(|(_, value)| value.contains('\0')) {
        return syntax("a value holds a zero byte");
    }
    Ok(pairs)
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
}

fn from_pairs(text: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut pairs = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        skip_spaces(&mut chars);
        if chars.peek().is_none() {
            return Ok(pairs);
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
            name.push(c);
        }
        skip_spaces(&mut chars);
        if chars.next() != Some('=') {
            // Not quoted: it may be the second half of a password with a blank in it.
            return syntax(format!("missing \"=\" after word {} of it", pairs.len() + 1));
        }
        skip_spaces(&mut chars);
        let mut value = String::new();
        if chars.next_if_eq(&'\'').is_some() {
            loop {
                match chars.next() {
                    None => return syntax(format!("the quoted value of \"{name}\" does not end")),
                    Some('\'') => break,
                    Some('\\') => value.extend(chars.next()),
                    Some(c) => value.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| !c.is_ascii_whitespace()) {
                if c == '\\' {
                    value.extend(chars.next());
                } else {
                    value.push(c);
                }
            }
        }
        pairs.push((name, value));
    }
}

/// `[user[:password]@][host][:port][/database][?name=value[&…]]`, after the scheme.
fn from_uri(rest: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut pairs = Vec::new();
    let mut push = |name: &str, value: &str| -> Result<(), ConninfoError> {
        if !value.is_empty() {
            pairs.push((name.to_owned(), decode(value)?));
        }
        Ok(())
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // libpq looks for the "@" before the first "/" only.
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let host_port = match authority.split_once('@') {
        Some((user_password, host_port)) => {
            let (user, password) = user_password.split_once(':').unwrap_or((user_password, ""));
            push("user", user)?;
            push("password", password)?;
            host_port
        }
        None => authority,
    };
    let (host, port) = if let Some(bracketed) = host_port.strip_prefix('[') {
        let Some((host, after)) = bracketed.split_once(']') else {
            return syntax("missing \"]\" after the address");
        };
        match after.strip_prefix(':') {
            Some(port) => (host, port),
            None if after.is_empty() => (host, ""),
            // Another host may follow: several are refused later, by name.
            None if after.starts_with(',') => (host_port, ""),
            None => return syntax("unexpected characters after \"]\""),
        }
    } else if host_port.contains(',') {
        (host_port, "")
    } else {
        host_port.split_once(':').unwrap_or((host_port, ""))
    };
    push("host", host)?;
    push("port", port)?;
    push("dbname", path.strip_prefix('/').unwrap_or(path))?;
    for parameter in query.unwrap_or("").split('&').filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return syntax("a parameter of the URI has no \"=\"");
        };
        let name = decode(name)?;
        match (name.as_str(), value) {
            ("ssl", "true") => pairs.push(("sslmode".to_owned(), "require".to_owned())),
            _ => pairs.push((name, decode(value)?)),
        }
    }
    Ok(pairs)
}

/// Percent-decoding.
fn decode(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let decoded = match after {
            [high, low, ..] => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match decoded {
            Some(decoded) => bytes.push(decoded),
            None => return syntax("a \"%\" is not followed by two hexadecimal digits"),
        }
        rest = &after[2..];
    }
    String::from_utf8(bytes).or_else(|_| syntax("a value is not UTF-8 after percent-decoding"))
}
