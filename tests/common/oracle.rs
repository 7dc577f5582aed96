//! Second opinions: programs that are not walden say what is true.

use std::path::Path;
use std::process::{Command, Stdio};

use super::process::finish;

/// What `tests/hazards/segment-complete.py`, which agrees with `pg_waldump`, makes of a WAL segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentVerdict {
    /// Its records reach its end, or it was left by a switch.
    Complete,
    /// They do not, or one of them is damaged.
    Incomplete,
    /// It is no WAL segment.
    Unreadable,
}

/// The verdict on each file, in order.
pub fn segment_verdicts(files: &[impl AsRef<Path>]) -> Vec<SegmentVerdict> {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hazards/segment-complete.py"));
    command.args(files.iter().map(AsRef::as_ref)).stdin(Stdio::null());
    let out = finish(command);
    let verdicts: Vec<_> = out
        .stdout
        .lines()
        .map(|line| match line.split(' ').next() {
            Some("complete") => SegmentVerdict::Complete,
            Some("incomplete") => SegmentVerdict::Incomplete,
            Some("unreadable") => SegmentVerdict::Unreadable,
            _ => panic!("an answer nobody knows: {line}"),
        })
        .collect();
    assert_eq!(verdicts.len(), files.len(), "{out}");
    verdicts
}
