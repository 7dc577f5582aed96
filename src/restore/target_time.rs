//! Reading the moment that a person wants to go back to.
//!
//! A wrong guess here restores the wrong hour of somebody's data, so nothing is guessed: what can be read in
//! two ways is refused with both readings. What is accepted:
//! * an ISO date and time: `2026-11-21 09:14:59`, with `T`, a fraction, and a zone (`Z`, `+01`, `+01:00`,
//!   `Europe/Berlin`) or without one, which means the operator's and is said aloud;
//! * the compact form in which backup ids carry a moment, `20261121T022100Z`;
//! * phrases: `10 minutes ago`, `1 hour 30 min ago`, `yesterday 14:00`, `today 09:30`, `now`.

mod phrases;
mod zones;

use self::zones::{Zone, offset_text};
use crate::units::Timestamp;
use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use std::fmt;

/// The longest text looked at.
const LONGEST: usize = 200;

/// A moment that was read, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTime {
    /// The moment.
    pub at: Timestamp,
    /// The zone that was assumed because none was written.
    pub assumed_zone: Option<String>,
}

/// Whose clock and zone a text without them means.
#[derive(Clone, Debug)]
pub struct Here {
    now: Zoned,
}

impl Here {
    /// The operator's moment and zone.
    #[must_use]
    pub fn new(now: Timestamp, zone: TimeZone) -> Self {
        let now =
            jiff::Timestamp::from_microsecond(now.as_unix_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Self { now: now.to_zoned(zone) }
    }

    /// What to call the zone.
    #[must_use]
    pub fn zone_name(&self) -> String {
        zone_name(&self.now)
    }

    /// The wall clock of the operator at `at`, `2026-11-21 09:14:59`, when it differs from UTC's.
    #[must_use]
    pub fn local(&self, at: Timestamp) -> Option<String> {
        let zoned = jiff::Timestamp::from_microsecond(at.as_unix_micros())
            .ok()?
            .to_zoned(self.now.time_zone().clone());
        (zoned.offset() != Offset::UTC).then(|| civil_text(zoned.datetime()))
    }
}

fn zone_name(zoned: &Zoned) -> String {
    match zoned.time_zone().iana_name() {
        Some(name) => name.to_owned(),
        None => format!("the zone of this machine ({})", offset_text(zoned.offset())),
    }
}

/// Why a text is not a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetTimeError {
    /// It is none of the accepted forms, or a part of it is out of its range.
    NotATime {
        /// What was written.
        text: String,
        /// What is wrong with it, when that can be said.
        why: Option<String>,
    },
    /// It could mean any of these.
    Ambiguous {
        /// What was written.
        text: String,
        /// What makes it so.
        why: String,
        /// The readings, each a text that is accepted, with words in brackets.
        readings: Vec<String>,
    },
    /// There is no such zone.
    UnknownZone {
        /// What stands where the zone should.
        zone: String,
    },
    /// The clock never showed this: it was put forward over it.
    Skipped {
        /// What was written.
        text: String,
        /// The zone.
        zone: String,
        /// The moments that the old and the new offset give.
        readings: Vec<String>,
    },
}

impl fmt::Display for TargetTimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATime { text, why: None } => write!(f, "\"{text}\" is not a moment walden can read"),
            Self::NotATime { text, why: Some(why) } => write!(f, "\"{text}\" is not a moment: {why}"),
            Self::Ambiguous { text, why, .. } => {
                write!(f, "\"{text}\" can be read in more than one way: {why}")
            }
            Self::UnknownZone { zone } => write!(f, "\"{zone}\" is not a time zone"),
            Self::Skipped { text, zone, .. } => {
                write!(f, "\"{text}\" never was in {zone}: the clock was put forward over it")
            }
        }
    }
}

impl std::error::Error for TargetTimeError {}

impl TargetTimeError {
    /// What the writer may have meant, best shown as choices.
    #[must_use]
    pub fn readings(&self) -> &[String] {
        match self {
            Self::Ambiguous { readings, .. } | Self::Skipped { readings, .. } => readings,
            Self::NotATime { .. } | Self::UnknownZone { .. } => &[],
        }
    }
}

