//! Timeline histories: what is accepted is written back to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::postgres::history::TimelineHistory;
use walden::units::TimelineId;

fuzz_target!(|bytes: &[u8]| {
    let Some(timeline) = TimelineId::new(9) else { return };
    if let Ok(history) = TimelineHistory::parse(timeline, bytes) {
        assert_eq!(TimelineHistory::parse(timeline, &history.to_bytes()), Ok(history));
    }
});
