//! The server's stream of archives, taken apart and fed to the pipeline.

use super::copy::{FileHead, Framer, SourceEnd};
use super::error::BackupError;
use super::observer::Observer;
use super::room::{Fit, Room};
use crate::postgres::client::{
    BackupEnd, BackupOptions, BackupStart, Event, Notice, PageFailures, ReplicationClient, Tablespace,
};
use crate::postgres::relation_file::FileKind;
use crate::postgres::tar::{Demultiplexer, Entry, EntryKind as TarKind, TarError, TarEvent};
use crate::repo::map::{EntryKind, LONGEST_PATH};
use crate::units::ByteCount;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files of the base archive that are also looked at here.
const LABEL: &[u8] = b"backup_label";
const CONTROL_FILE: &[u8] = b"global/pg_control";
/// The most bytes of such a file.
const LOOKED_AT: u64 = 1 << 20;

/// How often a stream that waits looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the stream said beside the files' contents.
#[derive(Debug)]
pub struct Streamed {
    /// The start.
    pub start: BackupStart,
    /// The end, confirmed by the server.
    pub end: BackupEnd,
    /// The label's bytes.
    pub label: Vec<u8>,
    /// `global/pg_control`.
    pub control: Vec<u8>,
    /// What the server warned of while it sent: files that it passed over, for one.
    pub warnings: Vec<String>,
    /// Pages that the server itself found damaged.
    pub page_failures: Option<Box<PageFailures>>,
    /// Configuration files that are not in the data directory: they lie elsewhere, and no base backup has them.
    pub configuration_outside: Vec<String>,
}

/// What is known of the cluster before the stream begins.
#[derive(Clone, Copy, Debug)]
pub struct ClusterLayout {
    /// Pages of a relation's file.
    pub blocks_per_file: u32,
    /// Whether pages carry checksums that are to be checked.
    pub check_pages: bool,
}

/// Files that a data directory has unless they are kept elsewhere.
const CONFIGURATION: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

#[derive(Default)]
struct LookedAt {
    /// Which of [`CONFIGURATION`] came.
    configuration: [bool; 3],
    label: Option<Vec<u8>>,
    control: Option<Vec<u8>>,
}

impl LookedAt {
    fn of(&mut self, path: &[u8]) -> Option<&mut Vec<u8>> {
        let slot = match path {
            LABEL => &mut self.label,
            CONTROL_FILE => &mut self.control,
            _ => return None,
        };
        Some(slot.insert(Vec::new()))
    }
}

