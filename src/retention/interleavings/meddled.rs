//! A store that lets a test act at one moment.

use crate::storage::gathered::Gathered;
use crate::storage::memory::MemoryStore;
use crate::storage::{Created, Folder, Key, Listed, Pending, Store, StoreError};
use crate::units::ByteCount;
use std::ops::Range;
use std::sync::Arc;

/// Calls `before_create` right before an object is created through it.
#[derive(Clone)]
pub struct Meddled {
    pub memory: MemoryStore,
    pub before_create: Arc<dyn Fn(&Key) + Send + Sync>,
}

impl Store for Meddled {
    fn describe(&self) -> String {
        self.memory.describe()
    }
    fn gathers(&self) -> bool {
        true
    }
    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        (self.before_create)(key);
        self.memory.create(key, bytes)
    }
    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        Ok(Box::new(Gathered::new(self.clone(), key.clone())))
    }
    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.memory.make_durable(key)
    }
    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        self.memory.read(key, limit)
    }
    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        self.memory.read_range(key, range)
    }
    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        self.memory.read_end(key, length)
    }
    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        self.memory.size(key)
    }
    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.memory.list(folder, each)
    }
    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        self.memory.folder(folder)
    }
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.memory.delete(key)
    }
}
