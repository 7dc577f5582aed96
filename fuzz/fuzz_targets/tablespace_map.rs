//! `tablespace_map`: what is accepted is written back to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::postgres::tablespace_map::{parse, write};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(map) = parse(bytes) {
        assert_eq!(parse(&write(&map)), Ok(map));
    }
});
