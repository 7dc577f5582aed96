use super::*;
use crate::units::SystemIdentifier;
use proptest::prelude::*;

fn read(file: &[u8], piece: usize) -> Result<(ManifestSummary, Vec<ManifestEntry>), ManifestError> {
    let mut reader = ManifestReader::new();
    let mut entries = Vec::new();
    for piece in file.chunks(piece.max(1)) {
        reader.feed(piece, &mut |entry| entries.push(entry))?;
    }
    reader.finish().map(|summary| (summary, entries))
}

fn write_back(summary: &ManifestSummary, entries: &[ManifestEntry]) -> Vec<u8> {
    let system = summary.system_identifier.unwrap_or(SystemIdentifier::new(1));
    let mut writer = ManifestWriter::new(Vec::new(), summary.version, system).unwrap();
    let mut ranges = Vec::new();
    for entry in entries {
        match entry {
            ManifestEntry::File(file) => writer.file(file).unwrap(),
            ManifestEntry::WalRange(range) => ranges.push(*range),
        }
    }
    writer.finish(&ranges).unwrap()
}

fn fixture(major: u16) -> Vec<u8> {
    let path = format!("{}/fixtures/postgres/{major}/backup_manifest.zst", env!("CARGO_MANIFEST_DIR"));
    zstd::bulk::decompress(&std::fs::read(path).unwrap(), 4 << 20).unwrap()
}

#[test]
fn the_servers_own_are_read_in_any_pieces_and_written_back_byte_for_byte() {
    for major in 15..=18 {
        let file = fixture(major);
        let (summary, entries) = read(&file, file.len()).unwrap();
        assert_eq!(summary.version, ManifestVersion::of_major(PgMajor::new(major)));
        assert_eq!(summary.system_identifier.is_some(), major >= 17);
        assert!(summary.files > 900 && entries.len() as u64 > summary.files);
        for piece in [1, 7, 4096] {
            assert_eq!(read(&file, piece).unwrap(), (summary.clone(), entries.clone()));
        }
        let ours = write_back(&summary, &entries);
        assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(file).unwrap(), "{major}");
        let label =
            std::fs::read(format!("{}/fixtures/postgres/{major}/backup_label", env!("CARGO_MANIFEST_DIR")))
                .unwrap();
        let listed = entries.iter().find_map(|e| match e {
            ManifestEntry::File(file) if file.path == b"backup_label" => Some(file),
            _ => None,
        });
        let listed = listed.unwrap();
        assert_eq!(listed.size, label.len() as u64);
        assert_eq!(listed.checksum, Some(ManifestChecksum::crc32c(crc32c::crc32c(&label))));
    }
}

#[test]
fn any_cut_and_any_changed_byte_is_refused() {
    let file = write_back(
        &ManifestSummary {
            version: ManifestVersion::Two,
            system_identifier: Some(SystemIdentifier::new(7)),
            files: 0,
            checksum: [0; 32],
        },
        &[ManifestEntry::File(ManifestFile {
            path: b"base/5/1259".to_vec(),
            size: 8192,
            modified: Some(Timestamp::from_unix_seconds(1_795_227_660)),
            checksum: Some(ManifestChecksum::crc32c(0xDEAD_BEEF)),
        })],
    );
    assert!(read(&file, 10).is_ok());
    for at in 0..file.len() {
        assert!(read(&file[..at], 64).is_err(), "cut at {at}");
        let mut other = file.clone();
        other[at] ^= 1;
        assert!(read(&other, 64).is_err(), "byte {at}");
    }
}

#[test]
fn odd_manifests_are_refused_with_their_line() {
    let refused = |text: &str| read(text.as_bytes(), 9).unwrap_err();
    assert_eq!(
        refused("{ \"PostgreSQL-Backup-Manifest-Version\": 3,\n"),
        ManifestError::UnknownVersion("3".to_owned())
    );
    let head = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n";
    for bad in [
        "{ \"Path\": \"a\", \"Path\": \"b\", \"Size\": 1 }\n",
        "{ \"Path\": \"a\" }\n",
        "{ \"Path\": \"a\", \"Size\": \"1\" }\n",
        "{ \"Path\": \"a\", \"Size\": -1 }\n",
        "{ \"Path\": \"a\", \"Size\": 99999999999999999999 }\n",
        "{ \"Encoded-Path\": \"6g\", \"Size\": 1 }\n",
        "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00\" }\n",
        "{ \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"00000000\" }\n",
        "{ \"Path\": \"a\", \"Size\": 1, \"Colour\": \"red\" }\n",
        "[\n",
        "{ \"Path\": \"\\ud800\", \"Size\": 1 }\n",
    ] {
        let error = refused(&format!("{head}{bad}"));
        assert!(matches!(error, ManifestError::Syntax { line: 3, .. }), "{bad}: {error:?}");
    }
    let long = format!("{head}{}", " ".repeat(LONGEST_LINE + 1));
    assert_eq!(refused(&long), ManifestError::LineTooLong { line: 3 });
}

fn any_file() -> impl Strategy<Value = ManifestFile> {
    let path = prop_oneof![
        "\\PC{1,30}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 1..30),
        "[\\x00-\\x1f\"\\\\/]{1,10}".prop_map(String::into_bytes)
    ];
    let checksum = prop_oneof![
        Just(None),
        any::<u32>().prop_map(|c| Some(ManifestChecksum::crc32c(c))),
        any::<[u8; 32]>().prop_map(|d| Some(ManifestChecksum::sha256(d))),
    ];
    (path, any::<u64>(), 0i64..253_402_300_799, checksum).prop_map(|(path, size, seconds, checksum)| {
        ManifestFile { path, size, modified: Some(Timestamp::from_unix_seconds(seconds)), checksum }
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        files in prop::collection::vec(any_file(), 0..6),
        ranges in prop::collection::vec((1u32.., any::<u64>(), any::<u64>()), 0..3),
        piece in 1usize..90,
        two: bool,
    ) {
        let mut entries: Vec<_> = files.into_iter().map(ManifestEntry::File).collect();
        let count = entries.len() as u64;
        entries.extend(ranges.into_iter().map(|(timeline, a, b)| ManifestEntry::WalRange(WalRange {
            timeline: TimelineId::new(timeline).unwrap(),
            start: Lsn::new(a.min(b)),
            end: Lsn::new(a.max(b)),
        })));
        let summary = ManifestSummary {
            version: if two { ManifestVersion::Two } else { ManifestVersion::One },
            system_identifier: two.then_some(SystemIdentifier::new(u64::MAX)),
            files: count,
            checksum: [0; 32],
        };
        let (found, read_back) = read(&write_back(&summary, &entries), piece).unwrap();
        prop_assert_eq!(ManifestSummary { checksum: [0; 32], ..found }, summary);
        prop_assert_eq!(read_back, entries);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text in "[{}\\[\\]:,\"\\\\a-z0-9 \\n]{0,80}", piece in 1usize..9) {
        let _ = read(&bytes, piece);
        let _ = read(text.as_bytes(), piece);
        let head = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"Files\": [\n";
        let _ = read(format!("{head}{text}\n").as_bytes(), piece);
    }
}
