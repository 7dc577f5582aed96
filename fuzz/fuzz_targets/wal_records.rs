//! The parts and the meaning of a record, in each dialect.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::postgres::wal::page::Dialect;
use walden::postgres::wal::records::{decode, parts};
use walden::postgres::wal::stream::{RECORD_HEADER, Record, RecordHeader};
use walden::units::{Lsn, TimelineId};

fuzz_target!(|bytes: &[u8]| {
    let [which, info, resource_manager, body @ ..] = bytes else { return };
    let magics = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118, 0xD122];
    let Some(dialect) = Dialect::of_magic(magics[usize::from(*which) % magics.len()]) else { return };
    let header = RecordHeader {
        total_length: (body.len() + RECORD_HEADER) as u32,
        xid: 7,
        previous: Lsn::INVALID,
        info: *info,
        resource_manager: resource_manager % 3,
        crc: 0,
    };
    let _ = parts(dialect, &header, body, |_| {});
    let lsn = Lsn::new(0x0100_0028);
    let timeline = TimelineId::FIRST;
    let _ = decode(dialect, &Record { lsn, end: lsn, replay_end: lsn, header, body, timeline });
});
