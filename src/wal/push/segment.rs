//! Pushing a segment.

use super::encode::{Lane, Source, encode};
use super::{Push, PushError, Pushed, Trouble, Warning, local, require_cluster};
use crate::postgres::wal::page::LONG_HEADER;
use crate::postgres::wal::segment::{SegmentIdentity, Unreadable};
use crate::storage::Created;
use crate::units::SegmentName;
use crate::wal::ClusterWal;
use crate::wal::info::SegmentInfo;
use crate::wal::scan::{Judgement, Scanned};
use crate::wal::write::{Destination, settle_segment};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Pushes the file as the segment `name`, or as PostgreSQL's `.partial` of it.
///
/// 1. The first page says which cluster it is and whether the name fits; each repository's stanza must hold
///    that cluster.
/// 2. One pass reads, hashes and walks the file and encodes it for all repositories at once.
/// 3. If the walk says that it is surely unfinished, or it is a `.partial`, the name holds the contents' hash,
///    so a second pass stores it there and the first one's drafts are dropped.
/// 4. Each repository gives it its name. COMMIT POINT, one for each.
pub(super) fn push(push: Push<'_>, name: SegmentName, is_partial: bool) -> Result<Pushed, PushError> {
    let file = local::open(push.path)?;
    let identity = identify(push, &file, name)?;
    let source = Source { path: push.path, file: &file, name, size: identity.size, stop: push.stop };
    let wal = |at: usize| ClusterWal {
        repo: push.repositories[at],
        stanza: push.stanza,
        system: identity.system_identifier,
    };
    let mut outcomes: Vec<Option<Result<Created, Trouble>>> = (0..push.repositories.len())
        .map(|at| match require_cluster(wal(at)) {
            Ok(cluster) if cluster.segment_size == identity.size => None,
            Ok(cluster) => {
                Some(Err(Trouble::OtherSegmentSize { held: cluster.segment_size, offered: identity.size }))
            }
            Err(trouble) => Some(Err(trouble)),
        })
        .collect();
    let open: Vec<usize> = (0..outcomes.len()).filter(|at| outcomes[*at].is_none()).collect();
    let pushed = |outcomes: Vec<Option<Result<Created, Trouble>>>, warnings| Pushed {
        system: identity.system_identifier,
        outcomes: outcomes.into_iter().flatten().collect(),
        warnings,
    };
    if open.is_empty() {
        return Ok(pushed(outcomes, Vec::new()));
    }
    let lanes = |destination| {
        open.iter().map(|at| Lane::new(wal(*at), source, destination, push.env)).collect::<Vec<_>>()
    };
    let mut first = if is_partial { Vec::new() } else { lanes(Destination::Complete) };
    let scanned = encode(source, push.compression, &mut first)?;
    let beside = is_partial || matches!(scanned.judgement, Judgement::Unfinished(_));
    let finished = if beside {
        drop(first);
        let mut second = lanes(Destination::Partial(scanned.info.hash));
        let again = encode(source, push.compression, &mut second)?;
        if again.info.hash != scanned.info.hash {
            return Err(PushError::Changed);
        }
        second
    } else {
        first
    };
    for (at, outcome) in open.iter().zip(commit(finished, &scanned.info)) {
        outcomes[*at] = Some(outcome);
    }
    Ok(pushed(outcomes, warnings(&scanned, is_partial)))
}

/// What the first page says, and that the file fits its name and length.
fn identify(push: Push<'_>, file: &File, name: SegmentName) -> Result<SegmentIdentity, PushError> {
    let failed = |source| PushError::Read { path: push.path.to_owned(), source };
    let found = file.metadata().map_err(failed)?.len();
    if found < LONG_HEADER as u64 {
        return Err(PushError::Segment(Unreadable::TooShort));
    }
    let mut beginning = [0; LONG_HEADER];
    file.read_exact_at(&mut beginning, 0).map_err(failed)?;
    let identity = SegmentIdentity::parse(&beginning).map_err(PushError::Segment)?;
    identity.fits(name).map_err(PushError::Segment)?;
    let expected = identity.size.bytes();
    if found != expected {
        return Err(PushError::Segment(Unreadable::Length { expected, found }));
    }
    Ok(identity)
}

fn warnings(scanned: &Scanned, is_partial: bool) -> Vec<Warning> {
    match scanned.judgement {
        Judgement::UnknownMagic(magic) => vec![Warning::UnknownMagic(magic)],
        judgement @ Judgement::Unfinished(_) if !is_partial => {
            vec![Warning::Unfinished { judgement, hash: scanned.info.hash }]
        }
        judgement @ Judgement::Doubtful(_) if !is_partial => vec![Warning::Doubtful(judgement)],
        _ => Vec::new(),
    }
}

/// Names the segment in every repository, at once where there are several: one that hangs keeps no other
/// waiting.
fn commit(lanes: Vec<Lane<'_>>, info: &SegmentInfo) -> Vec<Result<Created, Trouble>> {
    if lanes.len() == 1 {
        return lanes.into_iter().map(|lane| finish(lane, info)).collect();
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(move || finish(lane, info))).collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn finish(lane: Lane<'_>, info: &SegmentInfo) -> Result<Created, Trouble> {
    let (wal, destination) = (lane.wal, lane.destination);
    match lane.into_writer()? {
        Some(writer) => Ok(writer.finish(info)?.commit()?),
        // It was there before we wrote.
        None => Ok(settle_segment(wal, &wal.place(info.name, destination)?, info.name, info.hash)?),
    }
}
