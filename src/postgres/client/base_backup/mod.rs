//! `BASE_BACKUP` (`src/backend/backup/basebackup_copy.c`): a stream of events that ends only when the server has
//! said its last word.
//!
//! ```text
//! Started (Archive Data*)+ [ManifestBegin ManifestData*] (End | EndedWithPageFailures)
//! ```
//! with `Progress` anywhere between `Started` and the end. What PostgreSQL 14 says otherwise is in [`before_15`].

mod before_15;
mod options;

pub use options::{BackupOptions, Checkpoint, Manifest, ManifestChecksums, MaxRate};

use super::connection::{ReplicationClient, State};
use super::error::{ClientError, Doing, Notice, classify};
use super::message::{self, Broken, Reader};
use crate::units::{ByteCount, Lsn, TimelineId};
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The most tablespaces and archives that one backup may have.
const MOST_TABLESPACES: usize = 1 << 16;
/// A tablespace other than `pg_default` and `pg_global`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID, the name of the link in `pg_tblspc` and of its archive, `OID.tar`.
    pub oid: u32,
    /// The directory on the server. Bytes as the server has them.
    pub location: PathBuf,
    /// Its size at the start, rounded to KiB; with `progress` only.
    pub size: Option<ByteCount>,
}

/// The server has made its checkpoint: the backup has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupStart {
    /// The redo position: WAL is needed from here.
    pub lsn: Lsn,
    /// The timeline at the start.
    pub timeline: TimelineId,
    /// The size of the data directory without tablespaces; with `progress` only.
    pub base_size: Option<ByteCount>,
    /// In the order in which their archives come; `base.tar` comes last.
    pub tablespaces: Vec<Tablespace>,
}

impl BackupStart {
    /// The size of everything; with `progress` only.
    #[must_use]
    pub fn total_size(&self) -> Option<ByteCount> {
        self.tablespaces
            .iter()
            .try_fold(self.base_size?.as_u64(), |sum, one| sum.checked_add(one.size?.as_u64()))
            .map(ByteCount::new)
    }
}

/// An archive begins, and with it ends the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveStart {
    /// `base.tar` or `OID.tar`.
    pub name: String,
    /// The tablespace's directory; `None` for `base.tar`.
    pub location: Option<PathBuf>,
}

/// The backup is complete on the server's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupEnd {
    /// WAL is needed up to here.
    pub lsn: Lsn,
    /// The timeline at the end; another than at the start after a promotion.
    pub timeline: TimelineId,
}

/// A page that failed the server's verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFailure {
    /// The file as the server names it, relative to its data directory.
    pub file: String,
    /// The page's number within this file.
    pub block: u32,
}

/// Everything was sent, and pages of it are damaged (XX001). The server names at most five a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFailures {
    /// Where the backup ended all the same.
    pub end: BackupEnd,
    /// The pages that the server named in English; see `warnings` for everything.
    pub pages: Vec<PageFailure>,
    /// All warnings of the server since the command was sent.
    pub warnings: Vec<Notice>,
    /// The error itself.
    pub error: Notice,
}

/// What comes next in a backup. Data lies in the receive buffer and is valid until the next call.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Always first.
    Started(BackupStart),
    /// The archive that the following data belongs to.
    Archive(ArchiveStart),
    /// Bytes of the current archive, 32 KiB or less as a rule, cut anywhere.
    Data(&'a [u8]),
    /// The server's count of bytes sent so far, over all archives.
    Progress(ByteCount),
    /// The last archive has ended; the manifest follows.
    ManifestBegin,
    /// Bytes of the manifest.
    ManifestData(&'a [u8]),
    /// The server has confirmed the backup and is ready for another command.
    End(BackupEnd),
    /// The same, but it found damaged pages.
    EndedWithPageFailures(Box<PageFailures>),
}

/// The two ways in which servers speak of base backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// 14 and earlier.
    Before15,
    Since15,
}

