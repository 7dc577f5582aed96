//! What segments and histories say, each asked once of each repository, for those who look at one archive
//! several times: as a whole, and as each repository alone has it.

use super::window::{Union, Window};
use super::{Archive, RepoSet};
use crate::postgres::history::TimelineHistory;
use crate::units::{Lsn, SegmentName, TimelineId};
use crate::wal::info::CommitPoint;
use crate::wal::read::{is_missing, read_history, segment_info};
use crate::wal::{ClusterWal, WalError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one repository said of one object; `None`: it does not have it. A failure counts as an answer too:
/// who asks a store that is out of reach waits long, and need not wait again.
type Answer<T> = Result<Option<T>, Arc<WalError>>;

/// Remembers answers. It serves the archive that was read from the repositories of its union, and what
/// [`Archive::alone`] makes of that. About a hundred bytes for each segment that was asked for.
#[derive(Debug)]
pub struct Asked<'a> {
    union: Union<'a>,
    /// The last commit of a segment, by the repository that said so.
    segments: BTreeMap<(SegmentName, usize), Answer<Option<CommitPoint>>>,
    histories: BTreeMap<(TimelineId, usize), Answer<TimelineHistory>>,
}

impl<'a> Asked<'a> {
    /// Nothing was asked yet.
    #[must_use]
    pub const fn new(union: Union<'a>) -> Self {
        Self { union, segments: BTreeMap::new(), histories: BTreeMap::new() }
    }

    /// [`Archive::lineage`].
    ///
    /// # Errors
    /// As there.
    pub fn lineage(
        &mut self,
        archive: &Archive,
        timeline: TimelineId,
    ) -> Result<Option<TimelineHistory>, Arc<WalError>> {
        archive.lineage_by(timeline, |later, holders| {
            first(self.union, &mut self.histories, later, holders, |wal| read_history(wal, later))
        })
    }

    /// [`Archive::window`].
    ///
    /// The newest segment of the window is read in a repository that holds it for `archive`, so that a window of
    /// one repository rests on what that one gives. The segments before it, which matter only where no transaction
    /// ended in the newest, may have been read elsewhere: one name has one content. So a repository that keeps up
    /// with another costs one segment for each window, however far back the last commit lies.
    ///
    /// # Errors
    /// As there.
    pub fn window(
        &mut self,
        archive: &Archive,
        lineage: &TimelineHistory,
        from: Lsn,
    ) -> Result<Option<Window>, Arc<WalError>> {
        let mut newest = true;
        archive.window_by(lineage, from, |segment| {
            let elsewhere = if newest { None } else { self.said_anywhere(segment) };
            newest = false;
            if let Some(answer) = elsewhere {
                return Ok(answer);
            }
            let holders = archive.holders(segment);
            let read = |wal: ClusterWal<'_>| segment_info(wal, segment).map(|info| info.last_commit);
            Ok(first(self.union, &mut self.segments, segment, holders, read)?.flatten())
        })
    }

    fn said_anywhere(&self, segment: SegmentName) -> Option<Option<CommitPoint>> {
        let mut answers = self.segments.range((segment, 0)..=(segment, usize::MAX));
        answers.find_map(|(_, answer)| answer.as_ref().ok().copied().flatten())
    }
}

/// The first good answer of those that hold something, from memory where one was asked before; `None` when none
/// holds it any more.
fn first<'a, N: Copy + Ord, T: Clone>(
    union: Union<'a>,
    answers: &mut BTreeMap<(N, usize), Answer<T>>,
    name: N,
    holders: RepoSet,
    read: impl Fn(ClusterWal<'a>) -> Result<T, WalError>,
) -> Answer<T> {
    let mut trouble = None;
    for (at, wal) in holders.iter().filter_map(|at| Some((at, union.of(at)?))) {
        let answer = answers.entry((name, at)).or_insert_with(|| match read(wal) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Arc::new(error)),
        });
        match answer {
            Ok(Some(answer)) => return Ok(Some(answer.clone())),
            Ok(None) => {}
            Err(error) => trouble = trouble.or_else(|| Some(Arc::clone(error))),
        }
    }
    trouble.map_or(Ok(None), Err)
}
