//! One backup from beginning to end, as a list of steps.

use super::copy::{self, CopyError, CopySettings, Framer};
use super::error::BackupError;
use super::observer::Observer;
use super::proof::{ArchivedWal, End, prove_same_server, stop_segment};
use super::replicate::{Fetch, Wanted};
use super::room::Room;
use super::source::{ClusterLayout, Streamed, stream};
use super::standby::Origin;
use super::{damage, replicate, standby, wait};
use crate::env::Env;
use crate::postgres::backup_label::BackupLabel;
use crate::postgres::client::{
    BackupOptions, Checkpoint, ClientError, ConnectionParameters, Limits, Manifest, MaxRate,
    ReplicationClient, SlotName,
};
use crate::postgres::control_file::ControlFile;
use crate::postgres::history::TimelineHistory;
use crate::repo::catalog::Draft;
use crate::repo::frame::Compression;
use crate::repo::map::MapWriter;
use crate::repo::record::{
    ClusterState, LineageStep, PageChecksums, Record, Sizes, Started, Tablespace, Uses,
};
use crate::repo::{Cluster, RepoError, Repository, layout};
use crate::units::{
    BackupId, BackupKind, ByteCount, Lsn, PgMajor, SegmentName, Stanza, TimelineId, Timestamp,
};
use crate::wal::ClusterWal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// What to take a backup of, and how.
#[derive(Debug)]
pub struct BackupRequest<'a> {
    /// Where it is written to.
    pub repository: &'a Repository,
    /// Its stanza.
    pub stanza: &'a Stanza,
    /// The server.
    pub server: &'a ConnectionParameters,
    /// How long it may be silent.
    pub limits: Limits,
    /// Whether the checkpoint is made at once.
    pub start_fast: bool,
    /// Bytes a second at most. The server keeps to it where its range allows, else it is kept here.
    pub max_rate: Option<ByteCount>,
    /// Worker threads.
    pub workers: usize,
    /// How frames are compressed.
    pub compression: Compression,
    /// Stored bytes of a pack.
    pub pack_size: u64,
    /// Where entries are sorted when they are too many for memory.
    pub spool: PathBuf,
    /// Whether every frame is decoded again before it is stored.
    pub verify_writes: bool,
    /// Whether the server archives its WAL; else it is fetched over the connection.
    pub archive_check: bool,
    /// How long to wait for WAL without any arriving.
    pub archive_timeout: Duration,
    /// What a person writes on it.
    pub annotations: BTreeMap<String, String>,
    /// Whether damaged pages fail the backup instead of being named in it.
    pub fail_on_page_errors: bool,
}

/// A backup that exists.
#[derive(Debug)]
pub struct Taken {
    /// Its record.
    pub record: Record,
    /// What the server warned of while it sent: files that it passed over, for one.
    pub server_warnings: Vec<String>,
    /// Backups that were interrupted before, or are being taken elsewhere, and are open in the catalog.
    pub interrupted_before: Vec<BackupId>,
    /// Where its WAL came from, when it was taken from a standby.
    pub origin: Option<Origin>,
    /// The archived segments that it needs.
    pub archived: BTreeSet<SegmentName>,
    /// Why it could not be proved that the archive is this server's, of a version that is newer than this program.
    pub unproved: Option<String>,
}

/// What [`take`] comes to.
struct Done {
    record: Record,
    uses: Uses,
    server_warnings: Vec<String>,
    origin: Option<Origin>,
    archived: BTreeSet<SegmentName>,
    unproved: Option<String>,
}