/// Where in the answer we are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// RowDescription, DataRow, CommandComplete: the start position.
    Start,
    /// The same with a row for each tablespace.
    Tablespaces {
        lsn: Lsn,
        timeline: TimelineId,
        base: Option<Option<ByteCount>>,
        others: Vec<Tablespace>,
    },
    /// CopyOutResponse.
    CopyBegin,
    /// No archive yet.
    BeforeArchives,
    InArchive,
    InManifest,
    /// CopyDone came: RowDescription, DataRow, CommandComplete with the stop position.
    Stop,
    /// The stop position is known; CommandComplete of the whole command, or the error.
    Stopped(BackupEnd),
    /// Only ReadyForQuery is missing.
    Confirmed(BackupEnd),
    Done,
}

/// An event without the borrow, as the loop in [`BaseBackup::next`] needs it.
enum Found {
    Started(BackupStart),
    Archive(ArchiveStart),
    Data(Range<usize>),
    /// What a tar archive ends with, and servers before 15 leave out.
    Trailer,
    Progress(ByteCount),
    ManifestBegin,
    ManifestData(Range<usize>),
    End(BackupEnd),
}

/// A running `BASE_BACKUP`.
///
/// Dropped before its end, it leaves the connection unusable; dropping that cancels the backup.
pub struct BaseBackup<'c> {
    client: &'c mut ReplicationClient,
    phase: Phase,
    archives: usize,
    /// What is still to come, where the server does not name it as it comes.
    unnamed: Option<before_15::ToCome>,
    /// An ErrorResponse came; ReadyForQuery is still to follow.
    error: Option<Notice>,
}

impl fmt::Debug for BaseBackup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BaseBackup").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl ReplicationClient {
    /// Asks for a base backup and returns at once; the first [`BaseBackup::next`] waits for the checkpoint.
    ///
    /// # Errors
    /// When the command cannot be sent. The server's refusals come from `next`.
    pub async fn base_backup(&mut self, options: &BackupOptions) -> Result<BaseBackup<'_>, ClientError> {
        let dialect = self.dialect();
        let command = options.command(dialect)?;
        self.begin_tap();
        self.send_query(&command, &Doing::AwaitingCheckpoint).await?;
        let unnamed = match dialect {
            Dialect::Before15 => Some(before_15::ToCome::new(options.manifest)),
            Dialect::Since15 => None,
        };
        Ok(BaseBackup { client: self, phase: Phase::Start, archives: 0, unnamed, error: None })
    }

    /// By the version that every server reports when a session begins.
    fn dialect(&self) -> Dialect {
        let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok();
        match self.parameter("server_version").and_then(digits) {
            Some(major) if major < 15 => Dialect::Before15,
            _ => Dialect::Since15,
        }
    }
}

