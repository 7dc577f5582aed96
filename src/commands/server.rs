//! What a cluster is, learned from its server or from its data directory.

use super::open::{client_failure, connection};
use crate::failure::{Class, Failure};
use crate::postgres::client::{ClientError, Limits, ReplicationClient};
use crate::postgres::control_file::{ControlFile, ControlFileError};
use crate::repo::Cluster;
use crate::report::Report;
use crate::settings::ServerSettings;
use crate::units::{ByteCount, PgMajor, SegmentSize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A runtime for one conversation with a server.
///
/// # Errors
/// When the system gives no more descriptors.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Class::LocalFileSystem, "could not begin to listen to the network").because(error)
    })
}

/// Where a [`Cluster`] was learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The server at this address.
    Server(String),
    /// `pg_control` in this data directory, because no server answered.
    DataDirectory(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(at) => write!(f, "the server at {at}"),
            Self::DataDirectory(path) => write!(f, "the data directory {}", path.display()),
        }
    }
}

/// Asks the server what its cluster is; where none answers and `pgN-path` is set, reads `pg_control` there.
///
/// When both can be had and do not name the same cluster, that is an error: `archive-push` trusts the path,
/// `backup` the server.
///
/// # Errors
/// In a person's words.
pub fn learn_cluster(server: &ServerSettings) -> Result<(Cluster, Source), Failure> {
    let unreachable = match runtime()?.block_on(ask(server)) {
        Ok((cluster, at)) => {
            if let Some(path) = &server.path {
                require_same(&cluster, &at, path, server.index)?;
            }
            return Ok((cluster, Source::Server(at)));
        }
        Err(failure) if failure.class() == Class::PostgresUnreachable => failure,
        Err(failure) => return Err(failure),
    };
    let Some(path) = &server.path else {
        return Err(unreachable.next(format!(
            "Or set pg{}-path, where the data directory lies on this host: it tells the same.",
            server.index
        )));
    };
    match read_control_file(path) {
        Ok(control) => Ok((cluster_of(&control, path)?, Source::DataDirectory(path.clone()))),
        Err(NoControlFile::Unreadable(_)) => Err(unreachable.next(format!(
            "Check pg{}-path: there is no data directory in {}.",
            server.index,
            path.display()
        ))),
        Err(error @ NoControlFile::Malformed(_)) => Err(Failure::new(
            Class::PostgresRefuses,
            format!("cannot tell which cluster {} holds", path.display()),
        )
        .because(error)),
    }
}

/// Questions that every role with REPLICATION may ask, over either kind of replication connection.
async fn ask(server: &ServerSettings) -> Result<(Cluster, String), Failure> {
    let parameters = connection(server)?;
    let what = format!("could not connect to pg{}", server.index);
    let mut client =
        ReplicationClient::connect(&parameters).await.map_err(|error| client_failure(error, what))?;
    client.set_limits(Limits { answer: server.io_timeout.min(server.timeout), ..Limits::default() });
    let at = client.address().to_string();
    let cluster = questions(&mut client, &at).await;
    client.close().await;
    Ok((cluster?, at))
}

/// What a server's cluster is, over a connection that is open.
///
/// # Errors
/// In a person's words.
pub(super) async fn questions(client: &mut ReplicationClient, at: &str) -> Result<Cluster, Failure> {
    let what = || format!("could not learn which cluster the server at {at} is");
    let failed = |error: ClientError| client_failure(error, what());
    let version = client.server_version_num().await.map_err(failed)?;
    let major = supported(PgMajor::from_version_num(version), version, at)?;
    let identity = client.identify_system().await.map_err(failed)?;
    let strange = |name: &str, value: &str| {
        Failure::new(Class::PostgresRefuses, what())
            .because_text(format!("its setting {name} has the value \"{value}\""))
    };
    let mut sizes = [0_u64; 3];
    for (size, name) in sizes.iter_mut().zip(["block_size", "wal_segment_size", "segment_size"]) {
        let text = client.show(name).await.map_err(failed)?;
        // PostgreSQL's units are powers of 1,024 whatever they are called, as in our settings.
        *size = text.parse::<ByteCount>().map_err(|_| strange(name, &text))?.as_u64();
    }
    let [page, segment, file] = sizes;
    let page_size = u32::try_from(page)
        .ok()
        .filter(|size| size.is_power_of_two() && (1024..=32768).contains(size))
        .ok_or_else(|| strange("block_size", &page.to_string()))?;
    let blocks_per_file = u32::try_from(file / u64::from(page_size))
        .ok()
        .filter(|blocks| *blocks > 0 && file.is_multiple_of(page))
        .ok_or_else(|| strange("segment_size", &file.to_string()))?;
    let segment_size =
        SegmentSize::new(segment).map_err(|_| strange("wal_segment_size", &segment.to_string()))?;
    Ok(Cluster { system: identity.system, major, page_size, segment_size, blocks_per_file })
}

/// Tells of a major that is newer than any that was tried; for a person who can wait with it.
pub(super) fn warn_of_untested(major: PgMajor, report: &Report) {
    if let Some(text) = untested(major) {
        report.warn(text);
    }
}