/// Takes a full backup.
///
/// After `Ok` it is listed and restores alone. After `Err` nothing that any command shows as a backup came
/// of it, except for [`BackupError::Commit`] with the repository's trouble, where `info` tells.
///
/// # Errors
/// See [`BackupError`].
pub fn run(
    request: &BackupRequest<'_>,
    env: &dyn Env,
    observer: &dyn Observer,
) -> Result<Taken, BackupError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(BackupError::Codec)?;
    let (repository, stanza) = (request.repository, request.stanza);

    let mut client = runtime.block_on(ReplicationClient::connect(request.server))?;
    client.set_limits(request.limits);
    let mut server = runtime.block_on(examine(&mut client, request))?;
    let cluster = server.cluster;
    let slot = runtime.block_on(hold_wal(&mut client, &mut server, request, env))?;
    let catalog = repository.catalog(stanza)?;
    let seen = catalog.candidates().map(ToString::to_string).collect();
    let interrupted_before = catalog.open().cloned().collect();
    let id = new_id(env)?;
    let draft = repository.begin_backup(stanza, &started(&id, &server, env)?, env)?;

    let outcome = take(request, &runtime, &mut client, &server, slot.as_ref(), &draft, seen, env, observer);
    let done = match outcome {
        Ok(done) => done,
        Err(error) => {
            let error = runtime.block_on(explain(error, &mut client, &server));
            // Only a courtesy to whoever reads the catalog: an open draft is as invisible as an aborted one.
            let _ = draft.abort(&error.to_string(), env);
            // An interrupt must not leave a WAL sender behind; dropping cancels, this also waits for it.
            runtime.block_on(client.abandon(Duration::from_secs(2)));
            return Err(error);
        }
    };
    let Done { record, uses, server_warnings, origin, archived, unproved } = done;
    draft.commit(&record, &uses, env).map_err(BackupError::Commit)?;
    runtime.block_on(client.close());
    debug_assert_eq!(cluster.system, record.system_identifier);
    Ok(Taken { record, server_warnings, interrupted_before, origin, archived, unproved })
}

/// What was found out before the first byte.
struct Server {
    cluster: Cluster,
    version_num: u32,
    is_standby: bool,
    /// The position that the copy begins at is no earlier.
    floor: Lsn,
    checksums: bool,
    lineage: TimelineHistory,
}

/// Refuses whatever can be refused before the server is asked for anything that costs it.
async fn examine(client: &mut ReplicationClient, request: &BackupRequest<'_>) -> Result<Server, BackupError> {
    let version_num = client.server_version_num().await?;
    let major = PgMajor::from_version_num(version_num).unwrap_or(PgMajor::new(9));
    if major < PgMajor::OLDEST {
        return Err(BackupError::Version { server: major, stanza: None });
    }
    let identity = client.identify_system().await?;
    let (repository, stanza) = (request.repository, request.stanza);
    let Some(cluster) = repository.cluster(stanza, identity.system)? else {
        let held = repository.clusters(stanza)?.iter().map(|cluster| cluster.system).collect();
        return Err(BackupError::NotThisCluster { server: identity.system, stanza: held });
    };
    if cluster.major != major {
        return Err(BackupError::Version { server: major, stanza: Some(cluster.major) });
    }
    let is_standby = client.show("in_hot_standby").await? == "on";
    // Nothing on a standby tells whether its primary archives.
    if request.archive_check && !is_standby && !archives(client, version_num).await? {
        return Err(BackupError::ArchivingOff);
    }
    require_all_tablespaces(client, major).await?;
    let checksums = client.show("data_checksums").await? == "on";
    let lineage = lineage_of(client, identity.timeline).await?;
    // A primary makes the checkpoint that the copy begins with after this. A standby begins with its last restart
    // point, which may be old.
    let floor = if is_standby { Lsn::INVALID } else { identity.flushed };
    Ok(Server { cluster, version_num, is_standby, floor, checksums, lineage })
}

/// Whether the server is set up to hand on its WAL.
async fn archives(client: &mut ReplicationClient, version_num: u32) -> Result<bool, BackupError> {
    if client.show("archive_mode").await? == "off" {
        return Ok(false);
    }
    // Modules that archive came with 15.
    Ok(!client.show("archive_command").await?.is_empty()
        || (version_num >= 150_000 && !client.show("archive_library").await?.is_empty()))
}

async fn lineage_of(
    client: &mut ReplicationClient,
    timeline: TimelineId,
) -> Result<TimelineHistory, BackupError> {
    if timeline == TimelineId::FIRST {
        return Ok(TimelineHistory::root(timeline));
    }
    let file = client.timeline_history(timeline).await?;
    TimelineHistory::parse(timeline, &file.contents)
        .map_err(|error| BackupError::NotUnderstood { file: "timeline history", why: error.to_string() })
}

