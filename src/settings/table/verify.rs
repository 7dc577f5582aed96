//! Options of `verify`.

use super::{Kind, OptionSpec, Topic};

const fn option(name: &'static str, kind: Kind, short: &'static str, long: &'static str) -> OptionSpec {
    OptionSpec::new(Topic::Verify, name, kind, short, long).on(&["verify"])
}

pub(super) const OPTIONS: &[OptionSpec] = &[option(
    "wal",
    Kind::Text,
    "only these WAL segments: FIRST or FIRST..LAST",
    "Names of segments of one timeline, such as 000000010000000A000000FF. Unfinished copies, tails and parts \
         that lie beside them are read, too. Without it and without --set everything is verified.",
)
.unset("all WAL")
.per_run()];
