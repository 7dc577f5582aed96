//! Where objects are kept: one trait, blocking, with create-only writes.
//!
//! A store knows keys and bytes; it knows nothing of what they mean. Blocking on purpose: `archive-push`
//! and `archive-get` to a filesystem need no runtime, and engines call stores from worker threads.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crashes;
pub mod faulty;
pub mod gathered;
pub mod memory;
pub mod object;
pub mod posix;
mod posix_read;
pub mod probe;
pub mod retry;

use crate::units::ByteCount;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;

/// The longest key a store must take, in bytes.
pub const LONGEST_KEY: usize = 512;

/// The longest part of a key between two `/`, in bytes: what file systems allow.
pub const LONGEST_PART: usize = 255;

/// The largest object of a store that keeps objects in memory until they are written: the repository's own limit of
/// 64 MiB of payload, and room for what frames it.
pub const LARGEST_GATHERED: ByteCount = ByteCount::mib(80);

/// The name of an object: relative, `/` between parts, no empty part, no `.` or `..`, no part that begins
/// with the stores' own prefix for temporary names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Names that begin with this belong to the stores themselves and are never listed.
pub const OWN_PREFIX: &str = ".walden-";

impl Key {
    /// The key of this name.
    ///
    /// # Errors
    /// When a store could take the name for something else: see the type.
    pub fn new(name: impl Into<String>) -> Result<Self, NotAKey> {
        let name = name.into();
        let part_fits = |part: &str| {
            !matches!(part, "" | "." | "..")
                && !part.starts_with(OWN_PREFIX)
                && part.len() <= LONGEST_PART
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if name.len() <= LONGEST_KEY && name.split('/').all(part_fits) {
            Ok(Self(name))
        } else {
            Err(NotAKey(name))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part of the name.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

/// The text cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAKey(String);

impl fmt::Display for NotAKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" cannot be the name of a stored object", self.0)
    }
}

impl std::error::Error for NotAKey {}

/// What a listing says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The whole key.
    pub key: Key,
    /// Stored bytes.
    pub size: ByteCount,
}

/// One level of a listing: the objects of a folder and the names of the folders in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Objects directly in the folder, in no particular order.
    pub objects: Vec<Listed>,
    /// Last parts of the names of folders that hold at least one object somewhere below, in no particular order.
    /// (A filesystem may name empty folders too.)
    pub folders: Vec<String>,
}

/// What came of a [`Store::create`] or [`Pending::commit`] that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was not there and is now, durably, with these bytes.
    New,
    /// The object was there, durably, with exactly these bytes: an earlier attempt of ours got through.
    Same,
}

/// Why a store could not do what was asked.
#[derive(Debug)]
pub struct StoreError {
    /// What kind of trouble, which decides whether to try again.
    pub kind: StoreErrorKind,
    /// What was being done to which object, for people: `could not create shop/wal/…`.
    pub what: String,
    /// What the system or the server said.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of trouble that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// There is no such object. (For a read; a delete of nothing succeeds.)
    NotFound,
    /// The name is taken by other bytes. Nothing was changed.
    Taken,
    /// The store did not answer, or said that it cannot just now: trying again may help. A write may or may
    /// not have happened.
    Unavailable,
    /// The store refuses these credentials, or the file system these rights.
    Denied,
    /// No space is left.
    Full,
    /// The store can never do this (it has no atomic create, the object is larger than allowed, …).
    Unsupported,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

/// An object that is being written piece by piece. Dropped without [`Pending::commit`], nothing of it shows.
pub trait Pending: Send {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// As [`Store::create`]; afterwards every further call fails too.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes the object exist: the same contract as [`Store::create`].
    ///
    /// # Errors
    /// As [`Store::create`].
    fn commit(self: Box<Self>) -> Result<Created, StoreError>;
}

/// A place that keeps objects.
pub trait Store: Send + Sync {
    /// The place in a person's words, without secrets: `/var/lib/walden`, `s3://shop-backups`.
    fn describe(&self) -> String;

