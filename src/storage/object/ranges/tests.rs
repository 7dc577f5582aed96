//! Stores of every kind, without a network.

use super::*;
use crate::units::ByteCount;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn by_bytes(one: &Key, other: &Key) -> std::cmp::Ordering {
    one.cmp(other)
}

fn by_folder(one: &Key, other: &Key) -> std::cmp::Ordering {
    one.as_str().split('/').cmp(other.as_str().split('/'))
}

type Order = fn(&Key, &Key) -> std::cmp::Ordering;

/// What a store makes of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Points {
    After,
    /// As it should be, and the point itself.
    From,
    Ignored,
    /// By every second one of several servers.
    IgnoredNowAndThen,
    Refused,
}

/// When what fails.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Never,
    At(usize, StoreErrorKind),
    From(usize, StoreErrorKind),
}

struct Model {
    /// In the order in which they come.
    names: Vec<Key>,
    /// The order in which a point has a place.
    order: Order,
    points: Points,
    page: usize,
    fails: Fails,
    /// What a folder is said to hold besides, and whether it is said to hold what it does.
    folders: (Vec<String>, bool),
    /// The same page again and again from here on.
    circles_at: usize,
    pause: Duration,
    asked: Mutex<Vec<String>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    given_up: AtomicBool,
}

impl Model {
    fn new(mut names: Vec<Key>, order: Order, page: usize) -> Self {
        names.sort_by(order);
        names.dedup();
        Self {
            names,
            order,
            points: Points::After,
            page,
            fails: Fails::Never,
            folders: (Vec::new(), true),
            circles_at: usize::MAX,
            pause: Duration::ZERO,
            asked: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    fn ask<T>(&self, what: String, answer: impl FnOnce() -> T) -> Result<T, StoreError> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let this = {
            let mut asked = lock(&self.asked);
            asked.push(what.clone());
            asked.len() - 1
        };
        std::thread::sleep(self.pause);
        let failure = match self.fails {
            Fails::At(at, kind) if at == this => Some(kind),
            Fails::From(at, kind) if at <= this => Some(kind),
            _ => None,
        };
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match failure {
            Some(kind) => Err(StoreError { kind, what, source: None }),
            None => Ok(answer()),
        }
    }

    fn asked(&self) -> usize {
        lock(&self.asked).len()
    }

    /// The whole listing below `w`, and that no name came twice.
    fn listed(&self, plan: &Plan) -> (BTreeSet<Key>, Result<(), StoreError>) {
        seen_by(|each| list(self, &key("w"), plan, each))
    }

    fn listed_cut_at(&self, points: &[Key], streams: usize) -> (BTreeSet<Key>, Result<(), StoreError>) {
        let plan = Plan { streams, ..Plan::RANGES };
        let stream = Stream::new(Span::default(), Start::Beginning);
        seen_by(|each| list_cut_at(self, points.to_vec(), &plan, stream, each))
    }

    fn all(&self) -> BTreeSet<Key> {
        self.names.iter().cloned().collect()
    }
}

fn seen_by(
    list: impl FnOnce(&mut dyn FnMut(Listed)) -> Result<(), StoreError>,
) -> (BTreeSet<Key>, Result<(), StoreError>) {
    let mut seen = BTreeSet::new();
    let result = list(&mut |listed| assert!(seen.insert(listed.key.clone()), "{} came twice", listed.key));
    (seen, result)
}

impl Pager for Model {
    fn page(&self, start: &Start) -> Result<Page, StoreError> {
        let (at, point) = match start {
            Start::Beginning => (0, None),
            Start::Point(point) => (0, Some(point.clone())),
            Start::Token(token) => {
                let (at, point) = token.split_once('>').unwrap();
                (at.parse().unwrap(), Key::new(point).ok())
            }
        };
        let begins = matches!(start, Start::Point(_));
        let nth = lock(&self.asked).len();
        let point = point.filter(|_| match self.points {
            Points::Ignored => false,
            Points::IgnoredNowAndThen => !begins || nth.is_multiple_of(2),
            _ => true,
        });
        self.ask(format!("{start:?}"), || {
            let after = |name: &Key| match &point {
                None => true,
                Some(point) => {
                    let side = (self.order)(name, point);
                    side.is_gt() || (self.points == Points::From && side.is_eq())
                }
            };
            let mut left =
                (at..).zip(&self.names[at.min(self.names.len())..]).filter(|(_, name)| after(name));
            let page: Vec<_> = left.by_ref().take(self.page).collect();
            let next = left.next().map(|(at, _)| at);
            let next = if at >= self.circles_at { Some(at) } else { next };
            let token = |at| format!("{at}>{}", point.as_ref().map_or("", Key::as_str));
            Page {
                objects: page
                    .into_iter()
                    .map(|(_, name)| Listed { key: name.clone(), size: ByteCount::new(1) })
                    .collect(),
                next: next.map(token),
            }
        })
        .and_then(|page| match (begins, self.points) {
            (true, Points::Refused) => Err(StoreError {
                kind: StoreErrorKind::Unsupported,
                what: "a point".to_owned(),
                source: None,
            }),
            _ => Ok(page),
        })
    }

