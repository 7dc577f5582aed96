//! Where names stand to the points that a listing is cut at, and which points those are.
//!
//! Stores list by one of two orders: by the bytes of the whole name (S3, Google, Ceph), where `a-b` stands before `a/b`; or
//! by folder (SeaweedFS), where all of `a/` comes before `a-b`. Nothing here rests on which it is: a name that the two orders
//! put on different sides of a point is told from the others.

use super::{Pager, Plan, side_by_side};
use crate::storage::{Key, Listed};
use std::cmp::Ordering;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The point at which the names below a folder begin. A name inside, because stores that list by folder would take the
/// folder's own name for a place behind all that is in it; and of names the first, for `-` is the least that a key may hold.
const FIRST_NAME: &str = "-";

fn by_bytes(one: &Key, other: &Key) -> Ordering {
    one.cmp(other)
}

fn by_folder(one: &Key, other: &Key) -> Ordering {
    one.as_str().split('/').cmp(other.as_str().split('/'))
}

/// Where a name stands to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Before it or at it, by either order.
    Before,
    /// After it, by either order.
    After,
    /// It depends.
    Unclear,
}

fn side(key: &Key, point: &Key) -> Side {
    match (by_bytes(key, point), by_folder(key, point)) {
        (Ordering::Greater, Ordering::Greater) => Side::After,
        (Ordering::Greater, _) | (_, Ordering::Greater) => Side::Unclear,
        _ => Side::Before,
    }
}

/// Where a name stands to a [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Before,
    /// In it, and in no other.
    Inside,
    /// In it or in another, by the store's order.
    Edge,
    After,
}

/// What lies after one point and not after another; without an end on a side that has no point.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub after: Option<Key>,
    pub end: Option<Key>,
}

impl Span {
    pub(super) fn place(&self, key: &Key) -> Place {
        let to =
            |point: &Option<Key>, without: Side| point.as_ref().map_or(without, |point| side(key, point));
        match (to(&self.after, Side::After), to(&self.end, Side::Before)) {
            (Side::Before, _) => Place::Before,
            (_, Side::After) => Place::After,
            (Side::After, Side::Before) => Place::Inside,
            _ => Place::Edge,
        }
    }
}

/// The names that came by: how far they go, and whether they rose by one of the orders.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    last: Option<Key>,
    /// A name in the middle of the last page: the first and the last may be of another kind.
    typical: Option<Key>,
    by_bytes: bool,
    by_folder: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self { last: None, typical: None, by_bytes: true, by_folder: true }
    }
}

impl Seen {
    pub(super) fn see(&mut self, page: &[Listed]) {
        let before = self.last.take();
        let keys = || page.iter().map(|listed| &listed.key);
        for (one, next) in before.iter().chain(keys()).zip(keys().skip(usize::from(before.is_none()))) {
            self.by_bytes &= by_bytes(one, next) != Ordering::Greater;
            self.by_folder &= by_folder(one, next) != Ordering::Greater;
        }
        let name = |listed: Option<&Listed>| listed.map(|listed| listed.key.clone());
        self.last = name(page.last()).or(before);
        self.typical = name(page.get(page.len() / 2)).or(self.typical.take());
    }

    pub(super) fn in_order(&self) -> bool {
        self.by_bytes || self.by_folder
    }

    /// Whether what was seen ends before `point`, if it is in order.
    fn ends_before(&self, point: &Key) -> bool {
        self.last.as_ref().is_none_or(|last| side(point, last) == Side::After)
    }

    fn ends_in(&self, folder: &Key) -> bool {
        let last = self.last.as_ref().and_then(|last| last.as_str().strip_prefix(folder.as_str()));
        last.is_some_and(|rest| rest.starts_with('/'))
    }
}

fn begin_of(folder: &Key) -> Option<Key> {
    Key::new(format!("{folder}/{FIRST_NAME}")).ok()
}

