//! Numbers and byte strings as they stand in footers, maps and records.
//!
//! Unsigned LEB128, shortest form only: one value has one encoding, so equal contents are equal bytes.

/// The input ended early, or a number or length was not what its place allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bytes do not follow the stored format")
    }
}

impl std::error::Error for Malformed {}

/// Appends `value`.
pub fn put(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Appends a signed `value` (zigzag).
pub fn put_signed(into: &mut Vec<u8>, value: i64) {
    put(into, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
pub fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// Takes values from the front of a slice; every take checks what is left.
#[derive(Debug, Clone)]
pub struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    /// Reads from the beginning of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes not yet taken.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.0.len()
    }

    /// Ends the reading: nothing may be left over.
    ///
    /// # Errors
    /// When something is.
    pub const fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// The next byte.
    ///
    /// # Errors
    /// At the end.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn exactly(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.0.len() {
            return Err(Malformed);
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.exactly(N)?.try_into().map_err(|_| Malformed)
    }

    /// The next number.
    ///
    /// # Errors
    /// When it is cut, longer than 64 bits or not in its shortest form.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(Malformed) } else { Ok(value) };
            }
        }
        Err(Malformed)
    }

    /// The next number, which must fit and be at most `limit`.
    ///
    /// # Errors
    /// When it is more.
    pub fn at_most(&mut self, limit: u64) -> Result<u64, Malformed> {
        self.number().and_then(|value| if value <= limit { Ok(value) } else { Err(Malformed) })
    }

    /// The next number as 32 bits.
    ///
    /// # Errors
    /// When it is larger.
    pub fn number32(&mut self) -> Result<u32, Malformed> {
        self.number()?.try_into().map_err(|_| Malformed)
    }

    /// The next signed number.
    ///
    /// # Errors
    /// As [`Take::number`].
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let zigzag = self.number()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// The next length and that many bytes, of which there may be at most `limit`.
    ///
    /// # Errors
    /// When there are more, or fewer are left.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if length > limit { Err(Malformed) } else { self.exactly(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back_and_have_one_form(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put_signed(&mut bytes, signed);
            let mut take = Take::new(&bytes);
            prop_assert_eq!(take.number(), Ok(value));
            prop_assert_eq!(take.signed(), Ok(signed));
            prop_assert_eq!(take.end(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused_and_what_is_read_is_written_the_same(bytes: Vec<u8>) {
            let mut take = Take::new(&bytes);
            if let Ok(value) = take.number() {
                let mut again = Vec::new();
                put(&mut again, value);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - take.left()]);
            }
        }
    }
}
