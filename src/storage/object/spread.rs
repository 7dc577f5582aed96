//! One store by all the addresses of its name, each call by the next.
//!
//! What a service promises must hold whichever of its machines is asked: a probe that talks to one of them only
//! would not see that they do not agree.

use super::BucketStore;
use crate::storage::gathered::Gathered;
use crate::storage::{Created, Folder, Key, Listed, Pending, Store, StoreError};
use crate::units::ByteCount;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module. Clones take turns together.
#[derive(Clone)]
pub struct Spread {
    stores: Arc<[BucketStore]>,
    turn: Arc<AtomicUsize>,
}

impl Spread {
    /// The stores that answer, of `stores`, which are one store by other ways. (A name may have an address that
    /// nobody listens at; then clients pass on to the next, and so it is nobody's.)
    ///
    /// # Errors
    /// When none answers: that of the first.
    pub fn over(stores: Vec<BucketStore>, looked_at: &Key) -> Result<Self, StoreError> {
        let mut first_error = None;
        let mut answering = Vec::with_capacity(stores.len());
        for store in stores {
            match store.size(looked_at) {
                Ok(_) => answering.push(store),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if answering.is_empty() => Err(error),
            _ => Ok(Self { stores: answering.into(), turn: Arc::default() }),
        }
    }

    /// How many ways there are.
    #[must_use]
    pub fn ways(&self) -> usize {
        self.stores.len()
    }

    fn next(&self) -> &BucketStore {
        &self.stores[self.turn.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

impl Store for Spread {
    fn describe(&self) -> String {
        self.next().describe()
    }
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        self.next().create(key, bytes)
    }
    fn create_shared(&self, key: &Key, bytes: &Bytes) -> Result<Created, StoreError> {
        self.next().create_shared(key, bytes)
    }
    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        Ok(Box::new(Gathered::new(self.clone(), key.clone())))
    }
    fn gathers(&self) -> bool {
        true
    }
    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.next().make_durable(key)
    }
    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        self.next().read(key, limit)
    }
    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.next().read_range(key, range)
    }
    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        self.next().read_end(key, length)
    }
    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        self.next().size(key)
    }
    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.next().list(folder, each)
    }
    fn list_after(&self, folder: &Key, point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
        self.next().list_after(folder, point)
    }
    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        self.next().folder(folder)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.next().delete(key)
    }
}
