//! The names of notes in the catalog.

use super::Timestamp;
use std::fmt;
use std::str::FromStr;

/// A note's id: a ULID in lower case, `01kajzq6m3v8t5e9xw2c7d4n1b`.
///
/// 48 bits of milliseconds since 1970 and 80 random bits, as 26 characters of Crockford's base 32; the order of
/// the text is the order of the ids. The clock in it orders notes whose writers knew nothing of each other and
/// decides nothing else: see [`NoteId::next`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoteId(u128);

/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;
const RANDOM_BITS: u32 = 80;
const LAST_MILLISECOND: u64 = (1 << 48) - 1;

impl NoteId {
    /// The id of a note written at `now` by someone who has seen `seen` and nothing newer: later than that,
    /// whatever the clock says. (Only in the year 10889 will it no longer be later for sure.)
    #[must_use]
    pub fn next(now: Timestamp, random: [u8; 10], seen: Option<Self>) -> Self {
        let clock = u64::try_from(now.as_unix_micros() / 1000).unwrap_or(0);
        let after = seen.map_or(0, |seen| seen.milliseconds().saturating_add(1));
        let time = clock.max(after).min(LAST_MILLISECOND);
        let tail = random.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        Self(u128::from(time) << RANDOM_BITS | tail)
    }

    fn milliseconds(self) -> u64 {
        u64::try_from(self.0 >> RANDOM_BITS).unwrap_or(LAST_MILLISECOND)
    }
}

impl fmt::Display for NoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = (0..LENGTH)
            .rev()
            .map(|place| char::from(ALPHABET[usize::try_from(self.0 >> (5 * place) & 31).unwrap_or(0)]))
            .collect();
        f.write_str(&text)
    }
}

impl fmt::Debug for NoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteId({self})")
    }
}

/// The text was not a note's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotANoteId(String);

impl fmt::Display for NotANoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not the id of a note such as 01kajzq6m3v8t5e9xw2c7d4n1b", self.0)
    }
}

impl std::error::Error for NotANoteId {}

impl FromStr for NoteId {
    type Err = NotANoteId;

    fn from_str(text: &str) -> Result<Self, NotANoteId> {
        let refuse = || NotANoteId(text.to_owned());
        // 26 characters carry 130 bits: the first has only three of its five.
        if text.len() != LENGTH || !text.starts_with(|first| ('0'..='7').contains(&first)) {
            return Err(refuse());
        }
        text.bytes()
            .try_fold(0_u128, |bits, c| {
                let digit = ALPHABET.iter().position(|letter| *letter == c)?;
                Some(bits << 5 | digit as u128)
            })
            .map(Self)
            .ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp::from_unix_seconds(1_795_227_660);

    #[test]
    fn an_id_is_later_than_what_its_writer_saw_whatever_the_clock_says() {
        let first = NoteId::next(AT, [0xFF; 10], None);
        assert_eq!(first.to_string(), "01m7xygbq0zzzzzzzzzzzzzzzz");
        let back = NoteId::next(Timestamp::from_unix_seconds(-5), [0; 10], Some(first));
        assert!(back > first && back.to_string() > first.to_string());
        let end = NoteId::next(Timestamp::from_unix_micros(i64::MAX), [0; 10], None);
        assert!(NoteId::next(AT, [1; 10], Some(end)) > end);
        for bad in
            ["", "8zzzzzzzzzzzzzzzzzzzzzzzzz", "01KAJZQ6M3V8T5E9XW2C7D4N1B", "01kajzq6m3v8t5e9xw2c7d4n1i"]
        {
            assert!(bad.parse::<NoteId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_comes_back_and_sorts_as_the_ids_do(one: u128, two: u128) {
            let (one, two) = (NoteId(one), NoteId(two));
            prop_assert_eq!(one.to_string().parse::<NoteId>(), Ok(one));
            prop_assert_eq!(one.to_string().cmp(&two.to_string()), one.cmp(&two));
        }
    }
}