/// Asks for the backup and feeds all of it to `framer`, no faster than `pace` bytes a second, if there is `room` for it.
///
/// # Errors
/// The server's or the archive's trouble, an interrupt, or that a later stage stopped.
pub async fn stream(
    client: &mut ReplicationClient,
    options: &BackupOptions,
    layout: ClusterLayout,
    pace: Option<ByteCount>,
    room: &Room,
    framer: &mut Framer,
    observer: &dyn Observer,
) -> Result<Streamed, SourceEnd<BackupError>> {
    let failed = |error: BackupError| SourceEnd::Failed(error);
    observer.awaiting_checkpoint();
    let mut backup = client.base_backup(options).await.map_err(|error| failed(error.into()))?;
    let mut start = None;
    let mut looked_at = LookedAt::default();
    let mut archive: Option<(Demultiplexer, Archive)> = None;
    let mut bytes = 0_u64;
    let mut begun = Instant::now();
    let (end, page_failures) = loop {
        if observer.interrupted() {
            return Err(failed(BackupError::Interrupted));
        }
        // The server may be silent for minutes, in its checkpoint: an interrupt must not wait for it.
        let Ok(event) = tokio::time::timeout(LOOK_EVERY, backup.next()).await else { continue };
        match event.map_err(|error| failed(error.into()))? {
            Event::Started(started) => {
                if let Some(total) = started.total_size() {
                    match room.judge(total) {
                        Fit::Enough => {}
                        Fit::Doubtful { free, expected } => observer.room_is_short(free, expected),
                        Fit::TooLittle { free, needed } => {
                            return Err(failed(BackupError::NoSpace { free, needed, total }));
                        }
                    }
                }
                for tablespace in &started.tablespaces {
                    // In the data directory itself: allow_in_place_tablespaces.
                    let in_place = format!("pg_tblspc/{}", tablespace.oid);
                    let place = &tablespace.location;
                    let can_be_told =
                        place.to_str().is_some_and(|text| place.is_absolute() || text == in_place);
                    if !can_be_told {
                        return Err(failed(BackupError::Tablespace { oid: tablespace.oid }));
                    }
                }
                if layout.check_pages {
                    framer.check_pages(started.lsn);
                }
                observer.copying(started.lsn, started.total_size());
                start = Some(started);
                begun = Instant::now();
            }
            Event::Archive(begun) => {
                close(archive.take())?;
                let prefix = match begun.name.strip_suffix(".tar") {
                    Some("base") => Vec::new(),
                    Some(oid) if oid.parse::<u32>().is_ok() => format!("pg_tblspc/{oid}/").into_bytes(),
                    _ => return Err(failed(BackupError::StrangeArchive(begun.name))),
                };
                archive = Some((Demultiplexer::new(), Archive { prefix, layout, copy_of: None }));
            }
            Event::Data(mut data) => {
                bytes += data.len() as u64;
                let Some((tar, current)) = &mut archive else {
                    return Err(failed(TarError::Data { at: 0 }.into()));
                };
                while let Some(event) = tar.next(&mut data).map_err(|error| failed(error.into()))? {
                    current.take(event, framer, &mut looked_at).await?;
                }
                observer.copied(ByteCount::new(bytes));
                if let Some(ahead) = pace.and_then(|rate| ahead_of(rate, bytes, begun.elapsed())) {
                    tokio::time::sleep(ahead).await;
                }
            }
            Event::Progress(_) => {}
            Event::ManifestBegin | Event::ManifestData(_) => {
                return Err(failed(BackupError::StrangeArchive("backup_manifest".to_owned())));
            }
            Event::End(end) => break (end, None),
            Event::EndedWithPageFailures(mut failures) => {
                let tablespaces = start.as_ref().map_or(&[][..], |start| &start.tablespaces);
                for page in &mut failures.pages {
                    page.file = below_data_directory(&page.file, tablespaces);
                }
                break (failures.end.clone(), Some(failures));
            }
        }
    };
    close(archive)?;
    let warnings = worth_telling(&backup.take_notices());
    let missing = |what: &str| failed(BackupError::FileMissing(what.to_owned()));
    Ok(Streamed {
        start: start.ok_or_else(|| missing("its start"))?,
        end,
        label: looked_at.label.ok_or_else(|| missing("backup_label"))?,
        control: looked_at.control.ok_or_else(|| missing("global/pg_control"))?,
        warnings,
        page_failures,
        configuration_outside: CONFIGURATION
            .iter()
            .zip(looked_at.configuration)
            .filter(|(_, came)| !came)
            .map(|(name, _)| (*name).to_owned())
            .collect(),
    })
}

/// A file as the archives name it: servers name one of a tablespace by where that lies, and so a page would be two.
fn below_data_directory(file: &str, tablespaces: &[Tablespace]) -> String {
    let file = file.strip_prefix("./").unwrap_or(file);
    let below = |tablespace: &Tablespace| {
        let rest = Path::new(file).strip_prefix(&tablespace.location).ok()?;
        Some(format!("pg_tblspc/{}/{}", tablespace.oid, rest.display()))
    };
    tablespaces.iter().find_map(below).unwrap_or_else(|| file.to_owned())
}

/// The server's warnings, without those that are told otherwise (pages) or mean nothing (its own sockets, which
/// no backup holds).
fn worth_telling(notices: &[Notice]) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for notice in notices.iter().filter(|notice| notice.is_warning()) {
        let text = &notice.message;
        let elsewhere = text.contains("checksum verification fail") || text.contains("/.s.PGSQL.");
        // The server walks the directory twice: the first time to add up its size.
        let line = format!("the server said while it sent the files: {text}");
        if !elsewhere && !told.contains(&line) {
            told.push(line);
        }
    }
    told
}

/// How long to wait so that `bytes` were not taken faster than `rate` bytes a second; short waits are saved up.
fn ahead_of(rate: ByteCount, bytes: u64, elapsed: Duration) -> Option<Duration> {
    let due = Duration::try_from_secs_f64(bytes as f64 / rate.as_u64().max(1) as f64).ok()?;
    due.checked_sub(elapsed).filter(|ahead| *ahead >= Duration::from_millis(10))
}

fn close(archive: Option<(Demultiplexer, Archive)>) -> Result<(), SourceEnd<BackupError>> {
    match archive {
        None => Ok(()),
        Some((tar, _)) => tar.finish().map_err(|error| SourceEnd::Failed(error.into())),
    }
}

