//! A [`Pending`] that keeps the object in memory.

use super::{Created, Key, LARGEST_GATHERED, Pending, Store, StoreError, StoreErrorKind};
use bytes::Bytes;

/// What grows beyond this gets room at once for as much as [`ROOM`], and beyond that for the largest object. Room that is
/// not used costs no memory, only addresses; doubling would copy megabytes time and again and leave the allocator with
/// holes between the packs that are under way.
const SMALL: usize = 1 << 20;
/// Larger than a pack usually is, and larger than what the C library ever carves out of a heap: it goes back as soon as
/// it is freed.
const ROOM: usize = 33 << 20;

/// Gathers the pieces of an object in memory and creates it in one call, for stores that have no other way.
pub struct Gathered<S> {
    store: S,
    key: Key,
    bytes: Vec<u8>,
}

impl<S: Store> Gathered<S> {
    /// An empty object that will be `key` of `store`.
    #[must_use]
    pub fn new(store: S, key: Key) -> Self {
        Self { store, key, bytes: Vec::new() }
    }
}

impl<S: Store> Pending for Gathered<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if (self.bytes.len() + bytes.len()) as u64 > LARGEST_GATHERED.as_u64() {
            return Err(StoreError {
                kind: StoreErrorKind::Unsupported,
                what: format!("could not create {}", self.key),
                source: Some(format!("it would be larger than {LARGEST_GATHERED}").into()),
            });
        }
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() && needed > SMALL {
            let room = if needed > ROOM { LARGEST_GATHERED.as_u64() as usize } else { ROOM };
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<Created, StoreError> {
        self.store.create_shared(&self.key, &Bytes::from(self.bytes))
    }
}
