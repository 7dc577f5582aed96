//! The manifest reader, in pieces whose length the input chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::postgres::backup_manifest::ManifestReader;

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, rest)) = bytes.split_first() else { return };
    let mut reader = ManifestReader::new();
    for piece in rest.chunks(usize::from(*piece) + 1) {
        if reader.feed(piece, &mut |_| {}).is_err() {
            return;
        }
    }
    let _ = reader.finish();
});
