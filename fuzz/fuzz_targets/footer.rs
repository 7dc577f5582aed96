//! Footers: what decodes encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::repo::frame::Footer;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(footer) = Footer::decode(bytes) {
        assert_eq!(Footer::decode(&footer.encode()).unwrap(), footer);
    }
});
