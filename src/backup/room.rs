//! Whether the repository has room for a backup, as far as that can be known before it is taken.

use crate::repo::Repository;
use crate::repo::record::Outcome;
use crate::units::{ByteCount, Stanza, SystemIdentifier};

/// No cluster compresses better than this: where there is less room, the copy cannot end well.
const BEST_RATIO: u64 = 25;
/// What a cluster is taken to compress to before anything is known of it: a third.
const USUAL_RATIO: u64 = 3;
/// Backups that are looked at for how well this cluster compresses.
const LOOKED_AT: usize = 3;

/// What is free, and how well this cluster compressed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What is free where it is to be stored; `None` where stores do not say.
    pub free: Option<ByteCount>,
    /// An earlier backup's stored bytes and those of the cluster then.
    pub earlier: Option<(u64, u64)>,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It will fit, or nobody knows.
    Enough,
    /// It may not fit.
    Doubtful {
        /// What is free.
        free: ByteCount,
        /// What it is expected to need.
        expected: ByteCount,
    },
    /// It cannot fit.
    TooLittle {
        /// What is free.
        free: ByteCount,
        /// What it needs at the very least.
        needed: ByteCount,
    },
}

impl Room {
    /// Looks at the newest backups of this cluster that can be read. What cannot be read teaches nothing.
    #[must_use]
    pub fn look(repository: &Repository, stanza: &Stanza, system: SystemIdentifier) -> Self {
        let free = repository.store().free_space();
        let mut room = Self { free, earlier: None };
        let Some(catalog) = free.and_then(|_| repository.catalog(stanza).ok()) else { return room };
        let mut ids: Vec<_> = catalog.candidates().collect();
        ids.sort();
        room.earlier =
            ids.into_iter().rev().take(LOOKED_AT).find_map(|id| match repository.read_outcome(stanza, id) {
                Ok((Outcome::Committed(record), _)) if record.system_identifier == system => {
                    Some((record.sizes.stored_bytes, record.sizes.database_bytes))
                }
                _ => None,
            });
        room
    }

    /// Whether a cluster of `total` bytes fits.
    ///
    /// It is refused where it surely does not: with less than half of what it is expected to need, which leaves room
    /// for another compression than the last time, but never taking more than half of a third for granted.
    #[must_use]
    pub fn judge(&self, total: ByteCount) -> Fit {
        let Some(free) = self.free else { return Fit::Enough };
        let total = total.as_u64();
        let usual = total / USUAL_RATIO;
        let scaled = |(stored, database): (u64, u64)| {
            let scaled = u128::from(total) * u128::from(stored) / u128::from(database.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let earlier = self.earlier.map(scaled);
        let expected = ByteCount::new(earlier.unwrap_or(usual));
        let surely = earlier.map_or(0, |earlier| earlier.min(usual) / 2).max(total / BEST_RATIO);
        let needed = ByteCount::new(surely);
        if free < needed {
            Fit::TooLittle { free, needed }
        } else if free < expected {
            Fit::Doubtful { free, expected }
        } else {
            Fit::Enough
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(free: u64, earlier: Option<(u64, u64)>) -> Fit {
        Room { free: Some(ByteCount::new(free)), earlier }.judge(ByteCount::new(1_500))
    }

    #[test]
    fn the_earlier_backup_tells_what_the_next_one_needs() {
        let bytes = ByteCount::new;
        // Nothing known: a third is expected, a 25th is the least.
        assert_eq!(judge(500, None), Fit::Enough);
        assert_eq!(judge(499, None), Fit::Doubtful { free: bytes(499), expected: bytes(500) });
        assert_eq!(judge(59, None), Fit::TooLittle { free: bytes(59), needed: bytes(60) });
        // It compressed to a fifth: 300 are expected, half of that is needed.
        let earlier = Some((200, 1_000));
        assert_eq!(judge(300, earlier), Fit::Enough);
        assert_eq!(judge(299, earlier), Fit::Doubtful { free: bytes(299), expected: bytes(300) });
        assert_eq!(judge(149, earlier), Fit::TooLittle { free: bytes(149), needed: bytes(150) });
        // Not compressed the last time: that may be another now.
        assert_eq!(
            judge(300, Some((1_000, 1_000))),
            Fit::Doubtful { free: bytes(300), expected: bytes(1_500) }
        );
        assert_eq!(judge(249, Some((1_000, 1_000))), Fit::TooLittle { free: bytes(249), needed: bytes(250) });
        assert!(matches!(judge(1_000, Some((1, 0))), Fit::Doubtful { .. }));
        assert_eq!(Room::default().judge(bytes(u64::MAX)), Fit::Enough);
    }
}
