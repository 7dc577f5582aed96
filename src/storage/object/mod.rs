//! Object stores: S3, Azure Blob Storage, Google Cloud Storage.
//!
//! `object_store` signs, speaks the dialects and reads their XML; what it is given below is our own client
//! (`http`), and what it says is put into our terms (`trouble`); what it has no
//! call for is in `rules` and `azure`. An object is one PUT that succeeds only where
//! the name is free (`If-None-Match: *`); when the answer is that it is taken, what is there is read and compared,
//! because an earlier attempt of our own may have got through while its answer was lost.
//!
//! Blocking calls on top of a runtime that has no thread of its own: of the threads that wait for an answer one
//! drives the connections of all. So a short command starts no threads, and `n` uploads are `n` calls at once. A listing of
//! more than some pages is cut into ranges that are listed at once (`ranges`).

mod azure;
pub mod connect;
mod http;
mod ranges;
pub mod rules;
mod runtime;
pub mod spread;
pub mod trouble;

#[cfg(test)]
mod tests;

pub use connect::{
    Azure, AzureCredentials, Bucket, Gcs, GcsCredentials, S3, S3Credentials, S3Encryption, S3Key, Service,
};
pub use trouble::{Answer, Cause, NoAnswer, Trouble};

use super::gathered::Gathered;
use super::retry::{RetryPolicy, RetryStore};
use super::{Created, Folder, Key, LARGEST_GATHERED, Listed, Pending, Store, StoreError, StoreErrorKind};
use crate::units::ByteCount;
use bytes::Bytes;
use http::{Limit, Upload};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload,
};
use ranges::{MOST_PAGES, Page, Plan, Start};
use runtime::Runtime;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the three services have in common.
trait Backend: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Backend for T {}

/// What they do not.
enum Dialect {
    S3 { storage_class: Option<String>, asker: rules::Asker },
    Azure { deleter: azure::Deleter },
    Gcs,
}

/// A folder of a bucket. Clones share the connections.
#[derive(Clone)]
pub struct BucketStore {
    inner: Arc<Inner>,
}

struct Inner {
    // Before the runtime: its connections belong there.
    backend: Arc<dyn Backend>,
    runtime: Runtime,
    dialect: Dialect,
    /// With a `/` at the end, or empty.
    prefix: String,
    place: String,
    /// That the bucket exists has been seen.
    bucket_seen: AtomicBool,
    pages: RetryPolicy,
    /// How listings are cut, as long as the store begins where it is told to.
    plan: Plan,
    begins_at_points: AtomicBool,
    /// Names to a page; what the store gives for `None`.
    page_size: Option<usize>,
}

impl std::fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BucketStore({})", self.inner.place)
    }
}

