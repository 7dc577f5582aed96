//! Pages of relations: their header (`PageHeaderData`, storage/bufpage.h) and checksum
//! (`pg_checksum_page`, storage/checksum_impl.h).

use super::little_endian::{u16_at, u32_at};
use crate::units::Lsn;

/// Partial sums side by side (`N_SUMS`), so that the compiler can use wide registers.
const LANES: usize = 32;
/// `FNV_PRIME`.
const PRIME: u32 = 16_777_619;
/// `checksumBaseOffsets`: where each sum starts.
const START: [u32; LANES] = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
];

/// Where `pd_checksum` lies.
const CHECKSUM_AT: usize = 8;

fn round(sums: &mut [u32; LANES], words: &[u8; 4 * LANES], first: bool) {
    for (lane, sum) in sums.iter_mut().enumerate() {
        let at = 4 * lane;
        let mut word = u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        // The checksum's own two bytes, the low half of the third word, count as zero.
        if first && at == CHECKSUM_AT {
            word &= 0xFFFF_0000;
        }
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

/// The checksum that a page has when it is block `block` of its fork (counted over the whole fork, not the
/// file). The page's own checksum field is left out of account. `None` unless the length is that of a page.
#[must_use]
pub fn checksum(page: &[u8], block: u32) -> Option<u16> {
    if !is_page_length(page.len()) {
        return None;
    }
    let mut sums = START;
    let (rounds, _) = page.as_chunks::<{ 4 * LANES }>();
    if let Some((first, rest)) = rounds.split_first() {
        round(&mut sums, first, true);
        for words in rest {
            round(&mut sums, words, false);
        }
    }
    for _ in 0..2 {
        round(&mut sums, &[0; 4 * LANES], false);
    }
    let folded = sums.iter().fold(0, |a, b| a ^ b) ^ block;
    // 1 to 65535: never 0, which is what a page without checksum holds.
    Some((folded % 65_535 + 1) as u16)
}

/// A power of two from 1 to 32 KiB (`BLCKSZ`).
const fn is_page_length(length: usize) -> bool {
    length.is_power_of_two() && length >= 1 << 10 && length <= 32 << 10
}

/// What a page's checksum says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageState {
    /// Its checksum is right.
    Sound,
    /// Never initialised (`PageIsNew`): it has no checksum. `zero` when every byte is 0, as it must be.
    New {
        /// Whether every byte is 0.
        zero: bool,
    },
    /// Its checksum is wrong.
    Damaged {
        /// What the page says.
        stored: u16,
        /// What its bytes give.
        computed: u16,
        /// `pd_lsn`: at or after a backup's start, the page was being written, and WAL replay puts it right.
        lsn: Lsn,
    },
}

/// Verifies the page that is block `block` of its fork. `None` unless the length is that of a page.
#[must_use]
pub fn check(page: &[u8], block: u32) -> Option<PageState> {
    if is_new(page)? {
        return Some(PageState::New { zero: page.iter().all(|b| *b == 0) });
    }
    let stored = u16_at(page, CHECKSUM_AT)?;
    let computed = checksum(page, block)?;
    Some(if stored == computed {
        PageState::Sound
    } else {
        PageState::Damaged { stored, computed, lsn: lsn(page)? }
    })
}

/// Whether the page was never initialised: its `pd_upper` is 0 (`PageIsNew`).
#[must_use]
pub fn is_new(page: &[u8]) -> Option<bool> {
    u16_at(page, 14).map(|upper| upper == 0)
}

/// The end of the WAL record that last changed the page (`pd_lsn`; two halves, the high one first).
#[must_use]
pub fn lsn(page: &[u8]) -> Option<Lsn> {
    Some(Lsn::new(u64::from(u32_at(page, 0)?) << 32 | u64::from(u32_at(page, 4)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_servers_checksums_are_computed() {
        for major in 15..=19 {
            let packed =
                std::fs::read(format!("{}/fixtures/postgres/{major}/pages.zst", env!("CARGO_MANIFEST_DIR")))
                    .unwrap();
            let pages = zstd::bulk::decompress(&packed, 1 << 20).unwrap();
            let mut sound = 0;
            for (block, page) in pages.chunks(8192).enumerate() {
                let block = block as u32;
                assert_eq!(check(page, block), Some(PageState::Sound), "{major} block {block}");
                assert!(matches!(check(page, block + 1), Some(PageState::Damaged { .. })));
                let mut bad = page.to_vec();
                for at in (0..8192).step_by(97).filter(|at| !matches!(at, 14 | 15)) {
                    bad[at] ^= 0x10;
                    assert!(matches!(check(&bad, block), Some(PageState::Damaged { .. })), "byte {at}");
                    bad[at] ^= 0x10;
                }
                assert!(lsn(page).unwrap().is_valid());
                sound += 1;
            }
            assert!(sound > 3);
        }
    }

    #[test]
    fn a_new_page_has_no_checksum() {
        let mut page = vec![0; 8192];
        assert_eq!(check(&page, 7), Some(PageState::New { zero: true }));
        page[8000] = 1;
        assert_eq!(check(&page, 7), Some(PageState::New { zero: false }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(bytes: Vec<u8>, block: u32, exponent in 8u32..17) {
            let _ = check(&bytes, block);
            let mut page = bytes;
            page.resize(1 << exponent, 0xA5);
            let sum = checksum(&page, block);
            prop_assert_eq!(sum.is_some(), (10..=15).contains(&exponent));
            prop_assert_ne!(sum, Some(0));
        }
    }
}
