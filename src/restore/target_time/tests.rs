use super::*;
use proptest::prelude::*;

/// 2026-11-21 09:41:16 in Berlin.
fn here() -> Here {
    Here::new(Timestamp::from_unix_seconds(1_795_250_476), jiff::tz::db().get("Europe/Berlin").unwrap())
}

fn read(text: &str) -> Result<String, TargetTimeError> {
    parse(text, &here()).map(|found| utc_text(found.at))
}

#[test]
fn dates_and_times_are_read() {
    for (text, utc) in [
        ("2026-11-21 09:14:59+01", "2026-11-21 08:14:59"),
        ("2026-11-21T09:14:59Z", "2026-11-21 09:14:59"),
        ("2026-11-21t09:14:59.25z", "2026-11-21 09:14:59.25"),
        ("2026-11-21 09:14", "2026-11-21 08:14:00"),
        ("2026-11-21   09:14:59.123456 -03:30", "2026-11-21 12:44:59.123456"),
        ("2026-11-21 09:14:59 +0530", "2026-11-21 03:44:59"),
        ("2026-11-21 09:14:59 America/New_York", "2026-11-21 14:14:59"),
        ("2026-11-21 09:14:59 UTC", "2026-11-21 09:14:59"),
        ("2026-11-21T09:14:59+01:00[Europe/Berlin]", "2026-11-21 08:14:59"),
        ("2026-11-21T09:14:59[Asia/Tokyo]", "2026-11-21 00:14:59"),
        ("20261121T022100Z", "2026-11-21 02:21:00"),
        ("  2026-07-01 12:00:00  ", "2026-07-01 10:00:00"),
        // Said with its offset, an hour that came twice is clear.
        ("2026-10-25 02:30:00+02", "2026-10-25 00:30:00"),
        ("2026-10-25 02:30:00+01", "2026-10-25 01:30:00"),
        ("2026-10-25T02:30:00+01:00[Europe/Berlin]", "2026-10-25 01:30:00"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(utc), "{text}");
    }
}

#[test]
fn phrases_are_read() {
    for (text, utc) in [
        ("now", "2026-11-21 08:41:16"),
        ("10 minutes ago", "2026-11-21 08:31:16"),
        ("10min ago", "2026-11-21 08:31:16"),
        ("an hour ago", "2026-11-21 07:41:16"),
        ("1 hour 30 minutes ago", "2026-11-21 07:11:16"),
        ("1 hour and 30 seconds ago", "2026-11-21 07:40:46"),
        ("2 days ago", "2026-11-19 08:41:16"),
        ("yesterday 14:00", "2026-11-20 13:00:00"),
        ("Yesterday at 14:00:05", "2026-11-20 13:00:05"),
        ("today 09:30 UTC", "2026-11-21 09:30:00"),
        ("yesterday 23:30 Asia/Tokyo", "2026-11-20 14:30:00"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(utc), "{text}");
    }
}