    /// Makes `key` an object of these `bytes`, whole and durable, if and only if the name is free.
    ///
    /// After `Ok(New | Same)` the object survives power loss. After `Err(Taken)` the object is what it was.
    /// After any other `Err`, or a crash, it is absent or complete, never a part; calling again with the
    /// same bytes is safe and settles which. Two racing creates of one key: exactly one gets `New`.
    ///
    /// # Errors
    /// [`StoreErrorKind::Taken`] when other bytes stand under the name; otherwise why it could not be done.
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError>;

    /// [`Store::create`] of bytes that a store may keep a share of while it sends them, so that they need not be
    /// copied.
    ///
    /// # Errors
    /// As [`Store::create`].
    fn create_shared(&self, key: &Key, bytes: &Bytes) -> Result<Created, StoreError> {
        self.create(key, bytes)
    }

    /// Begins an object that is written piece by piece and shows only when committed. A filesystem writes to
    /// a temporary file as it goes; an object store keeps up to the object limit in memory.
    ///
    /// # Errors
    /// As [`Store::create`], but never `Taken`.
    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError>;

    /// Makes sure that the object that stands under `key` survives power loss. Needed where an equal object
    /// of other bytes was found: whoever made it may have died between naming and syncing it, and its
    /// existence is about to be reported as success. Object stores have nothing to do here.
    ///
    /// # Errors
    /// `NotFound` when there is none (a store may also not look); otherwise why it could not be made sure of.
    fn make_durable(&self, key: &Key) -> Result<(), StoreError>;

    /// Whether [`Store::begin`] keeps the object in memory until it is committed. Then whoever wraps the
    /// store may keep it instead, and repeat the commit ([`gathered::Gathered`]).
    fn gathers(&self) -> bool {
        false
    }

    /// Bytes that can still be stored, where the store can tell; a hint, for refusing early.
    fn free_space(&self) -> Option<ByteCount> {
        None
    }

    /// The whole object.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` when it is larger than `limit`; otherwise why it could not be read.
    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError>;

    /// The bytes of `range`, fewer only where the object ends before it.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError>;

    /// The last `length` bytes (all of a shorter object), and the object's whole size.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError>;

    /// The object's size, `None` when there is none.
    ///
    /// # Errors
    /// When it could not be found out.
    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError>;

    /// Every object whose key begins with `folder` + `/`, in no particular order, given to `each` as they
    /// come. Shows at least all that existed before the call and was not deleted during it.
    ///
    /// # Errors
    /// When the listing is not complete; what `each` saw by then is a part of it. A folder that does not
    /// exist is an empty listing.
    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError>;

    /// The first names of the same that come after `point`, a name below `folder`, as they come; `None` where a listing is never
    /// asked to begin at a point. What a long listing may be cut by; only [`probe`] asks for it.
    ///
    /// # Errors
    /// As [`Store::list`].
    fn list_after(&self, _folder: &Key, _point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
        Ok(None)
    }

    /// One level of [`Store::list`]; `None` for the top of the repository.
    ///
    /// # Errors
    /// As [`Store::list`].
    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError>;

    /// Removes an object; absent is fine. Not durable at once: after power loss it may be there again, so
    /// what must not be found again must be known as deleted by other means.
    ///
    /// # Errors
    /// When it could not be removed.
    fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Removes what killed processes left of objects that they never finished, and says how many those were.
    /// Nothing that a living process writes is touched, and no object.
    ///
    /// # Errors
    /// When it could not be looked for.
    fn remove_leftovers(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        (**self).create(key, bytes)
    }
    fn create_shared(&self, key: &Key, bytes: &Bytes) -> Result<Created, StoreError> {
        (**self).create_shared(key, bytes)
    }
    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        (**self).begin(key)
    }
    fn gathers(&self) -> bool {
        (**self).gathers()
    }
    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        (**self).make_durable(key)
    }
    fn free_space(&self) -> Option<ByteCount> {
        (**self).free_space()
    }
    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        (**self).read(key, limit)
    }
    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        (**self).read_range(key, range)
    }
    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        (**self).read_end(key, length)
    }
    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        (**self).size(key)
    }
    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        (**self).list(folder, each)
    }
    fn list_after(&self, folder: &Key, point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
        (**self).list_after(folder, point)
    }
    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        (**self).folder(folder)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        (**self).delete(key)
    }
    fn remove_leftovers(&self) -> Result<u64, StoreError> {
        (**self).remove_leftovers()
    }
}
