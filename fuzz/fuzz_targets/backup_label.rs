//! `backup_label`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::postgres::backup_label::BackupLabel;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(label) = BackupLabel::parse(bytes) {
        assert_eq!(label.raw(), bytes);
    }
});
