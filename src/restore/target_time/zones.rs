//! Zones, offsets, and the hours that a clock change repeats or leaves out.

use super::{Reader, TargetTime, TargetTimeError, civil_text, with_offset};
use crate::units::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

impl Reader<'_> {
    pub(super) fn zone(&self, text: &str) -> Result<Option<Zone>, TargetTimeError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text.eq_ignore_ascii_case("z")
            || text.eq_ignore_ascii_case("utc")
            || text.eq_ignore_ascii_case("gmt")
        {
            return Ok(Some(Zone::utc()));
        }
        if let Some((before, name)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
            let named = self.named_zone(name)?;
            if before.is_empty() {
                return Ok(Some(named));
            }
            let Some(offset) = self.zone(before)?.and_then(|zone| zone.fixed) else {
                return Err(TargetTimeError::UnknownZone { zone: text.to_owned() });
            };
            return Ok(Some(Zone { fixed: Some(offset), ..named }));
        }
        if text.starts_with(['+', '-']) {
            let offset =
                offset_of(text).ok_or_else(|| TargetTimeError::UnknownZone { zone: text.to_owned() })?;
            return Ok(Some(Zone { tz: TimeZone::fixed(offset), fixed: Some(offset) }));
        }
        self.named_zone(text).map(Some)
    }

    pub(super) fn named_zone(&self, name: &str) -> Result<Zone, TargetTimeError> {
        let unknown = || TargetTimeError::UnknownZone { zone: name.to_owned() };
        let short = name.len() <= 5 && name.bytes().all(|b| b.is_ascii_alphabetic());
        // CET in July, IST, CST: what they stand for depends on who says it.
        if short && name.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(TargetTimeError::Ambiguous {
                text: self.text.to_owned(),
                why: format!("the abbreviation {name} does not name one offset"),
                readings: vec![
                    "an offset such as +01:00".to_owned(),
                    "a zone such as Europe/Berlin".to_owned(),
                ],
            });
        }
        let tz = jiff::tz::db().get(name).map_err(|_| unknown())?;
        Ok(Zone { tz, fixed: None })
    }

    pub(super) fn resolve(&self, at: DateTime, zone: Option<Zone>) -> Result<TargetTime, TargetTimeError> {
        let assumed = zone.is_none();
        let zone = zone.unwrap_or_else(|| Zone { tz: self.here.now.time_zone().clone(), fixed: None });
        let out_of_range = || self.not("it is out of range");
        let ambiguous = zone.tz.to_ambiguous_zoned(at);
        let name = || match zone.tz.iana_name() {
            Some(name) => name.to_owned(),
            None => "that zone".to_owned(),
        };
        let at_offset = |offset: Offset| -> String { format!("{}{}", civil_text(at), offset_text(offset)) };
        let zoned = match (ambiguous.offset(), zone.fixed) {
            // An offset beside a zone's name settles which; it must be one of the zone's at that time.
            (found, Some(fixed)) => {
                let fits = match found {
                    AmbiguousOffset::Unambiguous { offset } => offset == fixed,
                    AmbiguousOffset::Fold { before, after } => fixed == before || fixed == after,
                    AmbiguousOffset::Gap { .. } => false,
                };
                if !fits {
                    return Err(self.not(format!(
                        "{} is not the offset of {} then",
                        offset_text(fixed),
                        name()
                    )));
                }
                TimeZone::fixed(fixed).to_zoned(at).map_err(|_| out_of_range())?
            }
            (AmbiguousOffset::Unambiguous { .. }, None) => {
                ambiguous.unambiguous().map_err(|_| out_of_range())?
            }
            (AmbiguousOffset::Fold { before, after }, None) => {
                return Err(TargetTimeError::Ambiguous {
                    text: self.text.to_owned(),
                    why: format!("the clock in {} was put back and showed it twice", name()),
                    readings: vec![
                        format!("{} (the first time)", at_offset(before)),
                        format!("{} (an hour on, the second time)", at_offset(after)),
                    ],
                });
            }
            (AmbiguousOffset::Gap { before, after }, None) => {
                let shown = |offset: Offset| -> Option<String> {
                    let zoned = TimeZone::fixed(offset).to_zoned(at).ok()?.with_time_zone(zone.tz.clone());
                    Some(with_offset(&zoned))
                };
                return Err(TargetTimeError::Skipped {
                    text: self.text.to_owned(),
                    zone: name(),
                    readings: [shown(after), shown(before)].into_iter().flatten().collect(),
                });
            }
        };
        let micros = zoned.timestamp().as_microsecond();
        Ok(TargetTime {
            at: Timestamp::from_unix_micros(micros),
            assumed_zone: assumed.then(|| self.here.zone_name()),
        })
    }
}

#[derive(Clone)]
pub(super) struct Zone {
    pub(super) tz: TimeZone,
    /// The offset that was written, alone or beside a name.
    fixed: Option<Offset>,
}

impl Zone {
    pub(super) fn utc() -> Self {
        Self { tz: TimeZone::UTC, fixed: None }
    }
}

/// `+01`, `+0130`, `+01:30`, at most 15:59 as PostgreSQL has it.
fn offset_of(text: &str) -> Option<Offset> {
    let (sign, rest) = text.split_at_checked(1)?;
    let sign = if sign == "-" { -1 } else { 1 };
    let digits: String = match rest.len() {
        2 | 4 => rest.to_owned(),
        5 if rest.as_bytes().get(2) == Some(&b':') => rest.split(':').collect(),
        _ => return None,
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits.get(0..2)?.parse().ok()?;
    let minutes: i32 = digits.get(2..4).map_or(Ok(0), str::parse).ok()?;
    if hours > 15 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

pub(super) fn offset_text(offset: Offset) -> String {
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    if minutes == 0 { format!("{sign}{hours:02}") } else { format!("{sign}{hours:02}:{minutes:02}") }
}
