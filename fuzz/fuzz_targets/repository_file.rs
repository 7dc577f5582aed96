//! `walden.json` and wrapped keys of any bytes, and names of any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use walden::repo::Repository;
use walden::repo::keys::Secret;
use walden::repo::layout::{catalog_name, wal_entry};
use walden::storage::memory::MemoryStore;
use walden::storage::{Key, Store};

fuzz_target!(|bytes: &[u8]| {
    let store = MemoryStore::default();
    let (file, wrap) = bytes.split_at(bytes.len() / 2);
    let _ = store.create(&Key::new("walden.json").unwrap(), file);
    let _ = store.create(&Key::new("keys/a/b").unwrap(), wrap);
    let _ = Repository::open(Arc::new(store), &|| Secret::parse("words").map(Some));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (Secret::parse(text), catalog_name(text), wal_entry(text));
    }
});