struct Archive {
    /// What stands before its paths: nothing, or the tablespace's place in the data directory.
    prefix: Vec<u8>,
    layout: ClusterLayout,
    /// The path of the file that is being looked at.
    copy_of: Option<Vec<u8>>,
}

impl Archive {
    async fn take(
        &mut self,
        event: TarEvent<'_>,
        framer: &mut Framer,
        looked_at: &mut LookedAt,
    ) -> Result<(), SourceEnd<BackupError>> {
        match event {
            TarEvent::Entry(entry) => self.begin(entry, framer, looked_at).await,
            TarEvent::Data(data) => {
                if let Some(copy) = self.copy_of.as_ref().and_then(|path| match path.as_slice() {
                    LABEL => looked_at.label.as_mut(),
                    _ => looked_at.control.as_mut(),
                }) {
                    copy.extend_from_slice(data);
                }
                Ok(framer.data(data).await?)
            }
            TarEvent::EntryEnd | TarEvent::ArchiveEnd => Ok(()),
        }
    }

    async fn begin(
        &mut self,
        entry: Entry,
        framer: &mut Framer,
        looked_at: &mut LookedAt,
    ) -> Result<(), SourceEnd<BackupError>> {
        let path = [self.prefix.as_slice(), entry.path.as_slice()].concat();
        if path.len() > LONGEST_PATH {
            return Err(SourceEnd::Failed(BackupError::StrangeArchive(
                String::from_utf8_lossy(&path[..80]).into_owned(),
            )));
        }
        self.copy_of = None;
        if let Some(at) = CONFIGURATION.iter().position(|name| name.as_bytes() == path) {
            looked_at.configuration[at] = true;
        }
        let mode = entry.mode & 0o7777;
        match entry.kind {
            TarKind::File => {
                let relation =
                    std::str::from_utf8(&path).ok().and_then(|path| FileKind::of_path(path).relation());
                let first_block = relation
                    .filter(|_| self.layout.check_pages)
                    .map(|relation| relation.segment.wrapping_mul(self.layout.blocks_per_file));
                if entry.size <= LOOKED_AT && looked_at.of(&path).is_some() {
                    self.copy_of = Some(path.clone());
                }
                let mtime = relation.is_none().then_some(entry.modified);
                framer.begin(FileHead { path, mode, mtime, size: entry.size, first_block }).await;
            }
            TarKind::Directory => {
                let head = FileHead { path, mode, mtime: None, size: 0, first_block: None };
                framer.bare(head, EntryKind::Directory).await;
            }
            TarKind::Symlink { target } => {
                let head = FileHead { path, mode, mtime: None, size: 0, first_block: None };
                framer.bare(head, EntryKind::Symlink(target)).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_tablespace_has_one_name_wherever_it_lies() {
        let at = |oid, location: &str| Tablespace { oid, location: location.into(), size: None };
        let tablespaces = [at(16_390, "/srv/space"), at(16_391, "pg_tblspc/16391")];
        for (named, expected) in [
            ("./base/5/1259", "base/5/1259"),
            ("/srv/space/PG_15_202209061/5/7", "pg_tblspc/16390/PG_15_202209061/5/7"),
            ("/srv/space2/PG_15_202209061/5/7", "/srv/space2/PG_15_202209061/5/7"),
            ("./pg_tblspc/16390/PG_15_202209061/5/7", "pg_tblspc/16390/PG_15_202209061/5/7"),
            ("./pg_tblspc/16391/PG_15_202209061/5/7", "pg_tblspc/16391/PG_15_202209061/5/7"),
        ] {
            assert_eq!(below_data_directory(named, &tablespaces), expected);
        }
    }

    #[test]
    fn what_the_server_passed_over_is_told_and_its_sockets_are_not() {
        let says = |severity: &str, message: &str| Notice {
            severity: severity.to_owned(),
            message: message.to_owned(),
            ..Notice::default()
        };
        let notices = [
            says("NOTICE", "all required WAL segments have been archived"),
            says("WARNING", "skipping special file \"./.s.PGSQL.5432\""),
            says("WARNING", "skipping special file \"./base/16384\""),
            says("WARNING", "skipping special file \"./base/16384\""),
            says("WARNING", "checksum verification failed in file \"./base/5/1259\", block 3"),
        ];
        assert_eq!(
            worth_telling(&notices),
            ["the server said while it sent the files: skipping special file \"./base/16384\""]
        );
    }
}
