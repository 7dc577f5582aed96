//! Entries of a map: what decodes encodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::repo::map::Entry;
use walden::repo::varint::Take;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Entry::decode(&mut Take::new(bytes)) {
        let mut again = Vec::new();
        entry.encode(&mut again);
        assert_eq!(Entry::decode(&mut Take::new(&again)).unwrap(), entry);
    }
});