impl BucketStore {
    fn new(
        backend: Arc<dyn Backend>,
        dialect: Dialect,
        folder: Option<Key>,
        place: String,
        pages: RetryPolicy,
    ) -> std::io::Result<Self> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        let plan = match dialect {
            Dialect::S3 { .. } | Dialect::Gcs => Plan::RANGES,
            // Only the newest servers know `startFrom`, and the others take no notice of it. A page has 5,000 names here.
            Dialect::Azure { .. } => Plan::ONE_STREAM,
        };
        let inner = Inner {
            backend,
            runtime: Runtime::new()?,
            dialect,
            prefix,
            place,
            bucket_seen: AtomicBool::new(false),
            pages,
            plan,
            begins_at_points: AtomicBool::new(true),
            page_size: None,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same with small pages, so that few names make a long listing.
    #[cfg(test)]
    fn with_pages_of(self, names: usize, plan: Plan) -> Self {
        let mut inner = Arc::into_inner(self.inner).expect("nobody else has it yet");
        (inner.page_size, inner.plan) = (Some(names), plan);
        Self { inner: Arc::new(inner) }
    }

    fn wait<T>(&self, work: impl Future<Output = object_store::Result<T>> + Send) -> Result<T, Trouble>
    where
        T: Send,
    {
        let answer = self.inner.runtime.wait(work);
        if answer.is_ok() {
            self.inner.bucket_seen.store(true, Ordering::Relaxed);
        }
        answer.map_err(Trouble::of)
    }

    fn path(&self, key: &Key) -> Path {
        // The parts of keys need no escaping, so this is the name itself.
        Path::from(format!("{}{key}", self.inner.prefix))
    }

    fn get(&self, key: &Key, limit: u64, range: Option<GetRange>) -> Result<(Vec<u8>, u64), Trouble> {
        let mut options = GetOptions { range, ..GetOptions::default() };
        options.extensions.insert(Limit(limit));
        let path = self.path(key);
        self.wait(async {
            let found: GetResult = self.inner.backend.get_opts(&path, options).await?;
            let size = found.meta.size;
            // Not copied: the bytes are all of a buffer that nobody else has.
            Ok((Vec::from(found.bytes().await?), size))
        })
    }

    fn find_size(&self, key: &Key) -> Result<Option<u64>, Trouble> {
        let path = self.path(key);
        match self.wait(self.inner.backend.head(&path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(trouble) => match trouble.cause() {
                Some(Cause::Absent) => Ok(None),
                // The answer to HEAD has no body that could say what is not there.
                Some(Cause::AbsentOrNoBucket) if self.inner.bucket_seen.load(Ordering::Relaxed) => Ok(None),
                Some(Cause::AbsentOrNoBucket) => match self.get(key, 1, Some(GetRange::Bounded(0..1))) {
                    Ok((_, size)) => Ok(Some(size)),
                    Err(trouble) => match trouble.cause() {
                        Some(Cause::Absent) => {
                            self.inner.bucket_seen.store(true, Ordering::Relaxed);
                            Ok(None)
                        }
                        Some(Cause::NoSuchRange) => Ok(Some(0)),
                        _ => Err(trouble),
                    },
                },
                _ => Err(trouble),
            },
        }
    }

    /// One page of names; with a delimiter one level of them.
    fn page(&self, prefix: &str, one_level: bool, from: &Start) -> Result<PaginatedListResult, Trouble> {
        let delimiter = one_level.then_some("/".into());
        // Where there is a token, the server knows where it began.
        let (offset, page_token) = match from {
            Start::Beginning => (None, None),
            Start::Point(point) => (Some(format!("{}{point}", self.inner.prefix)), None),
            Start::Token(token) => (None, Some(token.clone())),
        };
        let max_keys = self.inner.page_size;
        let options = PaginatedListOptions { offset, delimiter, max_keys, page_token, ..Default::default() };
        let prefix = (!prefix.is_empty()).then_some(prefix);
        self.wait(self.inner.backend.list_paginated(prefix, options))
    }

    fn below(&self, folder: Option<&Key>) -> String {
        match folder {
            Some(folder) => format!("{}{folder}/", self.inner.prefix),
            None => self.inner.prefix.clone(),
        }
    }

    /// The objects of a page below `folder` that are ours.
    fn objects(&self, folder: Option<&Key>, page: &mut PaginatedListResult) -> Vec<Listed> {
        let objects = std::mem::take(&mut page.result.objects).into_iter();
        let listed = objects.filter_map(|object| {
            // The folder itself, where a console left an object of its name.
            let key = self.key(&object.location).filter(|key| Some(key) != folder)?;
            Some(Listed { key, size: ByteCount::new(object.size) })
        });
        listed.collect()
    }

    /// The names of the folders that a page of one level shows.
    fn folders<'a>(&'a self, page: &'a PaginatedListResult) -> impl Iterator<Item = String> + 'a {
        let keys = page.result.common_prefixes.iter().filter_map(|below| self.key(below));
        keys.map(|key| key.file_name().to_owned())
    }

    /// The key of a name in the bucket, if it is one of ours.
    fn key(&self, path: &Path) -> Option<Key> {
        // What consoles leave where somebody "made a folder" is no key, nor is anything beside the folder.
        Key::new(path.as_ref().strip_prefix(&self.inner.prefix)?).ok()
    }
}

fn error(trouble: Trouble, what: String) -> StoreError {
    StoreError { kind: trouble.kind(), what, source: Some(Box::new(trouble)) }
}

/// A listing that finds nothing is empty, so a server that calls something absent means something else.
fn listing_error(trouble: Trouble, what: String) -> StoreError {
    let mut error = error(trouble, what);
    if error.kind == StoreErrorKind::NotFound {
        error.kind = StoreErrorKind::Denied;
    }
    error
}

fn could_not_list(folder: Option<&Key>) -> String {
    match folder {
        Some(folder) => format!("could not list {folder}"),
        None => "could not list the repository".to_owned(),
    }
}

fn endless(folder: Option<&Key>) -> StoreError {
    error(Trouble::Unexpected("the listing does not end".to_owned()), could_not_list(folder))
}

/// Asks for the pages of one listing.
struct Asking<'a> {
    store: &'a BucketStore,
    folder: &'a Key,
    prefix: String,
}

impl ranges::Pager for Asking<'_> {
    fn page(&self, from: &Start) -> Result<Page, StoreError> {
        let ask = || {
            let page = self.store.page(&self.prefix, false, from);
            page.map_err(|trouble| listing_error(trouble, could_not_list(Some(self.folder))))
        };
        // The whole call can be made again while it has shown nothing; after that only the page can.
        let mut page = if *from == Start::Beginning { ask()? } else { self.store.inner.pages.run(ask)? };
        Ok(Page { objects: self.store.objects(Some(self.folder), &mut page), next: page.page_token })
    }

