//! `pg_control`: any bytes, also sealed with a right checksum so that the fields are reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::postgres::control_file::{CONTROL_FILE_SIZE, ControlFile};

fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    let _ = ControlFile::parse(&file);
    file.resize(CONTROL_FILE_SIZE, 0);
    for (version, end) in [(1300u32, 288), (1700, 288), (1800, 292), (1905, 308)] {
        file[8..12].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&file[..end]);
        file[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        let _ = ControlFile::parse(&file);
    }
});
