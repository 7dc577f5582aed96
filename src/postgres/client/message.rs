//! Bodies of backend messages, read without panics.

use super::error::Notice;

/// Why a body could not be read.
pub(super) type Broken = &'static str;

/// A cursor over a body.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Broken> {
        let (head, rest) = self.0.split_at_checked(bytes).ok_or("a message that is too short")?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn i16(&mut self) -> Result<i16, Broken> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Broken> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Broken> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.take(N)?.try_into().map_err(|_| "a message that is too short")
    }

    /// Up to the next zero byte, which is skipped.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Broken> {
        let end = self.0.iter().position(|&b| b == 0).ok_or("a text without an end")?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(text)
    }

    pub(super) fn end(&self) -> Result<(), Broken> {
        if self.0.is_empty() { Ok(()) } else { Err("a message that is too long") }
    }
}

/// For people: replacement characters for what is not UTF-8.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first line of what something else than a server said, for people.
pub(super) fn printable_line(bytes: &[u8]) -> String {
    let line = bytes.split(|b| matches!(b, b'\n' | b'\r' | 0)).next().unwrap_or_default();
    text(&line[..line.len().min(60)]).escape_default().to_string()
}

/// An ErrorResponse or NoticeResponse.
pub(super) fn notice(body: &[u8]) -> Result<Notice, Broken> {
    let mut reader = Reader(body);
    let mut notice = Notice::default();
    let mut translated = String::new();
    loop {
        let field = reader.byte()?;
        if field == 0 {
            break;
        }
        let value = text(reader.string()?);
        match field {
            b'V' => notice.severity = value,
            b'S' => translated = value,
            b'C' => notice.sqlstate = value,
            b'M' => notice.message = value,
            b'D' => notice.detail = value,
            b'H' => notice.hint = value,
            b'R' => notice.routine = value,
            _ => {}
        }
    }
    if notice.severity.is_empty() {
        // Before 9.6 there is only the translated one.
        notice.severity = translated;
    }
    Ok(notice)
}

/// The values of a DataRow.
pub(super) fn row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Broken> {
    let mut reader = Reader(body);
    let count = reader.i16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match reader.i32()? {
            -1 => None,
            length => Some(reader.take(usize::try_from(length).map_err(|_| "a value of negative length")?)?),
        });
    }
    reader.end()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_keeps_its_fields() {
        let notice = notice(b"SFEHLER\0VERROR\0C42501\0Mno\0Ddetail\0Hhint\0RInitPostgres\0\0").unwrap();
        assert_eq!(notice.severity, "ERROR");
        assert_eq!(notice.to_string(), "no (detail) [42501]");
        assert_eq!((notice.hint.as_str(), notice.routine.as_str()), ("hint", "InitPostgres"));
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = notice(&body);
            let _ = row(&body);
        }
    }
}
