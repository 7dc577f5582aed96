//! A long listing in several ranges at once.
//!
//! Pages of a listing come one after the other, and each costs a way to the server and back. What is short is listed so. What
//! goes on after some pages is cut at points (`points`), and each range between two points is listed in a stream of
//! its own, from its point on, until its names are past the next.
//!
//! The ranges cover all names from the beginning to the end wherever the points are: a stream begins at its point and not at
//! the first folder that was seen, the first has no beginning and the last has no end. So wrong points cost only balance.
//!
//! What a store must do for it is watched, page by page, before anything of the page is shown:
//!
//! * It lists from the point that it is given. Where names before it come, the range is dropped and the stream before it goes
//!   on over it.
//! * It lists in one of two orders (see `points`). A name whose range depends on which is shown by whichever stream meets
//!   it first. Where names come in neither, nothing is cut; where that shows only later, no stream ends at a point any more, and those
//!   that did go on to the store's end.

mod points;
#[cfg(test)]
mod tests;

use crate::storage::{Key, Listed, StoreError, StoreErrorKind};
use points::{Place, Seen, Span};
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A listing that has not ended after so many pages (of 1,000 names) goes round in circles.
pub(super) const MOST_PAGES: u32 = 1_000_000;

/// How a listing is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Pages that come before anything is cut: of a listing that ends with them nothing is won.
    pub alone: u32,
    /// Streams at once.
    pub streams: usize,
    /// Ranges at most: more than streams, so that a range that is longer than it seemed does not go on alone.
    pub ranges: usize,
    /// Folders of a range at least.
    pub folders: usize,
    /// Pages that may be spent on finding folders.
    pub level_pages: u32,
}

impl Plan {
    /// For pages of 1,000 names and folders of 256 segments: a range is two pages at least.
    pub(super) const RANGES: Self = Self { alone: 3, streams: 8, ranges: 16, folders: 8, level_pages: 32 };
    /// For stores that cannot be asked to begin at a point.
    pub(super) const ONE_STREAM: Self = Self { alone: MOST_PAGES, ..Self::RANGES };
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Beginning,
    /// After this name.
    Point(Key),
    /// Where the page ended that gave this.
    Token(String),
}

/// Some names, and where the next page begins.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub objects: Vec<Listed>,
    pub next: Option<String>,
}

/// Asks the store. Pages that fail are asked for again below this, as far as that may help.
pub(super) trait Pager: Sync {
    /// One page of what is listed.
    fn page(&self, from: &Start) -> Result<Page, StoreError>;

    /// One page of the names of the folders in `folder`, and what gives the next.
    fn folders(
        &self,
        folder: &Key,
        token: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), StoreError>;

    /// The store does not begin at the point that it is given, so it need not be tried again.
    fn cannot_begin_at_points(&self);

    /// What to say of a listing that goes round in circles.
    fn endless(&self) -> StoreError;
}

/// Gives every name to `each` that the pages show, once.
///
/// # Errors
/// Those of the pager; what `each` saw by then is a part of the listing.
pub(super) fn list(
    pager: &dyn Pager,
    folder: &Key,
    plan: &Plan,
    each: &mut dyn FnMut(Listed),
) -> Result<(), StoreError> {
    let mut stream = Stream::new(Span::default(), Start::Beginning);
    for _ in 0..plan.alone {
        let Some(page) = stream.next(pager)? else { return Ok(()) };
        page.into_iter().for_each(&mut *each);
    }
    let points = match stream.ended() || !stream.seen.in_order() {
        true => Vec::new(),
        false => points::find(pager, folder, plan, &stream.seen),
    };
    list_cut_at(pager, points, plan, stream, each)
}

/// What is left of `stream`, cut at `points`, which are beyond what it has shown.
fn list_cut_at(
    pager: &dyn Pager,
    points: Vec<Key>,
    plan: &Plan,
    mut stream: Stream,
    each: &mut dyn FnMut(Listed),
) -> Result<(), StoreError> {
    let mut streams = Vec::with_capacity(points.len() + 1);
    let heads = side_by_side(plan.streams, &points, |point| Stream::begun_at(point, pager));
    for (point, head) in points.into_iter().zip(heads) {
        if let Some(next) = head? {
            stream.span.end = Some(point);
            streams.push(std::mem::replace(&mut stream, next));
        }
    }
    streams.push(stream);
    if let [alone] = streams.as_mut_slice() {
        while let Some(page) = alone.next(pager)? {
            page.into_iter().for_each(&mut *each);
        }
        return Ok(());
    }
    // Few: they differ from a point in a `/` alone.
    let mut on_edges = HashSet::new();
    let mut show = |batch: Batch| {
        batch.inside.into_iter().for_each(&mut *each);
        batch
            .on_an_edge
            .into_iter()
            .filter(|listed| on_edges.insert(listed.key.clone()))
            .for_each(&mut *each);
    };
    let disorder = AtomicBool::new(false);
    let stopped = follow_all(pager, plan.streams, streams, &disorder, &mut show)?;
    if disorder.load(Ordering::Relaxed) {
        follow_all(pager, plan.streams, stopped, &disorder, &mut show)?;
    }
    Ok(())
}

/// One listing that is under way, and what of it counts.
struct Stream {
    span: Span,
    /// A page that is here already.
    head: Option<Vec<Listed>>,
    /// Where the next page begins; `None` when there is none.
    next: Option<Start>,
    seen: Seen,
    pages: u32,
}

