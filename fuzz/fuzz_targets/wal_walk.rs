//! The walk over a segment, in pieces whose length the input chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::postgres::wal::stream::Unseen;
use walden::postgres::wal::walk::SegmentWalk;

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, rest)) = bytes.split_first() else { return };
    let mut walk = SegmentWalk::new(None);
    for piece in rest.chunks(64 * usize::from(*piece) + 1) {
        if walk.feed(piece, &mut Unseen).is_err() {
            return;
        }
    }
    let _ = walk.finish();
});