impl BaseBackup<'_> {
    /// The next event. Cancel-safe: an event is returned or will be returned by the next call.
    ///
    /// Waits without limit for [`Event::Started`], at most [`super::Limits::silence`] for the others.
    /// [`Event::End`] or [`Event::EndedWithPageFailures`] is the last; asking on is an error.
    ///
    /// # Errors
    /// After any error the backup is lost. A connection that closes early is always one.
    pub async fn next(&mut self) -> Result<Event<'_>, ClientError> {
        let found = self.find().await;
        if found.is_err() {
            self.phase = Phase::Done;
        }
        Ok(match found? {
            Found::Started(start) => Event::Started(start),
            Found::Archive(archive) => Event::Archive(archive),
            Found::Data(range) => Event::Data(self.client.wire.slice(range)),
            Found::Trailer => Event::Data(before_15::TRAILER),
            Found::Progress(bytes) => Event::Progress(bytes),
            Found::ManifestBegin => Event::ManifestBegin,
            Found::ManifestData(range) => Event::ManifestData(self.client.wire.slice(range)),
            Found::End(end) => match self.error.take() {
                None => Event::End(end),
                Some(error) => {
                    let warnings = self.client.end_tap();
                    let pages = warnings.iter().filter_map(page_failure).collect();
                    Event::EndedWithPageFailures(Box::new(PageFailures { end, pages, warnings, error }))
                }
            },
        })
    }

    /// Takes the server's notices so far, as [`ReplicationClient::take_notices`] does. Warnings stay known to
    /// [`PageFailures`].
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.client.take_notices()
    }

    /// What can cancel this backup from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> Option<super::CancelHandle> {
        self.client.cancel_handle()
    }

    fn doing(&self) -> Doing {
        match self.phase {
            Phase::Start => Doing::AwaitingCheckpoint,
            Phase::InManifest => Doing::ReceivingManifest,
            Phase::Stop | Phase::Stopped(_) | Phase::Confirmed(_) | Phase::Done => Doing::AwaitingBackupEnd,
            _ => Doing::ReceivingBackup,
        }
    }

    async fn find(&mut self) -> Result<Found, ClientError> {
        if self.phase == Phase::Done {
            return Err(ClientError::Unusable);
        }
        loop {
            let doing = self.doing();
            let limit = (doing != Doing::AwaitingCheckpoint).then_some(self.client.limits.silence);
            let frame = match self.client.receive(&doing, limit).await {
                Ok(frame) => frame,
                // What the server said last explains more than that it then went away.
                Err(lost) => return Err(self.error.take().map_or(lost, |error| classify(doing, error))),
            };
            match frame.tag {
                b'E' => {
                    let error = self.client.error_of(&frame, &doing)?;
                    if self.client.state == State::Ended {
                        return Err(classify(doing, error));
                    }
                    self.error = Some(error);
                    continue;
                }
                b'Z' => {
                    let phase = std::mem::replace(&mut self.phase, Phase::Done);
                    self.client.state = State::Idle;
                    return match (phase, &self.error) {
                        (Phase::Confirmed(end), None) => Ok(Found::End(end)),
                        // Damaged pages are counted while everything is sent, and reported at the very end.
                        (Phase::Stopped(end), Some(error)) if error.sqlstate == "XX001" => {
                            Ok(Found::End(end))
                        }
                        (_, Some(_)) => Err(classify(doing, self.error.take().unwrap_or_default())),
                        (_, None) => {
                            Err(self.client.protocol(&doing, "it was ready before the backup was complete"))
                        }
                    };
                }
                _ if self.error.is_some() => continue,
                _ => {}
            }
            let found = match self.step(frame.tag, frame.body) {
                Ok(found) => found,
                Err(what) => return Err(self.client.protocol(&doing, what)),
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// One frame moves the phase on and may make an event.
    fn step(&mut self, tag: u8, range: Range<usize>) -> Result<Option<Found>, String> {
        let body = self.client.wire.slice(range.clone());
        match (tag, &mut self.phase) {
            (b'T', Phase::Start | Phase::Tablespaces { .. } | Phase::Stop) => Ok(None),
            (b'D', Phase::Start) => {
                let (lsn, timeline) = position(body)?;
                self.phase = Phase::Tablespaces { lsn, timeline, base: None, others: Vec::new() };
                Ok(None)
            }
            (b'C', Phase::Tablespaces { base: None, others, .. }) if others.is_empty() => Ok(None),
            (b'D', Phase::Tablespaces { base, others, .. }) => {
                match tablespace(body)? {
                    Row::Base(size) if base.is_none() => *base = Some(size),
                    Row::Base(_) => return Err("the data directory is announced twice".to_owned()),
                    Row::Other(_) if others.len() >= MOST_TABLESPACES => {
                        return Err("too many tablespaces".to_owned());
                    }
                    Row::Other(tablespace) => others.push(tablespace),
                }
                Ok(None)
            }
            (b'C', Phase::Tablespaces { lsn, timeline, base, others }) => {
                let base_size = base.ok_or("the data directory is not announced")?;
                let start = BackupStart {
                    lsn: *lsn,
                    timeline: *timeline,
                    base_size,
                    tablespaces: std::mem::take(others),
                };
                if let Some(unnamed) = &mut self.unnamed {
                    unnamed.announce(&start);
                }
                self.phase = Phase::CopyBegin;
                Ok(Some(Found::Started(start)))
            }
            (b'H' | b'd' | b'c', Phase::CopyBegin | Phase::InArchive | Phase::InManifest)
                if self.unnamed.is_some() =>
            {
                self.step_before_15(tag, range)
            }
            (b'H', Phase::CopyBegin) => {
                self.phase = Phase::BeforeArchives;
                Ok(None)
            }
            (b'd', Phase::BeforeArchives | Phase::InArchive | Phase::InManifest) => self.copy_data(range),
            (b'c', Phase::InArchive | Phase::InManifest) => {
                self.phase = Phase::Stop;
                Ok(None)
            }
            (b'D', Phase::Stop) => {
                let (lsn, timeline) = position(body)?;
                self.phase = Phase::Stopped(BackupEnd { lsn, timeline });
                Ok(None)
            }
            (b'C', Phase::Stopped(end)) => {
                // Two of them: of the row with the stop position, and of the whole command.
                if body.strip_suffix(b"\0") == Some(b"BASE_BACKUP") {
                    self.phase = Phase::Confirmed(end.clone());
                }
                Ok(None)
            }
            _ => Err(format!("an unexpected message of type \"{}\"", tag.escape_ascii())),
        }
    }

    fn copy_data(&mut self, range: Range<usize>) -> Result<Option<Found>, String> {
        let body = self.client.wire.slice(range.clone());
        let rest = range.start.saturating_add(1)..range.end;
        let mut reader = Reader(body);
        let found = match (reader.byte()?, &self.phase) {
            (b'd', Phase::InArchive) => Found::Data(rest),
            (b'd', Phase::InManifest) => Found::ManifestData(rest),
            (b'p', _) => {
                let bytes = reader.u64()?;
                reader.end()?;
                Found::Progress(ByteCount::new(bytes))
            }
            (b'n', Phase::BeforeArchives | Phase::InArchive) if self.archives <= MOST_TABLESPACES => {
                let name = reader.string()?;
                let location = reader.string()?;
                reader.end()?;
                let name =
                    std::str::from_utf8(name).map_err(|_| "an archive name that is not UTF-8")?.to_owned();
                let location = (!location.is_empty()).then(|| path(location));
                self.archives += 1;
                self.phase = Phase::InArchive;
                Found::Archive(ArchiveStart { name, location })
            }
            (b'm', Phase::InArchive) => {
                reader.end()?;
                self.phase = Phase::InManifest;
                Found::ManifestBegin
            }
            (kind, _) => return Err(format!("an unexpected part of type \"{}\"", kind.escape_ascii())),
        };
        Ok(Some(found))
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

fn ascii<T: std::str::FromStr>(value: Option<&Option<&[u8]>>) -> Option<T> {
    std::str::from_utf8((*value?)?).ok()?.parse().ok()
}

/// A row of position and timeline.
fn position(body: &[u8]) -> Result<(Lsn, TimelineId), Broken> {
    let row = message::row(body)?;
    ascii(row.first()).zip(ascii(row.get(1))).ok_or("a row that is no WAL position")
}

enum Row {
    /// The data directory, with its size.
    Base(Option<ByteCount>),
    Other(Tablespace),
}

/// A row of OID, location and size in KiB.
fn tablespace(body: &[u8]) -> Result<Row, Broken> {
    const BROKEN: Broken = "a row that is no tablespace";
    let row = message::row(body)?;
    let size = match row.get(2) {
        None => return Err(BROKEN),
        Some(None) => None,
        Some(_) => {
            let kib: u64 = ascii(row.get(2)).ok_or(BROKEN)?;
            Some(ByteCount::new(kib.checked_mul(1024).ok_or(BROKEN)?))
        }
    };
    match (row[0], row[1]) {
        (None, None) => Ok(Row::Base(size)),
        (Some(_), Some(location)) => Ok(Row::Other(Tablespace {
            oid: ascii(row.first()).ok_or(BROKEN)?,
            location: path(location),
            size,
        })),
        _ => Err(BROKEN),
    }
}

/// The page that a warning names (basebackup.c, `sendFile`), where it is in English.
fn page_failure(warning: &Notice) -> Option<PageFailure> {
    let rest = warning.message.strip_prefix("checksum verification failed in file \"")?;
    let (file, rest) = rest.rsplit_once("\", block ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let file = file.strip_prefix("./").unwrap_or(file).to_owned();
    Some(PageFailure { file, block: digits.parse().ok()? })
}