    fn folders(
        &self,
        folder: &Key,
        token: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), StoreError> {
        self.ask(format!("folders of {folder} from {token:?}"), || {
            let prefix = format!("{folder}/");
            let below =
                self.names.iter().filter_map(|name| name.as_str().strip_prefix(&prefix)?.split_once('/'));
            let truth: BTreeSet<String> = below.map(|(name, _)| name.to_owned()).collect();
            let all = truth.into_iter().filter(|_| self.folders.1).chain(self.folders.0.iter().cloned());
            let at: usize = token.map_or(0, |token| token.parse().unwrap());
            let mut left = all.skip(at);
            let page: Vec<_> = left.by_ref().take(self.page).collect();
            let next = left.next().map(|_| (at + self.page).to_string());
            (page, next)
        })
    }

    fn cannot_begin_at_points(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    fn endless(&self) -> StoreError {
        StoreError { kind: StoreErrorKind::Unavailable, what: "endless".to_owned(), source: None }
    }
}

/// Segments of a timeline, 256 to a folder, and what lies beside them.
fn wal(timeline: u32, segments: u32) -> Vec<Key> {
    let mut names = vec![key(&format!("w/{timeline:08X}.history"))];
    for segment in 0..segments {
        let (log, low) = (segment / 256, segment % 256);
        let folder = format!("w/{timeline:08X}/{log:08X}00000000");
        let name = format!("{timeline:08X}{log:08X}{low:08X}");
        names.push(key(&format!("{folder}/{name}")));
        if low == 7 {
            names.push(key(&format!("{folder}.index")));
            names.push(key(&format!("{folder}/{name}.tail/0-1-x")));
            names.push(key(&format!("{folder}/{name}.partial-0123456789abcdef")));
        }
    }
    names
}

/// Small, so that few names are a long listing.
const SMALL: Plan = Plan { alone: 1, streams: 4, ranges: 6, folders: 1, level_pages: 40 };

const KINDS: [Points; 5] =
    [Points::After, Points::From, Points::Ignored, Points::IgnoredNowAndThen, Points::Refused];

#[test]
fn what_is_short_costs_its_pages_and_nothing_else() {
    for (names, pages) in [(1, 1), (1000, 1), (1001, 2), (3000, 3)] {
        let names = (0..names).map(|i| key(&format!("w/00000001/{:016X}/{i:024X}", i / 256))).collect();
        let model = Model::new(names, by_bytes, 1000);
        let (seen, result) = model.listed(&Plan::RANGES);
        result.unwrap();
        assert_eq!((seen.len(), model.asked()), (model.names.len(), pages));
        assert_eq!(model.most_at_once.into_inner(), 1);
    }
    // Where one stream is asked for, no other is begun.
    let model = Model::new(wal(1, 3000), by_bytes, 100);
    assert_eq!(model.listed(&Plan::ONE_STREAM).0, model.all());
    assert_eq!(model.asked(), model.names.len().div_ceil(100));
}

#[test]
fn what_is_long_costs_its_pages_the_folders_and_a_page_for_each_range() {
    for order in [by_bytes as Order, by_folder] {
        for segments in [4_900, 20_000, 100_000] {
            let names: Vec<Key> = wal(2, segments).into_iter().chain(wal(1, segments / 10)).collect();
            let mut model = Model::new(names, order, 1000);
            model.pause = Duration::from_millis(1);
            let (seen, result) = model.listed(&Plan::RANGES);
            result.unwrap();
            assert_eq!(seen, model.all());
            let pages = model.names.len().div_ceil(1000);
            let folders = 1 + 2 + segments as usize / 256 / 1000;
            let ranges = 16.min(segments as usize / 256 / 8);
            assert!(model.asked() <= pages + folders + ranges, "{}: {pages}", model.asked());
            let at_once = model.most_at_once.into_inner();
            assert!(at_once <= 8 && (at_once > 4 || segments < 20_000), "{at_once}");
            assert!(!model.given_up.into_inner());
        }
    }
}

#[test]
fn ranges_are_about_equal() {
    let model = Model::new([wal(1, 9_000), wal(2, 60_000), wal(3, 5_000)].concat(), by_bytes, 1000);
    let mut seen = Seen::default();
    let first: Vec<_> = model
        .names
        .iter()
        .take(3000)
        .map(|name| Listed { key: name.clone(), size: ByteCount::ZERO })
        .collect();
    seen.see(&first);
    let points = points::find(&model, &key("w"), &Plan::RANGES, &seen);
    assert_eq!(points.len(), 15);
    let place = |point: &Key| model.names.partition_point(|name| name <= point);
    let places: Vec<_> =
        [3000].into_iter().chain(points.iter().map(place)).chain([model.names.len()]).collect();
    for range in places.windows(2) {
        let names = range[1] - range[0];
        assert!((3500..6500).contains(&names), "{places:?}");
    }
    // One level of timelines, and the folders of each that is not behind.
    assert_eq!(model.asked(), 4);
}

#[test]
fn a_listing_without_folders_is_not_asked_for_any() {
    let names = (0..9000).map(|i| key(&format!("w/{i:06}.1-started"))).collect();
    let model = Model::new(names, by_bytes, 1000);
    assert_eq!(model.listed(&Plan::RANGES).0.len(), 9000);
    assert_eq!(model.asked(), 9);
}

#[test]
fn what_is_said_of_folders_decides_nothing_but_the_balance() {
    let names = [wal(1, 700), wal(2, 900)].concat();
    let strange = ["-", "...", "zz", "00000002", "0", "no name!", "00000001"].map(str::to_owned);
    for order in [by_bytes as Order, by_folder] {
        for folders in [(Vec::new(), false), (strange.to_vec(), false), (strange.to_vec(), true)] {
            let mut model = Model::new(names.clone(), order, 30);
            model.folders = folders;
            let (seen, result) = model.listed(&SMALL);
            result.unwrap();
            assert_eq!(seen, model.all());
        }
    }
}

#[test]
fn a_store_that_does_not_begin_at_points_is_listed_all_the_same_and_not_asked_again() {
    // Even an object that is named as the points are.
    let points = (0..4).map(|log| key(&format!("w/00000002/{log:08X}00000000/-")));
    let names: Vec<Key> = [wal(1, 700), wal(2, 900)].concat().into_iter().chain(points).collect();
    for order in [by_bytes as Order, by_folder] {
        for points in KINDS {
            let mut model = Model::new(names.clone(), order, 50);
            model.points = points;
            let (seen, result) = model.listed(&SMALL);
            result.unwrap();
            assert_eq!(seen, model.all(), "{points:?}");
            let gives_up = !matches!(points, Points::After | Points::From);
            assert_eq!(model.given_up.into_inner(), gives_up, "{points:?}");
        }
    }
}

#[test]
fn a_store_that_keeps_no_order_is_not_cut() {
    let mut model = Model::new([wal(1, 700), wal(2, 900)].concat(), by_bytes, 50);
    let names = std::mem::take(&mut model.names);
    // Every seventh name first, and so on.
    model.names = (0..7).flat_map(|first| names.iter().skip(first).step_by(7).cloned()).collect();
    model.names.swap(3, 20);
    let (seen, result) = model.listed(&SMALL);
    result.unwrap();
    assert_eq!(seen, model.all());
    assert_eq!(model.asked(), model.names.len().div_ceil(50));
    // Where it shows only later, the ranges whose first page is not in order are not taken.
    model.names.sort();
    model.names[60..].reverse();
    assert_eq!(model.listed(&SMALL).0, model.all());
    assert!(model.given_up.into_inner());
}

/// Only one place is out of order, in the middle of a range: names of others stand there.
#[test]
fn once_a_store_was_out_of_order_every_stream_goes_on_to_its_end() {
    for streams in [1, 4] {
        let names: Vec<Key> = (0..1000).map(|i| key(&format!("w/{:02}/{i:03}", i / 100))).collect();
        let points: Vec<Key> = (2..10).map(|i| key(&format!("w/{i:02}/-"))).collect();
        let mut model = Model::new(names, by_bytes, 10);
        let strays: Vec<Key> = [950, 777, 333, 40].map(|at| model.names.remove(at)).into();
        model.names.splice(850..850, strays);
        let (seen, result) = model.listed_cut_at(&points, streams);
        result.unwrap();
        assert_eq!(seen, model.all(), "{streams}");
    }
}

#[test]
fn a_listing_that_goes_round_in_circles_ends_with_an_error() {
    for at in [0, 500, 1500] {
        let mut model = Model::new([wal(1, 700), wal(2, 900)].concat(), by_bytes, 50);
        model.circles_at = at;
        assert_eq!(model.listed(&SMALL).1.unwrap_err().what, "endless");
        assert_eq!(model.listed(&Plan::ONE_STREAM).1.unwrap_err().what, "endless");
    }
}

#[test]
fn a_listing_that_lost_a_page_is_an_error_or_complete_wherever_that_was() {
    let names = [wal(1, 500), wal(2, 500)].concat();
    let model = |fails| {
        let mut model = Model::new(names.clone(), by_folder, 40);
        model.fails = fails;
        model
    };
    let whole = model(Fails::Never);
    whole.listed(&SMALL).1.unwrap();
    let calls = whole.asked();
    assert!(calls > 20, "{calls}");
    for at in 0..calls {
        for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Denied] {
            let (seen, result) = model(Fails::At(at, kind)).listed(&SMALL);
            match result {
                Ok(()) => assert_eq!(seen, whole.all(), "{at}"),
                Err(error) => assert_eq!(error.kind, kind),
            }
            let dead = model(Fails::From(at, kind));
            let (seen, result) = dead.listed(&SMALL);
            match result {
                // Other paths may need fewer calls.
                Ok(()) => assert!(seen == whole.all() && dead.asked() <= at, "{at}"),
                Err(error) => assert_eq!(error.kind, kind),
            }
        }
    }
}

#[test]
fn who_is_told_of_names_may_panic() {
    let model = Model::new([wal(1, 700), wal(2, 900)].concat(), by_bytes, 50);
    let mut left = 400;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        list(&model, &key("w"), &SMALL, &mut |_| {
            left -= 1;
            assert!(left > 0, "enough");
        })
    }));
    assert!(panicked.is_err());
}