    fn folders(
        &self,
        folder: &Key,
        token: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), StoreError> {
        let from = token.map_or(Start::Beginning, Start::Token);
        let page = self.store.page(&self.store.below(Some(folder)), true, &from);
        let page = page.map_err(|trouble| listing_error(trouble, could_not_list(Some(folder))))?;
        let names = self.store.folders(&page).collect();
        Ok((names, page.page_token))
    }

    fn cannot_begin_at_points(&self) {
        self.store.inner.begins_at_points.store(false, Ordering::Relaxed);
    }

    fn endless(&self) -> StoreError {
        endless(Some(self.folder))
    }
}

fn amount(bytes: usize) -> ByteCount {
    ByteCount::new(bytes as u64)
}

impl Store for BucketStore {
    fn describe(&self) -> String {
        self.inner.place.clone()
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        self.create_shared(key, &Bytes::copy_from_slice(bytes))
    }

    fn create_shared(&self, key: &Key, bytes: &Bytes) -> Result<Created, StoreError> {
        let what = || format!("could not create {key}");
        if amount(bytes.len()) > LARGEST_GATHERED {
            let (size, limit) = (bytes.len() as u64, LARGEST_GATHERED.as_u64());
            return Err(error(Trouble::TooLarge { size, limit }, what()));
        }
        let mut options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        options.extensions.insert(Upload(bytes.clone()));
        if let Dialect::S3 { storage_class: Some(class), .. } = &self.inner.dialect {
            options.attributes = Attributes::from_iter([(Attribute::StorageClass, class.clone())]);
        }
        let (path, payload) = (self.path(key), PutPayload::from(bytes.clone()));
        // COMMIT POINT of an object: the server makes it durable before it answers.
        let refused = match self.wait(self.inner.backend.put_opts(&path, payload, options)) {
            Ok(_) => return Ok(Created::New),
            Err(trouble) if trouble.cause() == Some(Cause::Taken) => trouble,
            Err(trouble) => {
                // A store has nothing to find when it creates.
                let mut error = error(trouble, what());
                if error.kind == StoreErrorKind::NotFound {
                    error.kind = StoreErrorKind::Denied;
                }
                return Err(error);
            }
        };
        // Taken, or (409) just being created: what is there decides.
        let taken = |source: Trouble| StoreError {
            kind: StoreErrorKind::Taken,
            what: format!("{key} is there already with other contents"),
            source: Some(Box::new(source)),
        };
        match self.get(key, bytes.len() as u64, None) {
            Ok((there, _)) if there == **bytes => Ok(Created::Same),
            Ok(_) | Err(Trouble::TooLarge { .. }) => Err(taken(refused)),
            // Nobody's after all: whoever was creating it did not. Trying again settles it.
            Err(trouble) if trouble.cause() == Some(Cause::Absent) => Err(StoreError {
                kind: StoreErrorKind::Unavailable,
                what: what(),
                source: Some(Box::new(refused)),
            }),
            Err(trouble) => Err(error(trouble, what())),
        }
    }

    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        Ok(Box::new(Gathered::new(self.clone(), key.clone())))
    }

    fn gathers(&self) -> bool {
        true
    }

    fn make_durable(&self, _: &Key) -> Result<(), StoreError> {
        Ok(())
    }

    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        match self.get(key, limit.as_u64(), None) {
            Ok((bytes, _)) => Ok(bytes),
            Err(trouble) => Err(error(trouble, format!("could not read {key}"))),
        }
    }

    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let what = || format!("could not read {key}");
        let start = range.start;
        let length = range.end.saturating_sub(start);
        if length == 0 {
            // Nothing of an object that is not there is an error all the same.
            return match self.find_size(key) {
                Ok(Some(_)) => Ok(Vec::new()),
                Ok(None) => Err(StoreError { kind: StoreErrorKind::NotFound, what: what(), source: None }),
                Err(trouble) => Err(error(trouble, what())),
            };
        }
        // Servers keep positions in signed numbers.
        let asked = match i64::try_from(range.end) {
            Ok(_) => GetRange::Bounded(range),
            Err(_) if i64::try_from(start).is_ok() => GetRange::Offset(start),
            Err(_) => return self.read_range(key, 0..0),
        };
        match self.get(key, length.min(LARGEST_GATHERED.as_u64()), Some(asked)) {
            Ok((bytes, _)) => Ok(bytes),
            Err(trouble) if trouble.cause() == Some(Cause::NoSuchRange) => Ok(Vec::new()),
            // Some servers answer a range behind the end with one that is not what was asked for.
            Err(trouble @ Trouble::Unexpected(_)) => match self.find_size(key) {
                Ok(Some(size)) if size <= start => Ok(Vec::new()),
                _ => Err(error(trouble, what())),
            },
            Err(trouble) => Err(error(trouble, what())),
        }
    }

    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        let what = || format!("could not read {key}");
        let length = length.min(LARGEST_GATHERED.as_u64());
        if length > 0 && !matches!(self.inner.dialect, Dialect::Azure { .. }) {
            match self.get(key, length, Some(GetRange::Suffix(length))) {
                Ok((bytes, size)) => return Ok((bytes, ByteCount::new(size))),
                // An empty object has no end.
                Err(trouble) if trouble.cause() == Some(Cause::NoSuchRange) => {}
                Err(trouble) => return Err(error(trouble, what())),
            }
        }
        // Azure reads from a position only, so the size comes first.
        match self.find_size(key) {
            Ok(Some(size)) if length == 0 || size == 0 => Ok((Vec::new(), ByteCount::new(size))),
            Ok(Some(size)) => {
                let bytes = self.read_range(key, size.saturating_sub(length)..size)?;
                Ok((bytes, ByteCount::new(size)))
            }
            Ok(None) => Err(StoreError { kind: StoreErrorKind::NotFound, what: what(), source: None }),
            Err(trouble) => Err(error(trouble, what())),
        }
    }

    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        match self.find_size(key) {
            Ok(size) => Ok(size.map(ByteCount::new)),
            Err(trouble) => Err(error(trouble, format!("could not find out the size of {key}"))),
        }
    }

    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        let plan = match self.inner.begins_at_points.load(Ordering::Relaxed) {
            true => self.inner.plan,
            false => Plan::ONE_STREAM,
        };
        ranges::list(&Asking { store: self, folder, prefix: self.below(Some(folder)) }, folder, &plan, each)
    }

    fn list_after(&self, folder: &Key, point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
        if self.inner.plan.alone == Plan::ONE_STREAM.alone {
            return Ok(None);
        }
        let mut page = self
            .page(&self.below(Some(folder)), false, &Start::Point(point.clone()))
            .map_err(|trouble| listing_error(trouble, format!("could not list {folder} from {point} on")))?;
        Ok(Some(self.objects(Some(folder), &mut page)))
    }

    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        let mut found = Folder::default();
        let prefix = self.below(folder);
        let mut from = Start::Beginning;
        for _ in 0..MOST_PAGES {
            let ask =
                || self.page(&prefix, true, &from).map_err(|t| listing_error(t, could_not_list(folder)));
            // The whole call is made again while it has shown nothing; after that only the page is.
            let mut page = if from == Start::Beginning { ask()? } else { self.inner.pages.run(ask)? };
            found.objects.extend(self.objects(folder, &mut page));
            found.folders.extend(self.folders(&page));
            let next = page.page_token.take().map(Start::Token);
            match next {
                None => {
                    // Some servers name a folder on each page that it reaches into.
                    found.folders.sort_unstable();
                    found.folders.dedup();
                    return Ok(found);
                }
                Some(next) if next == from => break,
                Some(next) => from = next,
            }
        }
        Err(endless(folder))
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key);
        let answer = match &self.inner.dialect {
            Dialect::Azure { deleter } => self.wait(deleter.delete(&path)),
            Dialect::S3 { .. } | Dialect::Gcs => self.wait(self.inner.backend.delete(&path)),
        };
        match answer {
            Err(trouble) if trouble.cause() == Some(Cause::Absent) => Ok(()),
            Err(trouble) if trouble.cause() == Some(Cause::AbsentOrNoBucket) => match self.find_size(key) {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(listing_error(trouble, format!("could not delete {key}"))),
                Err(trouble) => Err(error(trouble, format!("could not delete {key}"))),
            },
            Err(trouble) => Err(listing_error(trouble, format!("could not delete {key}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// What callers use: `bucket` with what may help tried again.
#[must_use]
pub fn tried_again(store: BucketStore, policy: RetryPolicy) -> RetryStore<BucketStore> {
    RetryStore::new(store, policy)
}
