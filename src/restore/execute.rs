//! Carrying a restore out. Nothing here decides anything: all of it was planned.
//!
//! Each step leaves a directory that cannot be started or is right:
//! 1. The marker is written; `pg_control` goes, synced: from here on no server starts here.
//! 2. `pg_wal` is moved aside, the rest is removed.
//! 3. Files are written, `pg_control` under another name. Links of tablespaces and `pg_wal`.
//! 4. With `--type=none` the backup's WAL.
//! 5. Settings and the signal file.
//! 6. The manifest is ended, and the tree compared with the map.
//! 7. Every file system is synced; the marker goes.
//! 8. `pg_control` gets its name. COMMIT POINT.
//!
//! A crash at 1 before `pg_control` went leaves the old server with a marker beside it, which nobody minds. A
//! crash after it and before 8 leaves a marker or the draft of `pg_control`, and no `pg_control`:
//! [`super::directory::examine`] knows that as unfinished and the next restore fills it again. After 8 it is done.

use super::directory::{CONTROL, CONTROL_DRAFT, Found, MARKER, Place};
use super::error::{RestoreError, file};
use super::manifest::Manifest;
use super::running::{self, Life};
use super::settings::Configuration;
use super::tree::{Look, Role, Tree, role, tablespace_of};
use super::write::{self, Observer, Phase, Source, WriteSettings, Written};
use crate::durable::{self, Directory, FileSystem};
use crate::env::Env;
use crate::postgres::backup_manifest::WalRange;
use crate::repo::map::{Entry, EntryKind, MapReader};
use crate::repo::record::Record;
use crate::units::{PgMajor, SegmentName, TimelineId};
use crate::wal::archive::Archive;
use crate::wal::archive::window::Union;
use crate::wal::read;
use crate::wal::tails::{FromTails, give_zeros};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Everything that was planned, and the means to do it.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// Where the backup is read from.
    pub source: Source<'a>,
    /// The backup.
    pub record: &'a Record,
    /// Where it goes.
    pub place: &'a Place,
    /// What is written into the configuration.
    pub configuration: &'a Configuration,
    /// What to say above it.
    pub headline: String,
    /// What the marker says on how to go on.
    pub how_to_go_on: String,
    /// With `--type=none`: the WAL to put into `pg_wal`, and where it comes from.
    pub wal: Option<WalToFetch<'a>>,
    /// How to write.
    pub settings: WriteSettings,
}

/// The backup's own WAL.
#[derive(Clone, Debug)]
pub struct WalToFetch<'a> {
    /// Where.
    pub union: Union<'a>,
    /// Who holds what.
    pub archive: &'a Archive,
    /// Which, in order.
    pub segments: Vec<SegmentName>,
    /// Histories that go with it.
    pub histories: Vec<TimelineId>,
}

/// Carries it out.
///
/// After `Ok` the directory is complete and durable, and a server started in it does what was planned. After
/// `Err` or a crash it cannot be started, unless nothing was changed yet, and the same restore may be run again.
///
/// # Errors
/// The first step that failed.
pub fn execute(task: &Task<'_>, env: &dyn Env, observer: &dyn Observer) -> Result<Written, RestoreError> {
    // Making the plan may have taken minutes, and a cluster manager may have brought the old server up again.
    let life = running::look(&task.place.pgdata).map_err(file("could not look at", &task.place.pgdata))?;
    if matches!(life, Life::Running { .. }) {
        return Err(RestoreError::ServerStarted(task.place.pgdata.clone()));
    }
    let source = task.source;
    let mut map =
        MapReader::open(source.repository, source.stanza, &task.record.backup_id, &task.record.map)?;
    // What decides over the modes is read before anything is touched, and proves that the map can be read.
    let group_access = match task.place.group_access {
        Some(known) => known,
        None => map.find(b"PG_VERSION")?.is_some_and(|entry| entry.mode & 0o040 != 0),
    };
    observer.phase(Phase::Clearing);
    let tree = Tree::open(task.place, group_access)?;
    tree.lock()?;
    // Whoever was here between the plan and the lock may have changed what the plan was made for.
    task.place.require_unchanged()?;
    // Opened before the first write: the kernel tells of failures since then.
    let file_systems = file_systems(&tree)?;
    clear(task, &tree)?;

    observer.phase(Phase::Writing);
    tree.link_elsewhere()?;
    let major = PgMajor::from_version_num(task.record.cluster.server_version_num).unwrap_or(PgMajor::OLDEST);
    let manifest_path = tree.shown(b"backup_manifest");
    let manifest = Manifest::begin(
        tree.create(b"backup_manifest")?,
        manifest_path,
        major,
        task.record.system_identifier,
    )?;
    let written = write::write_files(source, &mut map, &tree, &manifest, &task.settings, env, observer)?;
    write_label(task, &tree, &manifest)?;

    if let Some(wal) = &task.wal {
        observer.phase(Phase::FetchingWal);
        fetch_wal(wal, &tree, observer)?;
    }
    observer.phase(Phase::Checking);
    configure(task, &tree)?;
    manifest.finish(&[WalRange {
        timeline: task.record.timeline,
        start: task.record.start_lsn,
        end: task.record.stop_lsn,
    }])?;
    compare(task, &mut map, &tree)?;

    observer.phase(Phase::Syncing);
    for file_system in file_systems {
        file_system.sync().map_err(file("could not sync", tree.pgdata().path()))?;
    }
    let pgdata = tree.pgdata();
    remove_file(pgdata, MARKER).map_err(file("could not remove", tree.shown(MARKER.as_bytes())))?;
    pgdata.sync().map_err(file("could not sync", pgdata.path()))?;
    // COMMIT POINT
    tree.publish_control()?;
    Ok(written)
}

