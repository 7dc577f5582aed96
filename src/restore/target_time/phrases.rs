//! Moments told from now: `10 minutes ago`, `yesterday 14:00`.

use super::{Reader, TargetTime, TargetTimeError, with_offset, zone_name};
use jiff::Span;

impl Reader<'_> {
    /// `10 minutes`, `an hour`, `1 hour 30 min`, without the `ago`.
    pub(super) fn ago(&self, phrase: &str) -> Result<TargetTime, TargetTimeError> {
        let mut span = Span::new();
        let mut words = spaced(phrase).into_iter().peekable();
        let mut seen: Vec<&str> = Vec::new();
        while let Some(word) = words.next() {
            let count: i64 = match word.as_str() {
                "a" | "an" | "one" => 1,
                "and" if !seen.is_empty() && words.peek().is_some() => continue,
                digits => digits.parse().ok().filter(|n| *n >= 0).ok_or_else(|| self.not_at_all())?,
            };
            let unit = words.next().ok_or_else(|| self.not("a number without a unit"))?;
            let (name, with) = match unit.as_str() {
                "s" | "sec" | "secs" | "second" | "seconds" => ("second", Span::new().try_seconds(count)),
                "min" | "mins" | "minute" | "minutes" => ("minute", Span::new().try_minutes(count)),
                "h" | "hr" | "hrs" | "hour" | "hours" => ("hour", Span::new().try_hours(count)),
                "d" | "day" | "days" => ("day", Span::new().try_days(count)),
                "w" | "week" | "weeks" => ("week", Span::new().try_weeks(count)),
                "m" => {
                    return Err(TargetTimeError::Ambiguous {
                        text: self.text.to_owned(),
                        why: "m may be minutes or months".to_owned(),
                        readings: vec![format!("{count} minutes ago")],
                    });
                }
                other => return Err(self.not(format!("\"{other}\" is no unit of time here"))),
            };
            if seen.contains(&name) {
                return Err(self.not(format!("it counts {name}s twice")));
            }
            seen.push(name);
            let with = with.map_err(|_| self.not("it goes back too far"))?;
            span = add(span, with).ok_or_else(|| self.not("it goes back too far"))?;
        }
        if seen.is_empty() {
            return Err(self.not_at_all());
        }
        let now = &self.here.now;
        let too_far = |_| self.not("it goes back too far");
        let by_calendar = now.checked_sub(span).map_err(too_far)?;
        // A day is not always 24 hours: where it matters, ask.
        let hours = span.get_hours().checked_add(0).unwrap_or_default();
        let of_days = i64::from(span.get_days()) + 7 * i64::from(span.get_weeks());
        let by_hours = Span::new()
            .try_hours(i64::from(hours) + 24 * of_days)
            .and_then(|s| s.try_minutes(span.get_minutes()))
            .and_then(|s| s.try_seconds(span.get_seconds()))
            .and_then(|s| now.checked_sub(s))
            .map_err(too_far)?;
        if by_calendar.timestamp() != by_hours.timestamp() {
            return Err(TargetTimeError::Ambiguous {
                text: self.text.to_owned(),
                why: format!(
                    "the clock was changed in {} since then, so a day was not 24 hours",
                    zone_name(now)
                ),
                readings: vec![
                    format!("{} (the same time of day)", with_offset(&by_calendar)),
                    format!("{} (whole days of 24 hours)", with_offset(&by_hours)),
                ],
            });
        }
        Ok(self.relative(by_calendar.timestamp()))
    }

    /// `today` or `yesterday`, then a time of day, then perhaps a zone.
    pub(super) fn day_word(&self, word: &str, back: i64, rest: &str) -> Result<TargetTime, TargetTimeError> {
        if !rest.is_empty() && !rest.starts_with([' ', ',', 't']) {
            return Err(self.not_at_all());
        }
        let from = word.len();
        let rest = self.text.get(from..).unwrap_or("").trim_start_matches([' ', ',']);
        let rest = strip_at(rest);
        if rest.is_empty() {
            let today = self.here.now.date();
            let day = today.checked_sub(Span::new().days(back)).map_err(|_| self.not_at_all())?;
            return Err(self.whole_day(day));
        }
        let (time, zone) = self.time_and_zone(rest)?;
        let zone_given = self.zone(zone)?;
        // Which day it is depends on whose clock is meant: the zone that is written, else the operator's.
        let now = match &zone_given {
            Some(zone) => self.here.now.timestamp().to_zoned(zone.tz.clone()),
            None => self.here.now.clone(),
        };
        let day = now.date().checked_sub(Span::new().days(back)).map_err(|_| self.not_at_all())?;
        self.resolve(day.to_datetime(time), zone_given)
    }
}

fn add(a: Span, b: Span) -> Option<Span> {
    // Every unit is given once, so one of each pair is zero.
    Span::new()
        .try_weeks(a.get_weeks().checked_add(b.get_weeks())?)
        .and_then(|s| s.try_days(a.get_days() + b.get_days()))
        .and_then(|s| s.try_hours(a.get_hours() + b.get_hours()))
        .and_then(|s| s.try_minutes(a.get_minutes() + b.get_minutes()))
        .and_then(|s| s.try_seconds(a.get_seconds() + b.get_seconds()))
        .ok()
}

/// Words, with `90min` taken apart into `90 min`.
fn spaced(phrase: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in phrase.split([' ', ',']).filter(|word| !word.is_empty()) {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = word.split_at(digits);
        words.extend([number, unit].into_iter().filter(|part| !part.is_empty()).map(str::to_owned));
    }
    words
}

fn strip_at(text: &str) -> &str {
    let text = text.strip_prefix(['T', 't']).unwrap_or(text);
    text.strip_prefix("at ").map_or(text, str::trim_start)
}