fn any_name() -> impl Strategy<Value = Key> {
    let part = prop::sample::select(vec!["-", "a", "a-", "a.", "a-b", "a0", "ab", "b", "b.x", "0", "..."]);
    prop::collection::vec(part, 1..5).prop_map(|parts| key(&format!("w/{}", parts.join("/"))))
}

proptest! {
    #[test]
    fn ranges_show_every_name_once_wherever_they_are_cut(
        names in prop::collection::btree_set(any_name(), 0..120),
        points in prop::collection::btree_set(any_name(), 0..12),
        page in 1_usize..20,
        folders in any::<bool>(),
        kind in 0..KINDS.len(),
        streams in 1_usize..5,
    ) {
        let order = if folders { by_folder as Order } else { by_bytes };
        let mut model = Model::new(names.into_iter().collect(), order, page);
        model.points = KINDS[kind];
        let points = points::rising(points, &Seen::default());
        let (seen, result) = model.listed_cut_at(&points, streams);
        prop_assert!(result.is_ok());
        prop_assert_eq!(seen, model.all());
    }

    #[test]
    fn a_listing_shows_every_name_once_whatever_the_plan(
        names in prop::collection::btree_set(any_name(), 0..200),
        lies in prop::collection::vec("[-.a-c0]{1,3}", 0..5),
        truth in any::<bool>(),
        page in 1_usize..20,
        folders in any::<bool>(),
        kind in 0..KINDS.len(),
        (alone, streams, ranges, per_range, level_pages) in (0_u32..4, 1_usize..5, 0_usize..9, 0_usize..4, 0_u32..20),
    ) {
        let order = if folders { by_folder as Order } else { by_bytes };
        let mut model = Model::new(names.into_iter().collect(), order, page);
        (model.points, model.folders) = (KINDS[kind], (lies, truth));
        let (seen, result) = model.listed(&Plan { alone, streams, ranges, folders: per_range, level_pages });
        prop_assert!(result.is_ok());
        prop_assert_eq!(seen, model.all());
    }
}
