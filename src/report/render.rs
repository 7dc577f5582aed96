//! Moments, lengths of time and tables as people read them.

use crate::units::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;
use std::time::Duration;

fn zoned(moment: Timestamp, zone: &TimeZone) -> Option<jiff::Zoned> {
    jiff::Timestamp::from_microsecond(moment.as_unix_micros()).ok().map(|t| t.to_zoned(zone.clone()))
}

/// `2026-11-21 02:07:31 UTC`, rounded down to seconds.
#[must_use]
pub fn utc(moment: Timestamp) -> String {
    zoned(moment, &TimeZone::UTC)
        .map_or_else(|| "(beyond the calendar)".into(), |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `2026-11-21T02:07:31.000123Z`, for JSON and logs: exact, and sorts as text.
#[must_use]
pub fn iso(moment: Timestamp) -> String {
    zoned(moment, &TimeZone::UTC)
        .map_or_else(|| "(beyond the calendar)".into(), |t| t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// [`utc`], and where the clock on the wall shows something else, that too:
/// `2026-11-21 08:14:59 UTC (09:14:59 in Europe/Berlin)`.
#[must_use]
pub fn utc_and_local(moment: Timestamp, zone: &TimeZone) -> String {
    let mut text = utc(moment);
    let (Some(there), Some(here)) = (zoned(moment, &TimeZone::UTC), zoned(moment, zone)) else { return text };
    if here.offset() != there.offset() {
        let format = if here.date() == there.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        let place = zone.iana_name().map_or_else(|| here.strftime("%:z").to_string(), str::to_owned);
        let _ = write!(text, " ({} in {place})", here.strftime(format));
    }
    text
}

/// The zone of this machine's clock.
#[must_use]
pub fn local_zone() -> TimeZone {
    TimeZone::system()
}

/// The two largest units that say something: `14 d 7 h`, `3 min 4 s`, `350 ms`.
#[must_use]
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0 if length.subsec_millis() > 0 => format!("{} ms", length.subsec_millis()),
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// The time between two moments; nothing when `until` is not later.
#[must_use]
pub fn between(since: Timestamp, until: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(until.micros_since(since)).unwrap_or(0))
}

/// How long ago, in one unit: `9 s ago`, `31 h ago`, `7 d ago`; `in the future` where clocks disagree.
#[must_use]
pub fn ago(moment: Timestamp, now: Timestamp) -> String {
    let Ok(micros) = u64::try_from(now.micros_since(moment)) else { return "in the future".into() };
    match micros / 1_000_000 {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

/// 84112 as `84,112`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// On which side the cells of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Names and words.
    Left,
    /// Numbers.
    Right,
}

/// Lines of aligned columns, two blanks apart, without blanks at the end.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new(columns: &[Align]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are dropped, missing ones are empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).take(self.columns.len()).collect());
    }

    /// Whether no row was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whole lines, each ended by a newline.
    #[must_use]
    pub fn render(&self) -> String {
        let cell = |row: &Vec<String>, at: usize| row.get(at).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| self.rows.iter().map(|row| cell(row, at).chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, (align, width)) in self.columns.iter().zip(&widths).enumerate() {
                let cell = cell(row, at);
                let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
                let gap = if at == 0 || *width == 0 { "" } else { "  " };
                match align {
                    Align::Left => line.extend([gap, &cell, &blanks]),
                    Align::Right => line.extend([gap, &blanks, &cell]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Breaks `text` at blanks into lines of at most `width` characters, each after `indent` blanks. Line breaks
/// in the text stay. A word longer than a line stands alone.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut wrapped = String::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let longer = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && longer + indent > width {
                wrapped.extend([margin.as_str(), &line, "\n"]);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        wrapped.extend([if line.is_empty() { "" } else { margin.as_str() }, &line, "\n"]);
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Timestamp = Timestamp::from_unix_micros(1_795_227_660_000_123);

    #[test]
    fn moments_are_utc_and_local_where_that_differs() {
        assert_eq!(utc(MOMENT), "2026-11-21 02:21:00 UTC");
        assert_eq!(iso(MOMENT), "2026-11-21T02:21:00.000123Z");
        assert_eq!(utc_and_local(MOMENT, &TimeZone::UTC), "2026-11-21 02:21:00 UTC");
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(utc_and_local(MOMENT, &berlin), "2026-11-21 02:21:00 UTC (03:21:00 in Europe/Berlin)");
        let there = TimeZone::get("America/New_York").unwrap();
        assert_eq!(
            utc_and_local(MOMENT, &there),
            "2026-11-21 02:21:00 UTC (2026-11-20 21:21:00 in America/New_York)"
        );
        assert_eq!(utc(Timestamp::from_unix_micros(i64::MAX)), "(beyond the calendar)");
    }

    #[test]
    fn lengths_of_time_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (184, "3 min 4 s"),
            (3600, "1 h"),
            (86_399, "23 h 59 min"),
            (1_234_800, "14 d 7 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration(Duration::from_millis(350)), "350 ms");
        assert_eq!(ago(MOMENT, Timestamp::from_unix_micros(MOMENT.as_unix_micros() + 9_500_000)), "9 s ago");
        assert_eq!(ago(MOMENT, Timestamp::from_unix_micros(0)), "in the future");
        assert_eq!(
            [count(0), count(999), count(84_112), count(1_000_000)],
            ["0", "999", "84,112", "1,000,000"]
        );
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Left]);
        table.row(["Backup", "stored", "checked"]);
        table.row(["größer", "3.9 GB", ""]);
        table.row(["a"]);
        assert_eq!(table.render(), "Backup  stored  checked\ngrößer  3.9 GB\na\n");
    }

    #[test]
    fn text_is_broken_at_blanks() {
        assert_eq!(wrap("one two three", 9, 2), "  one two\n  three\n");
        assert_eq!(wrap("unbreakable x\n\ny", 4, 0), "unbreakable\nx\n\ny\n");
    }
}