#[test]
fn a_zone_that_nobody_wrote_is_named() {
    let found = |text| parse(text, &here()).unwrap().assumed_zone;
    assert_eq!(found("2026-11-21 09:14:59").as_deref(), Some("Europe/Berlin"));
    assert_eq!(found("yesterday 14:00").as_deref(), Some("Europe/Berlin"));
    assert_eq!(found("2026-11-21 09:14:59Z"), None);
    assert_eq!(found("10 minutes ago"), None);
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_with_both() {
    for (text, readings) in [
        ("02/03/2026 09:14:59", vec!["2026-03-02 09:14:59 (day first)", "2026-02-03 09:14:59 (month first)"]),
        ("2.3.2026 09:14", vec!["2026-03-02 09:14 (day first)", "2026-02-03 09:14 (month first)"]),
        (
            "2026-10-25 02:30:00",
            vec![
                "2026-10-25 02:30:00+02 (the first time)",
                "2026-10-25 02:30:00+01 (an hour on, the second time)",
            ],
        ),
        ("2026-03-29 02:30:00", vec!["2026-03-29 01:30:00+01", "2026-03-29 03:30:00+02"]),
        ("2026-11-21", vec!["2026-11-21 00:00:00 (its beginning)", "2026-11-22 00:00:00 (its end)"]),
        ("yesterday", vec!["2026-11-20 00:00:00 (its beginning)", "2026-11-21 00:00:00 (its end)"]),
        ("14:00", vec!["today 14:00", "yesterday 14:00"]),
        (
            "30 days ago",
            vec![
                "2026-10-22 09:41:16+02 (the same time of day)",
                "2026-10-22 10:41:16+02 (whole days of 24 hours)",
            ],
        ),
        ("5 m ago", vec!["5 minutes ago"]),
        ("2026-07-01 12:00 CET", vec!["an offset such as +01:00", "a zone such as Europe/Berlin"]),
    ] {
        let error = parse(text, &here()).expect_err(text);
        assert_eq!(error.readings(), readings, "{text}: {error}");
        // What is offered must be readable itself.
        for reading in readings.iter().filter(|reading| reading.starts_with("20")) {
            let offered = reading.split(" (").next().unwrap();
            if let Err(error) = parse(offered, &here()) {
                assert!(
                    matches!(error, TargetTimeError::Ambiguous { .. }) && !text.contains("ago"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn what_is_no_moment_is_refused_with_the_reason() {
    for (text, says) in [
        ("", "is not a moment walden can read"),
        ("tomorrow 10:00", "is not a moment walden can read"),
        ("last friday", "is not a moment walden can read"),
        ("yesterdayish", "is not a moment walden can read"),
        ("infinity", "is not a moment walden can read"),
        ("2026-13-21 09:14:59", "there is no day 2026-13-21"),
        ("2026-02-30 09:14:59", "there is no day 2026-02-30"),
        ("2026-11-21 24:00:00", "there is no time 24:00:00"),
        ("2026-11-21 09:14:60", "there is no time 09:14:60"),
        ("2026-11-21 9:14:59", "a time is written 09:14 or 09:14:59"),
        ("2026-11-21 09:14:59.1234567", "one to six digits"),
        ("2026-11-21_09:14:59", "a blank or a T"),
        ("2026-11-21 09:14:59 Europe/Berln", "\"Europe/Berln\" is not a time zone"),
        ("2026-11-21 09:14:59+25", "\"+25\" is not a time zone"),
        ("2026-11-21 02:14:59 pm", "24 hours"),
        ("2026-11-21T09:14:59+03:00[Europe/Berlin]", "+03 is not the offset of Europe/Berlin then"),
        ("25/12/2026 10:00", "write it as 2026-12-25 10:00"),
        ("03/03/2026 10:00", "write it as 2026-03-03 10:00"),
        ("2026/11/21 10:00", "write the date as 2026-11-21"),
        ("02/03/26 10:00", "four digits"),
        ("10 fortnights ago", "\"fortnights\" is no unit of time here"),
        ("1 hour 2 hours ago", "it counts hours twice"),
        ("99999999999 weeks ago", "too far"),
        ("-5 minutes ago", "is not a moment walden can read"),
        (" ago", "is not a moment walden can read"),
    ] {
        let error = parse(text, &here()).expect_err(text);
        assert!(error.to_string().contains(says), "{text:?}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,60}", clock in "[0-9:. T+Za-z/\\[\\]-]{0,30}") {
        let _ = parse(&text, &here());
        let _ = parse(&clock, &here());
        let _ = parse(&format!("2026-11-21 {clock}"), &here());
        let _ = parse(&format!("{clock} ago"), &here());
        let _ = parse(&format!("yesterday {clock}"), &here());
    }

    #[test]
    fn what_is_printed_is_read_back(micros in 0_i64..4_000_000_000_000_000) {
        let at = Timestamp::from_unix_micros(micros);
        let found = parse(&format!("{}Z", utc_text(at)), &here()).unwrap();
        prop_assert_eq!(found.at, at);
        let found = parse(&format!("{}+00", utc_text(at).replace(' ', "T")), &here()).unwrap();
        prop_assert_eq!(found.at, at);
    }
}
