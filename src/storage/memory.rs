//! A store in memory, for tests and models: the same contract, without the durability.

use super::gathered::Gathered;
use super::{Created, Folder, Key, Listed, Pending, Store, StoreError, StoreErrorKind};
use crate::units::ByteCount;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Objects = BTreeMap<Key, Arc<[u8]>>;

/// See the module. Clones share the objects.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store of its own that holds what this one holds now.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { objects: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// Every key, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.lock().keys().cloned().collect()
    }

    /// Puts `bytes` under `key` whatever is there: how a test damages what is stored.
    pub fn overwrite(&self, key: &Key, bytes: &[u8]) {
        self.lock().insert(key.clone(), bytes.into());
    }

    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Result<Arc<[u8]>, StoreError> {
        self.lock().get(key).cloned().ok_or_else(|| StoreError {
            kind: StoreErrorKind::NotFound,
            what: format!("could not read {key}"),
            source: Some("no such object".into()),
        })
    }

    /// The objects below `folder`, and what their keys say after it.
    fn below(&self, folder: Option<&Key>) -> Vec<(String, Listed)> {
        let prefix = folder.map(|folder| format!("{folder}/")).unwrap_or_default();
        // Keys that begin with "folder/" sort after "folder", though not right after it.
        let start = folder.map_or(Bound::Unbounded, Bound::Excluded);
        self.lock()
            .range::<Key, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| folder.is_none_or(|folder| key.as_str().starts_with(folder.as_str())))
            .filter_map(|(key, bytes)| {
                let rest = key.as_str().strip_prefix(&prefix)?;
                Some((rest.to_owned(), Listed { key: key.clone(), size: ByteCount::new(bytes.len() as u64) }))
            })
            .collect()
    }
}

fn slice(bytes: &[u8], range: Range<u64>) -> Vec<u8> {
    let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(clamp(range.start)..clamp(range.end)).unwrap_or_default().to_vec()
}

impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn gathers(&self) -> bool {
        true
    }

    fn create(&self, key: &Key, bytes: &[u8]) -> Result<Created, StoreError> {
        let mut objects = self.lock();
        match objects.get(key) {
            None => {
                objects.insert(key.clone(), bytes.into());
                Ok(Created::New)
            }
            Some(there) if **there == *bytes => Ok(Created::Same),
            Some(_) => Err(StoreError {
                kind: StoreErrorKind::Taken,
                what: format!("could not create {key}"),
                source: Some("the name is taken by other contents".into()),
            }),
        }
    }

    fn begin(&self, key: &Key) -> Result<Box<dyn Pending>, StoreError> {
        Ok(Box::new(Gathered::new(self.clone(), key.clone())))
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.get(key).map(|_| ())
    }

    fn read(&self, key: &Key, limit: ByteCount) -> Result<Vec<u8>, StoreError> {
        let bytes = self.get(key)?;
        if bytes.len() as u64 > limit.as_u64() {
            return Err(StoreError {
                kind: StoreErrorKind::Unsupported,
                what: format!("could not read {key}"),
                source: Some(format!("it is larger than the {} bytes allowed", limit.as_u64()).into()),
            });
        }
        Ok(bytes.to_vec())
    }

    fn read_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        Ok(slice(&self.get(key)?, range))
    }

    fn read_end(&self, key: &Key, length: u64) -> Result<(Vec<u8>, ByteCount), StoreError> {
        let bytes = self.get(key)?;
        let size = bytes.len() as u64;
        Ok((slice(&bytes, size.saturating_sub(length)..size), ByteCount::new(size)))
    }

    fn size(&self, key: &Key) -> Result<Option<ByteCount>, StoreError> {
        Ok(self.lock().get(key).map(|bytes| ByteCount::new(bytes.len() as u64)))
    }

    fn list(&self, folder: &Key, each: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        // Collected first: `each` may call this store.
        for (_, listed) in self.below(Some(folder)) {
            each(listed);
        }
        Ok(())
    }

    fn list_after(&self, folder: &Key, point: &Key) -> Result<Option<Vec<Listed>>, StoreError> {
        let below = self.below(Some(folder)).into_iter().map(|(_, listed)| listed);
        Ok(Some(below.filter(|listed| listed.key > *point).collect()))
    }

    fn folder(&self, folder: Option<&Key>) -> Result<Folder, StoreError> {
        let mut objects = Vec::new();
        let mut folders = BTreeSet::new();
        for (rest, listed) in self.below(folder) {
            match rest.split_once('/') {
                Some((name, _)) => {
                    folders.insert(name.to_owned());
                }
                None => objects.push(listed),
            }
        }
        Ok(Folder { objects, folders: folders.into_iter().collect() })
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }
}
