//! For `make bench`: stores many WAL segments in an S3 repository, quickly.
//!
//! Each is a whole, sealed object under its own name, written by walden's own writer, and says of itself what a
//! segment says that goes on where the one before it ended, with a transaction a millisecond. Only what
//! is in it is none of PostgreSQL's doing: zeros, compressed once for all of them. So listings, footers and searches in time meet what
//! they would meet, and a replay would not.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use walden::env::System;
use walden::repo::Repository;
use walden::repo::frame::{Compression, EncodedFrame, FrameEncoder, WAL_FRAME};
use walden::repo::keys::Secret;
use walden::storage::Key;
use walden::storage::object::{Bucket, S3, S3Credentials, S3Key, Service, tried_again};
use walden::storage::retry::RetryPolicy;
use walden::units::{SegmentName, SegmentSize, Stanza, Timestamp};
use walden::wal::write::{Destination, SegmentWriter};
use walden::wal::{ClusterWal, CommitPoint, ContentHash, SegmentInfo, read};

type Trouble = Box<dyn Error + Send + Sync>;

/// Calls at once: the server is what takes the time.
const WORKERS: u64 = 16;

const USAGE: &str = "store-segments LAST COUNT: COUNT segments after LAST, which is stored and complete.\n\
    Environment: ENDPOINT, CA_FILE, BUCKET, FOLDER, ACCESS_KEY, SECRET_KEY, KEY_FILE, STANZA, SYSTEM.";

fn variable(name: &str) -> Result<String, Trouble> {
    std::env::var(name).map_err(|_| format!("{name} is not set\n{USAGE}").into())
}

fn open() -> Result<Repository, Trouble> {
    let retry = RetryPolicy::for_up_to(Duration::from_secs(60));
    let bucket = Bucket {
        place: "the bench's bucket".to_owned(),
        service: Service::S3(S3 {
            region: "us-east-1".to_owned(),
            bucket_in_host: false,
            credentials: S3Credentials::Key(S3Key {
                id: variable("ACCESS_KEY")?,
                secret: variable("SECRET_KEY")?,
                token: None,
            }),
            encryption: None,
            storage_class: None,
        }),
        name: variable("BUCKET")?,
        endpoint: variable("ENDPOINT")?,
        folder: Some(Key::new(variable("FOLDER")?)?),
        trusted: Some(std::fs::read(variable("CA_FILE")?)?),
        verify: true,
        silence: Duration::from_secs(60),
        retry,
    };
    let key = std::fs::read_to_string(variable("KEY_FILE")?)?;
    let store = Arc::new(tried_again(bucket.open()?, retry));
    Ok(Repository::open(store, &|| Secret::parse(&key).map(Some))?)
}

fn main() -> Result<(), Trouble> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [last, count] = arguments.as_slice() else { return Err(USAGE.into()) };
    let (last, count): (SegmentName, u64) = (last.parse()?, count.parse()?);
    let repository = open()?;
    let stanza: Stanza = variable("STANZA")?.parse()?;
    let wal = ClusterWal { repo: &repository, stanza: &stanza, system: variable("SYSTEM")?.parse()? };
    let model = read::segment_info(wal, last)?;
    let size = SegmentSize::new(model.size)?;
    let first = last.number(size).ok_or("LAST is no segment of this size")? + 1;

    let zeros = vec![0; WAL_FRAME];
    let frames = model.size.div_ceil(WAL_FRAME as u64);
    let mut encoded = EncodedFrame::default();
    FrameEncoder::new(Compression::Zstd(1), false)?.encode(&zeros, &mut encoded)?;
    let mut hasher = blake3::Hasher::new();
    (0..frames).for_each(|_| _ = hasher.update(&zeros));
    let hash = ContentHash::finish(&hasher);
    let start = model.last_commit.ok_or("no transaction ends in LAST")?;

    let store = |at: u64| -> Result<(), Trouble> {
        let name =
            SegmentName::from_number(last.timeline(), first + at, size).ok_or("there are no more names")?;
        let millis = i64::try_from(at)? + 1;
        let commit = CommitPoint {
            at: Timestamp::from_unix_micros(start.at.as_unix_micros() + millis * 1000),
            xid: start.xid.wrapping_add(u32::try_from(millis)?),
        };
        let info = SegmentInfo {
            name,
            hash,
            first_commit: Some(commit),
            last_commit: Some(commit),
            tablespaces_created: Vec::new(),
            ..model.clone()
        };
        let mut writer = SegmentWriter::begin(wal, name, Destination::Complete, size, &System)?;
        let mut frame = EncodedFrame::default();
        for _ in 0..frames {
            frame.copy_from(&encoded);
            writer.append(&zeros, &mut frame)?;
        }
        writer.finish(&info)?.commit()?;
        Ok(())
    };
    let next = AtomicU64::new(0);
    let work = || -> Result<(), Trouble> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(());
            }
            if let Err(error) = store(at) {
                // The others need not go on.
                next.store(count, Ordering::Relaxed);
                return Err(error);
            }
            if (at + 1).is_multiple_of(10_000) {
                eprintln!("{} segments stored", at + 1);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
    })
}