/// The points at which to cut what a listing of `folder` has not yet shown, into ranges of about as many folders: rising by
/// either order, and all of them beyond what was seen. None where there is too little to cut.
///
/// Only the balance of the ranges rests on what is found here, so a folder that cannot be listed is none.
pub(super) fn find(pager: &dyn Pager, folder: &Key, plan: &Plan, seen: &Seen) -> Vec<Key> {
    let below =
        |key: &Key| key.as_str().strip_prefix(folder.as_str()).map_or(0, |rest| rest.matches('/').count());
    let depth = seen.typical.as_ref().map_or(0, below).saturating_sub(1);
    let left = AtomicU32::new(plan.level_pages);
    let mut folders = vec![folder.clone()];
    for _ in 0..depth {
        if folders.len() > left.load(Relaxed) as usize {
            break;
        }
        let names = side_by_side(plan.streams, &folders, |folder| names_in(pager, folder, &left));
        let mut found: Vec<Key> = folders
            .iter()
            .zip(names)
            .flat_map(|(folder, names)| {
                names.into_iter().map(move |name| Key::new(format!("{folder}/{name}")))
            })
            .filter_map(Result::ok)
            .filter(|below| {
                seen.ends_in(below) || begin_of(below).is_some_and(|point| seen.ends_before(&point))
            })
            .collect();
        if found.is_empty() {
            break;
        }
        found.sort_unstable();
        found.dedup();
        folders = found;
    }
    let points = rising(folders.iter().filter_map(begin_of), seen);
    let ranges = (points.len() / plan.folders.max(1)).min(plan.ranges);
    (1..ranges).filter_map(|range| points.get(range * points.len() / ranges).cloned()).collect()
}

/// Those of `points` that are beyond what was seen and rise by either order.
pub(super) fn rising(points: impl IntoIterator<Item = Key>, seen: &Seen) -> Vec<Key> {
    let mut rising: Vec<Key> = Vec::new();
    for point in points {
        if seen.ends_before(&point) && rising.last().is_none_or(|last| side(&point, last) == Side::After) {
            rising.push(point);
        }
    }
    rising
}

/// The names of the folders in `folder`: some of them where the pages that are left do not suffice.
fn names_in(pager: &dyn Pager, folder: &Key, left: &AtomicU32) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = None;
    while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
        let Ok((more, next)) = pager.folders(folder, token) else { break };
        names.extend(more);
        match next {
            None => break,
            next => token = next,
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    #[test]
    fn a_name_is_unclear_where_the_orders_differ() {
        let point = key("w/00000002/0000000A/-");
        for (name, expected) in [
            ("w/00000001/0000000B/x", Side::Before),
            ("w/00000002/00000009/x", Side::Before),
            ("w/00000002/0000000A/-", Side::Before),
            ("w/00000002/0000000A/0", Side::After),
            ("w/00000002/0000000A/-0", Side::After),
            ("w/00000002/0000000A0/x", Side::After),
            ("w/00000002/0000000B", Side::After),
            ("w/00000003.history", Side::After),
            ("w/00000002.history", Side::Unclear),
            ("w/00000002/0000000A.index", Side::Unclear),
            ("w/00000001.history", Side::Before),
        ] {
            assert_eq!(side(&key(name), &point), expected, "{name}");
        }
    }

    #[test]
    fn names_rise_by_one_order_or_the_other_and_across_pages() {
        let in_order = |pages: &[&[&str]]| {
            let mut seen = Seen::default();
            for page in pages {
                let listed = |name: &&str| Listed { key: key(name), size: crate::units::ByteCount::ZERO };
                seen.see(&page.iter().map(listed).collect::<Vec<_>>());
            }
            seen.in_order()
        };
        assert!(in_order(&[&["a/b", "a/c"], &[], &["b"]]));
        assert!(in_order(&[&["a-b", "a/b"], &["b"]]));
        assert!(in_order(&[&["a/b", "a-b"], &["b"]]));
        assert!(!in_order(&[&["a/b"], &["a-b", "b-c"], &["b/c"]]));
        assert!(!in_order(&[&["a/c", "a/b"]]));
        assert!(!in_order(&[&["b"], &["a"]]));
        assert!(!in_order(&[&["b"], &[], &["a"]]));
    }

    #[test]
    fn points_rise_by_either_order_and_lie_beyond_what_was_seen() {
        let rising = |seen: &Seen, points: &[&str]| -> Vec<String> {
            rising(points.iter().map(|name| key(name)), seen).iter().map(ToString::to_string).collect()
        };
        let mut seen = Seen::default();
        let names = ["w/a/1", "w/b", "w/b-c/1", "w/b/1", "w/a/-"];
        assert_eq!(rising(&seen, &names), ["w/a/1", "w/b", "w/b-c/1"]);
        seen.see(&[Listed { key: key("w/b/0"), size: crate::units::ByteCount::ZERO }]);
        assert_eq!(rising(&seen, &names), ["w/b/1"]);
    }
}
