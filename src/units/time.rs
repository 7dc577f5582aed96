//! Moments.

use std::fmt;

/// A moment, in microseconds since 1970-01-01 00:00:00 UTC. PostgreSQL's `TimestampTz` counts from
/// 2000-01-01 instead: use [`Timestamp::from_postgres`]. Rendering is the business of `report`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Microseconds from 1970-01-01 to 2000-01-01 (`POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE` days).
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Timestamp {
    /// `micros` microseconds after 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// `seconds` seconds after 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// From PostgreSQL's `TimestampTz`; values beyond the range become the nearest one.
    #[must_use]
    pub const fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(POSTGRES_EPOCH))
    }

    /// Microseconds since 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn as_unix_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01 00:00:00 UTC, rounded down.
    #[must_use]
    pub const fn as_unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Microseconds from `earlier` to here, negative when `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({}µs)", self.0)
    }
}

/// Year, month, day of a day number since 1970-01-01 (proleptic Gregorian; Howard Hinnant's `civil_from_days`).
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

impl Timestamp {
    /// `20261121T022100Z`, the form in which ids and names carry a moment (UTC, whole seconds, years 0–9999).
    #[must_use]
    pub fn compact(self) -> String {
        let seconds = self.as_unix_seconds();
        let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        format!(
            "{:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
            year.clamp(0, 9999),
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgresql_counts_from_the_year_2000() {
        assert_eq!(Timestamp::from_postgres(0).compact(), "20000101T000000Z");
        assert_eq!(Timestamp::from_unix_seconds(1_795_227_660).compact(), "20261121T022100Z");
        assert_eq!(Timestamp::from_unix_seconds(-1).compact(), "19691231T235959Z");
    }
}