/// What there is to say of a major that is newer than any that was tried.
pub(super) fn untested(major: PgMajor) -> Option<String> {
    (major > PgMajor::NEWEST).then(|| {
        format!(
            "this walden was tested with PostgreSQL {} to {}, and this is {major}: it is tried; see whether there is a \
             newer walden, and try a restore",
            PgMajor::OLDEST,
            PgMajor::NEWEST
        )
    })
}

fn supported(major: Option<PgMajor>, version: impl std::fmt::Display, at: &str) -> Result<PgMajor, Failure> {
    major.filter(|major| *major >= PgMajor::OLDEST).ok_or_else(|| {
        Failure::new(Class::PostgresRefuses, format!("cannot take care of the cluster at {at}")).because_text(
            format!(
                "its version is {version}, and walden speaks with PostgreSQL {} to {}",
                PgMajor::OLDEST,
                PgMajor::NEWEST
            ),
        )
    })
}

/// Why there is no control file to read.
#[derive(Debug)]
pub enum NoControlFile {
    /// The file is not there, or may not be read.
    Unreadable(std::io::Error),
    /// It is there and is none.
    Malformed(ControlFileError),
}

impl std::fmt::Display for NoControlFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(_) => f.write_str("global/pg_control could not be read"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NoControlFile {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(error) => Some(error),
            Self::Malformed(_) => None,
        }
    }
}

/// Reads `global/pg_control` of the data directory `path`, which a server may be writing at the same moment.
///
/// # Errors
/// See [`NoControlFile`].
pub fn read_control_file(path: &Path) -> Result<ControlFile, NoControlFile> {
    // PostgreSQL writes the file in place: a reader may see half of the old and half of the new.
    let mut attempts_left = 10;
    loop {
        let bytes = std::fs::read(path.join("global/pg_control")).map_err(NoControlFile::Unreadable)?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(control),
            Err(ControlFileError::Checksum { .. }) if attempts_left > 0 => {
                attempts_left -= 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(NoControlFile::Malformed(error)),
        }
    }
}

fn cluster_of(control: &ControlFile, path: &Path) -> Result<Cluster, Failure> {
    let version = format!("pg_control {} of catalog {}", control.control_version, control.catalog_version);
    Ok(Cluster {
        system: control.system_identifier,
        major: supported(control.major, version, &path.display().to_string())?,
        page_size: control.page_size,
        segment_size: control.wal_segment_size,
        blocks_per_file: control.pages_per_relation_file,
    })
}

/// That `path` holds the server's cluster. It may be meant for another host, or not be readable here: then it tells
/// nothing.
///
/// # Errors
/// [`Class::NotThisCluster`] when it holds another.
pub(super) fn require_same(cluster: &Cluster, at: &str, path: &Path, index: u16) -> Result<(), Failure> {
    match read_control_file(path) {
        Ok(control) if control.system_identifier != cluster.system => Err(Failure::new(
            Class::NotThisCluster,
            format!("pg{index}-path is the data directory of another cluster than the server at {at}"),
        )
        .because_text(format!(
            "the server has system identifier {}, {} has {}",
            cluster.system,
            path.display(),
            control.system_identifier
        ))
        .next(format!("Check pg{index}-path, and pg{index}-port or pg{index}-socket-path."))),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]
mod tests {
    use super::*;

    fn fixture(major: u16) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let global = directory.path().join("global");
        std::fs::create_dir(&global).unwrap();
        let from =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/postgres/{major}/pg_control"));
        std::fs::copy(from, global.join("pg_control")).unwrap();
        let path = directory.path().to_owned();
        (directory, path)
    }

    fn nobody_there(path: Option<PathBuf>) -> ServerSettings {
        ServerSettings {
            index: 1,
            path,
            host: Some("/nonexistent".into()),
            port: None,
            socket_path: None,
            user: Some("nobody".into()),
            database: None,
            conninfo: None,
            timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn without_a_server_the_data_directory_tells_which_cluster_it_is() {
        for major in [14, 15, 16, 17, 18, 19] {
            let (_keep, path) = fixture(major);
            let (cluster, source) = learn_cluster(&nobody_there(Some(path.clone()))).unwrap();
            assert_eq!(source, Source::DataDirectory(path));
            assert_eq!(cluster.major, PgMajor::new(major));
            assert_eq!((cluster.page_size, cluster.blocks_per_file), (8192, 131_072));
        }
    }

    #[test]
    fn a_major_is_refused_tried_or_known() {
        assert!(supported(Some(PgMajor::new(13)), 130_016, "here").is_err());
        for (major, known) in [(14, true), (19, true), (20, false)] {
            let major = supported(Some(PgMajor::new(major)), major, "here").unwrap();
            assert_eq!(untested(major).is_none(), known, "{major}");
        }
    }

    #[test]
    fn with_neither_it_is_the_server_that_could_not_be_reached() {
        for path in [None, Some(PathBuf::from("/nonexistent"))] {
            let failure = learn_cluster(&nobody_there(path)).unwrap_err();
            assert_eq!(failure.class(), Class::PostgresUnreachable);
            assert!(failure.steps().iter().any(|step| step.contains("pg1-path")), "{failure}");
        }
    }

    #[test]
    fn a_damaged_control_file_is_not_taken_for_an_absent_one() {
        let (_keep, path) = fixture(18);
        let file = path.join("global/pg_control");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let failure = learn_cluster(&nobody_there(Some(path))).unwrap_err();
        assert_eq!(failure.class(), Class::PostgresRefuses, "{failure}");
    }
}