/// Makes a slot where WAL may have to be fetched over the connection. A standby's is reserved from its last
/// restart point on, which is where the copy will begin at the earliest.
async fn hold_wal(
    client: &mut ReplicationClient,
    server: &mut Server,
    request: &BackupRequest<'_>,
    env: &dyn Env,
) -> Result<Option<SlotName>, BackupError> {
    if request.archive_check && !server.is_standby {
        return Ok(None);
    }
    let slot = match replicate::hold_wal(client, env).await {
        Ok(slot) => slot,
        // As a rule nothing but the last segment is fetched, which no server removes.
        Err(BackupError::Client(ClientError::Server { .. })) if request.archive_check => return Ok(None),
        Err(error) => return Err(error),
    };
    // READ_REPLICATION_SLOT came with 15. Without a floor no WAL goes while this backup is open.
    if server.is_standby
        && server.version_num >= 150_000
        && let Some(position) = client.read_slot(&slot).await?
    {
        server.floor = position.restart;
    }
    Ok(Some(slot))
}

/// A standby that was promoted meanwhile fails the copy with the code for many other things.
async fn explain(error: BackupError, client: &mut ReplicationClient, server: &Server) -> BackupError {
    let refused = matches!(&error, BackupError::Client(ClientError::Server { .. }));
    if server.is_standby && refused && client.show("in_hot_standby").await.is_ok_and(|value| value == "off") {
        return BackupError::Promoted;
    }
    error
}

/// Before 16, base backups skip tablespaces that are directories in `pg_tblspc` without a word (`do_pg_backup_start`
/// of access/transam/xlog.c lists links only): the restored server would lack their tables.
async fn require_all_tablespaces(client: &mut ReplicationClient, major: PgMajor) -> Result<(), BackupError> {
    const LISTED_SINCE: PgMajor = PgMajor::new(16);
    const IN_PLACE: &str = "select oid::text from pg_catalog.pg_tablespace \
        where pg_catalog.pg_tablespace_location(oid) like 'pg\\_tblspc/%' limit 1";
    // A connection that takes no SQL cannot be asked; the setting is one for developers.
    if major >= LISTED_SINCE || !client.takes_sql() {
        return Ok(());
    }
    let rows = client.sql(IN_PLACE, "looking for tablespaces in the data directory").await?;
    match rows.first().and_then(|row| row.text(0).map(str::to_owned)) {
        None => Ok(()),
        Some(oid) => Err(BackupError::TablespaceNotSent { oid, server: major }),
    }
}

fn new_id(env: &dyn Env) -> Result<BackupId, BackupError> {
    let mut random = [0; 13];
    env.random(&mut random).map_err(RepoError::from)?;
    Ok(BackupId::new(env.now(), BackupKind::Full, random))
}

fn started(id: &BackupId, server: &Server, env: &dyn Env) -> Result<Started, BackupError> {
    let mut writer = [0; 16];
    env.random(&mut writer).map_err(RepoError::from)?;
    Ok(Started {
        backup_id: id.clone(),
        system_identifier: server.cluster.system,
        parents: Vec::new(),
        writer: layout::hex(&writer),
        wal_floor_lsn: server.floor,
        wal_floor_timeline: server.lineage.owner_of(server.floor),
        started_at_unix_us: env.now(),
        resume_of: None,
    })
}

