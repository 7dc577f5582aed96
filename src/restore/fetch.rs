//! How a restore reads a repository: how much at once, and from which packs.

use super::error::RestoreError;
use crate::repo::map::PackRef;
use crate::repo::object::ObjectReader;
use crate::storage::Store;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// How the reading is spread, by how far away the repository is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pacing {
    /// Worker threads.
    pub(super) threads: usize,
    /// Plain bytes that one fetch brings.
    pub(super) span: u64,
    /// A file is taken apart for several workers above this many bytes.
    pub(super) piece: u64,
}

impl Pacing {
    /// For so many workers, at least one.
    pub(super) fn of(store: &dyn Store, workers: usize) -> Self {
        // What is gathered in memory when it is written is reached over a network.
        if store.gathers() { Self::far(workers) } else { Self::near(workers) }
    }

    /// On this host's disks a worker does nothing but wait for its processor. Two that write to one file wait for
    /// each other, so pieces are large.
    const fn near(workers: usize) -> Self {
        Self { threads: workers, span: 1 << 20, piece: 128 << 20 }
    }

    /// Over a network a request costs a round trip, whatever it brings: more of them are under way than there are
    /// processors, and each brings more. What all of them hold is bounded by their number.
    fn far(workers: usize) -> Self {
        Self {
            threads: workers.saturating_mul(6).min(MOST_UNDER_WAY.max(workers)),
            span: 3 << 20,
            piece: 32 << 20,
        }
    }
}

/// Fetches under way at once, unless more workers are asked for.
const MOST_UNDER_WAY: usize = 12;

/// Open packs that are kept for all workers.
const OPEN_PACKS: usize = 24;

/// Packs that were opened, the oldest first. Who asks for one that is being opened waits for it: opening costs round
/// trips, and neighbours on one pack come at the same moment.
#[derive(Default)]
pub(super) struct Packs(Mutex<VecDeque<(PackRef, Slot)>>);

/// One pack, once it was opened.
type Slot = Arc<Mutex<Option<Arc<ObjectReader>>>>;

impl Packs {
    /// The pack, opened by `open` if nobody has.
    pub(super) fn get(
        &self,
        pack: PackRef,
        open: impl FnOnce() -> Result<ObjectReader, RestoreError>,
    ) -> Result<Arc<ObjectReader>, RestoreError> {
        let slot = {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match held.iter().find(|(known, _)| *known == pack) {
                Some((_, slot)) => Arc::clone(slot),
                None => {
                    if held.len() >= OPEN_PACKS {
                        held.pop_front();
                    }
                    let slot = Slot::default();
                    held.push_back((pack, Arc::clone(&slot)));
                    slot
                }
            }
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(reader) => Ok(Arc::clone(reader)),
            // After a failure the next one tries again.
            None => Ok(Arc::clone(slot.insert(Arc::new(open()?)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_network_more_is_under_way_than_there_are_workers_and_never_without_a_bound() {
        assert_eq!(Pacing::near(2).threads, 2);
        for (workers, threads) in [(1, 6), (2, 12), (4, 12), (12, 12), (40, 40)] {
            assert_eq!(Pacing::far(workers).threads, threads);
        }
    }
}