/// Reads `text` as a moment, seen from `here`.
///
/// # Errors
/// When it is none, or can be read in more than one way.
pub fn parse(text: &str, here: &Here) -> Result<TargetTime, TargetTimeError> {
    let trimmed = text.trim();
    let refuse = |why: Option<&str>| {
        let mut shown: String = text.chars().take(LONGEST).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        TargetTimeError::NotATime { text: shown, why: why.map(str::to_owned) }
    };
    if trimmed.is_empty() || trimmed.len() > LONGEST || trimmed.contains('\0') {
        return Err(refuse(None));
    }
    let reader = Reader { text: trimmed, here };
    let lower = trimmed.to_ascii_lowercase();
    if lower == "now" {
        return Ok(reader.relative(here.now.timestamp()));
    }
    if let Some(phrase) = lower.strip_suffix(" ago") {
        return reader.ago(phrase);
    }
    for (word, back) in [("today", 0), ("yesterday", 1)] {
        if let Some(rest) = lower.strip_prefix(word) {
            return reader.day_word(word, back, rest);
        }
    }
    if let Some(error) = reader.day_and_month_unclear() {
        return Err(error);
    }
    if let Some(found) = reader.compact() {
        return found;
    }
    reader.iso()
}

struct Reader<'a> {
    text: &'a str,
    here: &'a Here,
}

