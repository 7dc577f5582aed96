//! Writing a manifest as the server writes it (`InitializeBackupManifest`, `AddFileToBackupManifest`,
//! `AddWALInfoToBackupManifest`, `SendBackupManifest` of backup/backup_manifest.c).

use super::{ManifestFile, ManifestVersion, WalRange, hex};
use crate::units::SystemIdentifier;
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// A manifest on its way into `sink`. Dropped before [`ManifestWriter::finish`], it leaves a part that no
/// reader accepts.
pub struct ManifestWriter<W> {
    sink: W,
    hash: Sha256,
    line: String,
    any_file: bool,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins a manifest. The system identifier is written from version 2 on.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn new(sink: W, version: ManifestVersion, system: SystemIdentifier) -> io::Result<Self> {
        let mut writer = Self { sink, hash: Sha256::new(), line: String::new(), any_file: false };
        writer.line = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {},\n", version.as_u8());
        if version >= ManifestVersion::Two {
            writer.line.push_str(&format!("\"System-Identifier\": {system},\n"));
        }
        writer.line.push_str("\"Files\": [");
        writer.flush_line()?;
        Ok(writer)
    }

    /// Adds a file. Any order will do; a path must not come twice.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn file(&mut self, file: &ManifestFile) -> io::Result<()> {
        self.line.push_str(if self.any_file { ",\n" } else { "\n" });
        self.any_file = true;
        match std::str::from_utf8(&file.path) {
            Ok(path) => {
                self.line.push_str("{ \"Path\": ");
                push_quoted(&mut self.line, path);
            }
            Err(_) => {
                self.line.push_str(&format!("{{ \"Encoded-Path\": \"{}\"", hex(&file.path)));
            }
        }
        // Whole seconds, like the server's `%Y-%m-%d %H:%M:%S %Z`.
        let stamp = file.modified.unwrap_or(crate::units::Timestamp::from_unix_seconds(0)).compact();
        let part = |range| stamp.get(range).unwrap_or("00");
        self.line.push_str(&format!(
            ", \"Size\": {}, \"Last-Modified\": \"{}-{}-{} {}:{}:{} GMT\"",
            file.size,
            part(0..4),
            part(4..6),
            part(6..8),
            part(9..11),
            part(11..13),
            part(13..15)
        ));
        if let Some(checksum) = &file.checksum {
            self.line.push_str(&format!(
                ", \"Checksum-Algorithm\": \"{}\", \"Checksum\": \"{}\"",
                checksum.algorithm.as_str(),
                hex(&checksum.digest)
            ));
        }
        self.line.push_str(" }");
        self.flush_line()
    }

    /// Ends the manifest: the WAL it needs, oldest first, and the checksum over all. Returns the sink,
    /// not flushed.
    ///
    /// # Errors
    /// When the sink refuses.
    pub fn finish(mut self, ranges: &[WalRange]) -> io::Result<W> {
        self.line.push_str("\n],\n\"WAL-Ranges\": [\n");
        for (index, range) in ranges.iter().enumerate() {
            if index > 0 {
                self.line.push_str(",\n");
            }
            self.line.push_str(&format!(
                "{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                range.timeline, range.start, range.end
            ));
        }
        self.line.push_str("\n],\n");
        self.flush_line()?;
        let digest = self.hash.finalize();
        writeln!(self.sink, "\"Manifest-Checksum\": \"{}\"}}", hex(digest.as_slice()))?;
        Ok(self.sink)
    }

    fn flush_line(&mut self) -> io::Result<()> {
        self.hash.update(self.line.as_bytes());
        self.sink.write_all(self.line.as_bytes())?;
        self.line.clear();
        Ok(())
    }
}

/// A JSON string (`escape_json`, utils/adt/json.c).
fn push_quoted(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '\u{8}' => line.push_str("\\b"),
            '\u{c}' => line.push_str("\\f"),
            c if c < ' ' => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}