impl Stream {
    fn new(span: Span, from: Start) -> Self {
        Self { span, head: None, next: Some(from), seen: Seen::default(), pages: 0 }
    }

    /// The stream from `point` to the end, with its first page; `None` where the store cannot begin there.
    fn begun_at(point: &Key, pager: &dyn Pager) -> Result<Option<Self>, StoreError> {
        let span = Span { after: Some(point.clone()), end: None };
        let mut stream = Self::new(span, Start::Point(point.clone()));
        let page = match stream.next(pager) {
            Ok(page) => page.unwrap_or_default(),
            Err(error) if error.kind == StoreErrorKind::Unavailable => return Err(error),
            // If it refuses more than the point, it says so to the stream before, too.
            Err(_) => {
                pager.cannot_begin_at_points();
                return Ok(None);
            }
        };
        if page.iter().any(|listed| stream.is_astray(&listed.key)) || !stream.seen.in_order() {
            pager.cannot_begin_at_points();
            return Ok(None);
        }
        // It is looked at once more, as a page of the stream.
        stream.seen = Seen::default();
        stream.head = Some(page);
        Ok(Some(stream))
    }

    /// Whether a name is before the stream's beginning. (A store may show the point itself.)
    fn is_astray(&self, key: &Key) -> bool {
        self.span.place(key) == Place::Before && self.span.after.as_ref() != Some(key)
    }

    fn ended(&self) -> bool {
        self.head.is_none() && self.next.is_none()
    }

    fn next(&mut self, pager: &dyn Pager) -> Result<Option<Vec<Listed>>, StoreError> {
        let page = match (self.head.take(), &self.next) {
            (Some(head), _) => head,
            (None, None) => return Ok(None),
            (None, Some(_)) if self.pages == MOST_PAGES => return Err(pager.endless()),
            (None, Some(from)) => {
                let page = pager.page(from)?;
                let next = page.next.map(Start::Token);
                if next.is_some() && next == self.next {
                    return Err(pager.endless());
                }
                self.next = next;
                self.pages += 1;
                page.objects
            }
        };
        self.seen.see(&page);
        Ok(Some(page))
    }

    /// Gives what counts of each page to `give`, until that wants no more, or the names are past the stream's end and the store
    /// keeps an order.
    fn follow(
        &mut self,
        pager: &dyn Pager,
        disorder: &AtomicBool,
        give: &mut dyn FnMut(Batch) -> bool,
    ) -> Result<(), StoreError> {
        while let Some(page) = self.next(pager)? {
            let (mut past, mut astray) = (false, false);
            let mut batch = Batch::default();
            for listed in page {
                match self.span.place(&listed.key) {
                    Place::Inside => batch.inside.push(listed),
                    Place::Edge => batch.on_an_edge.push(listed),
                    Place::Before => astray |= self.is_astray(&listed.key),
                    Place::After => past = true,
                }
            }
            if astray || !self.seen.in_order() {
                disorder.store(true, Ordering::Relaxed);
            }
            if !give(batch) || (past && !disorder.load(Ordering::Relaxed)) {
                break;
            }
        }
        Ok(())
    }
}

/// What of a page belongs to its stream.
#[derive(Default)]
struct Batch {
    inside: Vec<Listed>,
    /// What another stream may show, too.
    on_an_edge: Vec<Listed>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows `streams`, so many at once, and gives back those that ended before the store did.
///
/// # Errors
/// The first; the other streams end with their next page.
fn follow_all(
    pager: &dyn Pager,
    at_once: usize,
    streams: Vec<Stream>,
    disorder: &AtomicBool,
    show: &mut dyn FnMut(Batch),
) -> Result<Vec<Stream>, StoreError> {
    let workers = at_once.min(streams.len());
    let (queue, stopped) = (Mutex::new(VecDeque::from(streams)), Mutex::new(Vec::new()));
    let (failed, failure) = (AtomicBool::new(false), Mutex::new(None));
    let work = |give: &mut dyn FnMut(Batch) -> bool| {
        while !failed.load(Ordering::Relaxed) {
            let Some(mut stream) = lock(&queue).pop_front() else { return };
            let mut give = |batch| {
                let wanted = !failed.load(Ordering::Relaxed) && give(batch);
                failed.fetch_or(!wanted, Ordering::Relaxed);
                wanted
            };
            match stream.follow(pager, disorder, &mut give) {
                Ok(()) if stream.ended() => {}
                Ok(()) => lock(&stopped).push(stream),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // A page for each that waits; as many more are under way.
        let (sender, receiver) = sync_channel(workers);
        let mut started = false;
        for _ in 0..workers {
            let (sender, work) = (sender.clone(), &work);
            let thread = std::thread::Builder::new().name("list".to_owned());
            started |=
                thread.spawn_scoped(scope, move || work(&mut |batch| sender.send(batch).is_ok())).is_ok();
        }
        drop(sender);
        if started {
            receiver.into_iter().for_each(&mut *show);
        } else {
            work(&mut |batch| {
                show(batch);
                true
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(stopped.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// What comes of `work` on each of `jobs`, in their order, with so many under way at once.
fn side_by_side<T: Sync, R: Send>(at_once: usize, jobs: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<R>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let run = || {
        while let Some((job, done)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            jobs.get(at).zip(done.get(at))
        } {
            *lock(done) = Some(work(job));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once.min(jobs.len()) {
            // Where no thread can be had, those that are there do it all.
            let _ = std::thread::Builder::new().name("list".to_owned()).spawn_scoped(scope, run);
        }
        run();
    });
    done.into_iter().filter_map(|done| done.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}
