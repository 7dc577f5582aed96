//! The list of packs in a record: what decodes encodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::repo::record::Uses;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(uses) = Uses::decode(bytes) {
        assert_eq!(Uses::decode(&uses.encode()).unwrap(), uses);
    }
});