#[allow(clippy::too_many_arguments, reason = "the steps of one backup, called once")]
fn take(
    request: &BackupRequest<'_>,
    runtime: &tokio::runtime::Runtime,
    client: &mut ReplicationClient,
    server: &Server,
    slot: Option<&SlotName>,
    draft: &Draft,
    seen: Vec<String>,
    env: &dyn Env,
    observer: &dyn Observer,
) -> Result<Done, BackupError> {
    let (repository, stanza, id) = (request.repository, request.stanza, draft.id());
    let started_at = env.now();

    let (streamed, copied) = copy_all(request, runtime, client, server, id, env, observer)?;
    let stopped_at = env.now();
    let (start, stop) = (streamed.start.lsn, streamed.end.lsn);
    let lineage = lineage_at_end(runtime, client, server, &streamed)?;
    let label_text = String::from_utf8_lossy(&streamed.label).into_owned();
    let label = BackupLabel::parse(&streamed.label)
        .map_err(|error| BackupError::NotUnderstood { file: "backup_label", why: error.to_string() })?;
    let control = ControlFile::parse(&streamed.control)
        .map_err(|error| BackupError::NotUnderstood { file: "pg_control", why: error.to_string() })?;
    if label.start != start || control.system_identifier != server.cluster.system {
        return Err(BackupError::NotUnderstood {
            file: "backup_label",
            why: "it names another start than the server did, or pg_control another cluster".to_owned(),
        });
    }
    let mut page_checksums = damage::found(server.checksums, &streamed, &copied, &control);
    runtime.block_on(damage::name_relations(client, &mut page_checksums.failures));
    if request.fail_on_page_errors && page_checksums.failure_count > 0 {
        let PageChecksums { failures, failure_count, .. } = page_checksums;
        return Err(BackupError::PageFailures { count: failure_count, failures });
    }

    let mut map = MapWriter::new(repository, stanza, id, env)?;
    for entry in copied.entries {
        map.push(&entry?)?;
    }
    let (map, map_bytes) = map.finish()?;

    let wal = ArchivedWal {
        cluster: ClusterWal { repo: repository, stanza, system: server.cluster.system },
        lineage: &lineage,
        size: server.cluster.segment_size,
    };
    let fetch = Fetch {
        wal,
        slot,
        spool: &request.spool,
        compression: request.compression,
        writer: id.as_str(),
        patience: request.archive_timeout,
        env,
        observer,
    };
    let mut wanted = wait::segments(&wal, start, stop)?;
    let (origin, end) = if server.is_standby {
        let origin = standby::complete(&fetch, runtime, client, request.archive_check, (start, stop))?;
        let end = End::OfStandby(origin.link);
        wanted.retain(|segment| !origin.taken.contains(segment));
        (Some(origin), end)
    } else {
        // The archive may have some of them.
        if slot.is_some() {
            let missing = wait::missing(wal.cluster, &wanted)?;
            let pieces: Option<Vec<Wanted>> = missing.iter().map(|segment| whole(*segment, &wal)).collect();
            runtime.block_on(fetch.run(client, &pieces.ok_or(BackupError::Bug)?))?;
        }
        wait::until_archived(&wal, wanted.clone(), request.archive_timeout, observer)?;
        (None, End::Record)
    };
    observer.proving();
    let unproved = match prove_same_server(&wal, &control, label.start, label.check_point, stop, end) {
        // Its WAL may be laid out in a way that is not known here: that is no sign of a clone.
        Err(BackupError::NotThisServersWal { at, why }) if server.cluster.major > PgMajor::NEWEST => {
            Some(format!("of the record at {at} this walden reads that {why}"))
        }
        proved => proved.map(|()| None)?,
    };
    let wal_proof = stop_segment(&wal, stop)?;

    let added = copied.stored_bytes + map_bytes.as_u64();
    let record = Record {
        backup_id: id.clone(),
        system_identifier: server.cluster.system,
        timeline: lineage.timeline(),
        start_lsn: start,
        stop_lsn: stop,
        checkpoint_lsn: label.check_point,
        started_at_unix_us: started_at,
        stopped_at_unix_us: stopped_at,
        from_standby: server.is_standby,
        backup_label: label_text,
        tablespaces: tablespaces(&streamed),
        lineage: steps(&lineage),
        wal_proof,
        cluster: ClusterState {
            server_version_num: server.version_num,
            control_version: control.control_version,
            catalog_version: control.catalog_version,
            data_checksum_version: control.data_checksum_version,
            page_size_bytes: control.page_size,
            wal_segment_size_bytes: control.wal_segment_size.bytes(),
            blocks_per_file: control.pages_per_relation_file,
        },
        sizes: Sizes {
            database_bytes: copied.database_bytes,
            stored_bytes: added,
            added_bytes: added,
            files: copied.files,
            packs: u32::try_from(copied.packs.len()).unwrap_or(u32::MAX),
        },
        map,
        page_checksums,
        configuration_outside: streamed.configuration_outside,
        annotations: request.annotations.clone(),
        seen,
        writer: draft.writer().to_owned(),
        walden_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let uses = Uses(vec![(id.clone(), copied.packs)]);
    Ok(Done { record, uses, server_warnings: streamed.warnings, origin, archived: wanted, unproved })
}

/// A segment to be fetched as it is.
fn whole(segment: SegmentName, wal: &ArchivedWal<'_>) -> Option<Wanted> {
    let until = segment.start(wal.size)?.forward(wal.size.bytes())?;
    Some(Wanted { segment, until, as_tails: false })
}

fn steps(lineage: &TimelineHistory) -> Vec<LineageStep> {
    lineage
        .stretches()
        .map(|stretch| LineageStep { timeline: stretch.timeline, begin_lsn: stretch.begin })
        .collect()
}

/// The timelines that lead to the end of the copy. A standby may have followed its primary to another meanwhile,
/// and may have begun on an earlier one.
fn lineage_at_end(
    runtime: &tokio::runtime::Runtime,
    client: &mut ReplicationClient,
    server: &Server,
    streamed: &Streamed,
) -> Result<TimelineHistory, BackupError> {
    let (start, began_on, ended_on) = (streamed.start.lsn, streamed.start.timeline, streamed.end.timeline);
    let known = server.lineage.timeline();
    if !server.is_standby {
        let same = began_on == known && ended_on == known;
        return if same { Ok(server.lineage.clone()) } else { Err(BackupError::Promoted) };
    }
    let lineage = match server.lineage.implied_for(ended_on) {
        Some(lineage) => lineage,
        None => runtime.block_on(lineage_of(client, ended_on))?,
    };
    if lineage.includes(began_on, start) {
        Ok(lineage)
    } else {
        Err(BackupError::OtherBranch { start, began_on, ended_on })
    }
}

fn copy_all(
    request: &BackupRequest<'_>,
    runtime: &tokio::runtime::Runtime,
    client: &mut ReplicationClient,
    server: &Server,
    id: &BackupId,
    env: &dyn Env,
    observer: &dyn Observer,
) -> Result<(Streamed, copy::Copied), BackupError> {
    let options = BackupOptions {
        label: format!("walden {id}"),
        checkpoint: if request.start_fast { Checkpoint::Fast } else { Checkpoint::Spread },
        progress: true,
        max_rate: request.max_rate.and_then(MaxRate::new),
        manifest: Manifest::No,
        verify_checksums: true,
    };
    let settings = CopySettings {
        workers: request.workers,
        compression: request.compression,
        pack_size: request.pack_size,
        page_size: server.cluster.page_size,
        spool: request.spool.clone(),
        verify_writes: request.verify_writes,
        // A store that answers over a network is waited for less with more under way; each holds a pack in memory.
        commits: if request.repository.store().gathers() { 3 } else { 1 },
    };
    let layout =
        ClusterLayout { blocks_per_file: server.cluster.blocks_per_file, check_pages: server.checksums };
    let pace = request.max_rate.filter(|rate| MaxRate::new(*rate).is_none());
    let room = Room::look(request.repository, request.stanza, server.cluster.system);
    let mut streamed = None;
    let (slot, options, room) = (&mut streamed, &options, &room);
    let source = |mut framer: Framer| async move {
        *slot = Some(stream(client, options, layout, pace, room, &mut framer, observer).await?);
        Ok(framer)
    };
    let copied = copy::copy(request.repository, request.stanza, id, &settings, env, runtime, source);
    match (copied, streamed) {
        (Ok(copied), Some(streamed)) => Ok((streamed, copied)),
        (Err(CopyError::Source(error)), _) => Err(error),
        (Err(CopyError::Repo(error)), _) => Err(error.into()),
        (Err(CopyError::Codec(error)), _) => Err(BackupError::Codec(error)),
        (Err(CopyError::Interrupted) | Ok(_), _) => Err(BackupError::Bug),
    }
}

fn tablespaces(streamed: &Streamed) -> Vec<Tablespace> {
    streamed
        .start
        .tablespaces
        .iter()
        .map(|one| Tablespace { oid: one.oid, location: one.location.to_string_lossy().into_owned() })
        .collect()
}

/// How long a backup took, for people.
#[must_use]
pub const fn took(record: &Record) -> Duration {
    let micros = record.stopped_at_unix_us.micros_since(record.started_at_unix_us);
    Duration::from_micros(if micros < 0 { 0 } else { micros as u64 })
}

/// The moment that a backup is consistent at, by the clock of the host that took it.
#[must_use]
pub const fn consistent_at(record: &Record) -> Timestamp {
    record.stopped_at_unix_us
}