impl Reader<'_> {
    fn not(&self, why: impl Into<String>) -> TargetTimeError {
        TargetTimeError::NotATime { text: self.text.to_owned(), why: Some(why.into()) }
    }

    fn not_at_all(&self) -> TargetTimeError {
        TargetTimeError::NotATime { text: self.text.to_owned(), why: None }
    }

    /// A moment counted from now needs no zone.
    fn relative(&self, at: jiff::Timestamp) -> TargetTime {
        TargetTime { at: Timestamp::from_unix_micros(at.as_microsecond()), assumed_zone: None }
    }

    fn whole_day(&self, day: Date) -> TargetTimeError {
        let mut readings = vec![format!("{day} 00:00:00 (its beginning)")];
        if let Ok(next) = day.tomorrow() {
            readings.push(format!("{next} 00:00:00 (its end)"));
        }
        TargetTimeError::Ambiguous {
            text: self.text.to_owned(),
            why: "a day is not a moment".to_owned(),
            readings,
        }
    }

    /// `02/03/2026 …`, `2.3.2026 …`, `02-03-2026 …`.
    fn day_and_month_unclear(&self) -> Option<TargetTimeError> {
        let date = self.text.split([' ', 'T', ',']).next()?;
        let rest = self.text.get(date.len()..).unwrap_or("");
        let separator = date.chars().find(|c| matches!(c, '/' | '.' | '-'))?;
        let parts: Vec<&str> = date.split(separator).collect();
        let [a, b, year] = parts.as_slice() else { return None };
        let small = |text: &str| -> Option<i8> {
            ((1..=2).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit()))
                .then(|| text.parse().ok())?
        };
        let year_of = |text: &str| -> Option<i16> {
            match text.len() {
                4 if text.bytes().all(|c| c.is_ascii_digit()) => text.parse().ok(),
                _ => None,
            }
        };
        // 2026/11/21: the order is clear, the form is not ours.
        if let (Some(year), Some(month), Some(day)) = (year_of(a), small(b), small(year)) {
            if separator == '-' {
                return None;
            }
            let date = Date::new(year, month, day).ok()?;
            return Some(self.not(format!("write the date as {date}")));
        }
        let (a, b) = (small(a)?, small(b)?);
        let Some(year) = year_of(year) else {
            return Some(self.not("write the year with four digits, first: 2026-11-21"));
        };
        let dates: Vec<(Date, &str)> =
            [(Date::new(year, b, a), "day first"), (Date::new(year, a, b), "month first")]
                .into_iter()
                .filter_map(|(date, how)| date.ok().map(|date| (date, how)))
                .collect();
        match dates.as_slice() {
            [] => Some(self.not("there is no such day")),
            [(first, _), (second, _)] if first != second => Some(TargetTimeError::Ambiguous {
                text: self.text.to_owned(),
                why: "day and month could change places".to_owned(),
                readings: dates.iter().map(|(date, how)| format!("{date}{rest} ({how})")).collect(),
            }),
            [(date, _), ..] => Some(self.not(format!("write it as {date}{rest}"))),
        }
    }

    /// `20261121T022100Z`.
    fn compact(&self) -> Option<Result<TargetTime, TargetTimeError>> {
        let bytes = self.text.as_bytes();
        let digits = |range: std::ops::Range<usize>| -> Option<i16> {
            let part = self.text.get(range)?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
        };
        if bytes.len() != 16 || bytes.get(8) != Some(&b'T') || bytes.get(15) != Some(&b'Z') {
            return None;
        }
        let year = digits(0..4)?;
        let two = |at: usize| digits(at..at + 2).and_then(|n| i8::try_from(n).ok());
        let (month, day, hour, minute, second) = (two(4)?, two(6)?, two(9)?, two(11)?, two(13)?);
        let at = Date::new(year, month, day)
            .and_then(|date| Time::new(hour, minute, second, 0).map(|time| date.to_datetime(time)));
        Some(match at {
            Ok(at) => self.resolve(at, Some(Zone::utc())),
            Err(_) => Err(self.not("a part of it is out of its range")),
        })
    }

    /// `2026-11-21[ T]09:14[:59[.123456]][ ]ZONE`.
    fn iso(&self) -> Result<TargetTime, TargetTimeError> {
        let Some((date, rest)) = self.text.split_at_checked(10) else {
            return Err(self.time_alone());
        };
        let mut parts = date.split('-');
        let mut part = |length: usize| {
            parts.next().filter(|p| p.len() == length && p.bytes().all(|b| b.is_ascii_digit()))
        };
        let (Some(year), Some(month), Some(day)) = (part(4), part(2), part(2)) else {
            return Err(self.time_alone());
        };
        let date = match (year.parse(), month.parse(), day.parse()) {
            (Ok(year), Ok(month), Ok(day)) => Date::new(year, month, day).ok(),
            _ => None,
        }
        .ok_or_else(|| self.not(format!("there is no day {date}")))?;
        if rest.is_empty() {
            return Err(self.whole_day(date));
        }
        let rest = rest
            .strip_prefix(['T', 't'])
            .or_else(|| rest.strip_prefix(' ').map(str::trim_start))
            .ok_or_else(|| self.not("a blank or a T belongs between day and time"))?;
        let (time, zone) = self.time_and_zone(rest)?;
        let zone = self.zone(zone)?;
        self.resolve(date.to_datetime(time), zone)
    }

    /// A time without a day, or nothing at all.
    fn time_alone(&self) -> TargetTimeError {
        match self.time_and_zone(self.text) {
            Ok(_) => TargetTimeError::Ambiguous {
                text: self.text.to_owned(),
                why: "the day is missing".to_owned(),
                readings: vec![format!("today {}", self.text), format!("yesterday {}", self.text)],
            },
            Err(_) => self.not_at_all(),
        }
    }

    /// Splits `09:14:59.123 Europe/Berlin` into the time of day and what stands behind it.
    fn time_and_zone<'t>(&self, text: &'t str) -> Result<(Time, &'t str), TargetTimeError> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(text.len());
        let (clock, zone) = text.split_at(end);
        let (clock, fraction) = match clock.split_once('.') {
            Some((clock, fraction)) => (clock, Some(fraction)),
            None => (clock, None),
        };
        let fields: Vec<&str> = clock.split(':').collect();
        let number = |text: &str, below: i8| -> Result<i8, TargetTimeError> {
            if text.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(self.not("a time is written 09:14 or 09:14:59"));
            }
            match text.parse() {
                Ok(number) if number < below => Ok(number),
                _ => Err(self.not(format!("there is no time {clock}"))),
            }
        };
        let (hour, minute, second) = match fields.as_slice() {
            [hour, minute] if fraction.is_none() => (number(hour, 24)?, number(minute, 60)?, 0),
            [hour, minute, second] => (number(hour, 24)?, number(minute, 60)?, number(second, 60)?),
            _ => return Err(self.not("a time is written 09:14 or 09:14:59")),
        };
        let nanos = match fraction {
            None => 0,
            Some(digits) if (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
                let shift = 9 - digits.len() as u32;
                digits.parse::<i32>().map_err(|_| self.not_at_all())? * 10_i32.pow(shift)
            }
            Some(_) => return Err(self.not("PostgreSQL's times have one to six digits after the point")),
        };
        let time = Time::new(hour, minute, second, nanos).map_err(|_| self.not_at_all())?;
        let after = zone.trim().to_ascii_lowercase();
        if matches!(after.split(' ').next(), Some("am" | "pm" | "a.m." | "p.m.")) {
            return Err(self.not("write the time with 24 hours"));
        }
        Ok((time, zone))
    }
}

fn civil_text(at: DateTime) -> String {
    let micros = at.subsec_nanosecond() / 1000;
    let whole = format!("{} {:02}:{:02}:{:02}", at.date(), at.hour(), at.minute(), at.second());
    if micros == 0 {
        return whole;
    }
    let fraction = format!("{micros:06}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

fn with_offset(zoned: &Zoned) -> String {
    format!("{}{}", civil_text(zoned.datetime()), offset_text(zoned.offset()))
}

/// `2026-11-21 08:14:59.25`, the wall clock of UTC without the zone's name.
#[must_use]
pub fn utc_text(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.as_unix_micros()).map_or_else(
        |_| "a time out of range".to_owned(),
        |at| civil_text(at.to_zoned(TimeZone::UTC).datetime()),
    )
}

#[cfg(test)]
mod tests;