/// One for each file system below the tree's roots.
fn file_systems(tree: &Tree) -> Result<Vec<FileSystem>, RestoreError> {
    let mut seen = Vec::new();
    let mut opened = Vec::new();
    for root in tree.roots() {
        let device = std::fs::metadata(&root).map_err(file("could not look at", &root))?.dev();
        if !seen.contains(&device) {
            seen.push(device);
            opened.push(FileSystem::of(&root).map_err(file("could not open", &root))?);
        }
    }
    Ok(opened)
}

fn remove_file(base: &Directory, name: &str) -> std::io::Result<()> {
    match rustix::fs::unlinkat(base, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Steps 1 and 2.
fn clear(task: &Task<'_>, tree: &Tree) -> Result<(), RestoreError> {
    let pgdata = tree.pgdata();
    let path = pgdata.path();
    let marker = format!(
        "A restore of backup {} into this directory has not finished. No server can be started here until it has.\n\
         {}\n",
        task.record.backup_id, task.how_to_go_on
    );
    durable::publish(path, MARKER, marker.as_bytes(), durable::IfPresent::Replace)?;
    if task.place.set_owner {
        std::os::unix::fs::chown(
            path.join(MARKER),
            Some(task.place.owner.user),
            Some(task.place.owner.group),
        )
        .map_err(file("could not set the owner of", path.join(MARKER)))?;
    }
    if matches!(task.place.found, Found::Absent | Found::Empty) {
        return Ok(());
    }
    // From here on no server starts here.
    match pgdata.open_below("global") {
        Ok(global) => {
            let name = CONTROL.strip_prefix("global/").unwrap_or(CONTROL);
            remove_file(&global, name).map_err(file("could not remove", path.join(CONTROL)))?;
            global.sync().map_err(file("could not sync", path.join("global")))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(file("could not open", path.join("global"))(error)),
    }
    if let Some((from, to)) = &task.place.wal_aside {
        durable::move_aside(from, to)?;
    }
    let own_folder = task.place.version_folder();
    for space in &task.place.tablespaces {
        if space.to_be_emptied {
            // Another version's beside it is another cluster's: pg_upgrade leaves the old one there.
            remove_contents(&space.path, |name| name.as_bytes() != own_folder.as_bytes())?;
        }
    }
    if let Some((wal_dir, _)) = task.place.wal_dir.as_ref().filter(|(wal_dir, _)| wal_dir.exists()) {
        // Nothing but what an earlier attempt left, or it was moved away just now.
        remove_contents(wal_dir, |_| false)?;
    }
    remove_contents(path, |name| name == OsStr::new(MARKER))?;
    // The directory for WAL may have been moved away just now.
    if task.place.wal_dir.as_ref().is_some_and(|(wal_dir, _)| !wal_dir.exists()) {
        Tree::open(task.place, tree.group_access())?;
    }
    Ok(())
}

/// Removes what is in `directory` but what `keep` says. Links are removed, not followed.
fn remove_contents(directory: &Path, keep: impl Fn(&OsStr) -> bool) -> Result<(), RestoreError> {
    for entry in std::fs::read_dir(directory).map_err(file("could not read", directory))? {
        let entry = entry.map_err(file("could not read", directory))?;
        if keep(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let is_directory = entry.file_type().map_err(file("could not look at", &path))?.is_dir();
        let removed = if is_directory { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(file("could not remove", &path))?;
    }
    Ok(())
}

/// The label is what makes recovery begin in the right place: should the image have none as a file, the record's
/// is written; should it be another one, nothing may start from it.
fn write_label(task: &Task<'_>, tree: &Tree, manifest: &Manifest) -> Result<(), RestoreError> {
    let label = task.record.backup_label.as_bytes();
    let path = tree.shown(b"backup_label");
    if tree.look(b"backup_label")?.is_none() {
        let mut out = tree.create(b"backup_label")?;
        out.write_all(label).map_err(file("could not write", &path))?;
        let size = label.len() as u64;
        manifest.add(b"backup_label", size, None, crc32c::crc32c(label))?;
    }
    let found = std::fs::read(&path).map_err(file("could not read", &path))?;
    if found == label {
        Ok(())
    } else {
        Err(RestoreError::Strange { path: "backup_label".into(), why: "it is not the one of the record" })
    }
}

/// Step 4: as files of `pg_wal`, from whoever gives good bytes.
fn fetch_wal(wal: &WalToFetch<'_>, tree: &Tree, observer: &dyn Observer) -> Result<(), RestoreError> {
    for segment in &wal.segments {
        let name = format!("pg_wal/{segment}");
        let path = tree.shown(name.as_bytes());
        let mut trouble = None;
        let mut done = false;
        for holder in wal.archive.holders(*segment).iter().filter_map(|at| wal.union.of(at)) {
            if observer.interrupted() {
                return Err(RestoreError::Stopped);
            }
            let out = tree.create(name.as_bytes())?;
            let read = read::read_segment_to_places(holder, *segment, &|offset, bytes| {
                observer.wrote(bytes.len() as u64);
                out.write_all_at(bytes, offset)
            });
            match read {
                Ok(_) => {
                    done = true;
                    break;
                }
                Err(error) => {
                    std::fs::remove_file(&path).map_err(file("could not remove", &path))?;
                    if !read::is_missing(&error) {
                        trouble = trouble.or(Some(error));
                    }
                }
            }
        }
        match (done, trouble) {
            (true, _) => {}
            (false, Some(error)) => return Err(error.into()),
            (false, None) => {
                let mut out = tree.create(name.as_bytes())?;
                fetch_tails(wal, *segment, &mut |bytes| {
                    observer.wrote(bytes.len() as u64);
                    out.write_all(bytes)
                })?;
            }
        }
    }
    for timeline in &wal.histories {
        let holders = wal.archive.histories().find(|(held, _)| held == timeline).map(|(_, holders)| holders);
        let Some(holder) = holders.and_then(|holders| holders.iter().find_map(|at| wal.union.of(at))) else {
            continue;
        };
        let bytes = read::read_history_file(holder, *timeline)?;
        let name = format!("pg_wal/{}", timeline.history_name());
        let path = tree.shown(name.as_bytes());
        tree.create(name.as_bytes())?.write_all(&bytes).map_err(file("could not write", path))?;
    }
    Ok(())
}

/// The segment that the backup ended in, as far as tails hold it; the rest zero, as where a server has not written.
fn fetch_tails(wal: &WalToFetch<'_>, segment: SegmentName, sink: read::Sink<'_>) -> Result<(), RestoreError> {
    match wal.archive.read_tails(wal.union, segment, sink)? {
        FromTails { trouble: Some(error), .. } => Err(error.into()),
        FromTails { reach: 0, .. } => Err(RestoreError::WalGone(segment)),
        FromTails { reach, .. } => Ok(give_zeros(reach, wal.archive.segment_size(), sink)?),
    }
}

/// Step 5.
fn configure(task: &Task<'_>, tree: &Tree) -> Result<(), RestoreError> {
    let read = |name: &str| -> Result<Option<Vec<u8>>, RestoreError> {
        let path = tree.shown(name.as_bytes());
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("could not read", path)(error)),
        }
    };
    let image = read("postgresql.auto.conf")?;
    // Debian keeps it elsewhere: then nobody knows what it says, as if it included another.
    let main = read("postgresql.conf")?.unwrap_or_else(|| b"include 'unknown'\n".to_vec());
    let text = task.configuration.rewrite(image.as_deref().unwrap_or_default(), &main, &task.headline);
    if image.as_deref() != Some(text.as_slice()) {
        let path = tree.shown(b"postgresql.auto.conf");
        if image.is_some() {
            std::fs::remove_file(&path).map_err(file("could not remove", &path))?;
        }
        tree.create(b"postgresql.auto.conf")?.write_all(&text).map_err(file("could not write", path))?;
    }
    if let Some(signal) = task.configuration.signal.file() {
        tree.create(signal.as_bytes())?;
    }
    Ok(())
}

/// Step 6: every file of the map is there with its size, and every directory.
fn compare(task: &Task<'_>, map: &mut MapReader<'_>, tree: &Tree) -> Result<(), RestoreError> {
    map.for_each(|entry: Entry| {
        let path = match role(&entry.path, task.settings.keep_signals) {
            Role::LeftOut | Role::Rewritten => return Ok(()),
            Role::Control => CONTROL_DRAFT.as_bytes(),
            Role::Plain => &entry.path,
        };
        let is_link =
            entry.path == b"pg_wal" || tablespace_of(&entry.path).is_some_and(|(_, rest)| rest.is_empty());
        let expected = match &entry.kind {
            _ if is_link => return Ok(()),
            EntryKind::File { size, .. } => Look::File(*size),
            EntryKind::Directory => Look::Directory,
            EntryKind::Symlink(_) => return Ok(()),
        };
        let found = tree.look(path)?;
        if found == Some(expected) {
            return Ok(());
        }
        let bytes = |look: Look| match look {
            Look::File(size) => size,
            Look::Directory | Look::Other => 0,
        };
        Err(RestoreError::Differs {
            path: tree.shown(path),
            expected: bytes(expected),
            found: found.map(bytes),
        })
    })?;
    // Without it the copy is only a rename away from being started; without the map's word for it, refuse.
    match tree.look(CONTROL_DRAFT.as_bytes())? {
        Some(Look::File(size)) if size > 0 => Ok(()),
        _ => Err(RestoreError::Differs { path: tree.shown(CONTROL.as_bytes()), expected: 8192, found: None }),
    }
}
