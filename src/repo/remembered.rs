//! What the opening of a repository leaves behind on its host for the next one: a cache, and no part of the format.
//!
//! `archive-push` and `archive-get` open a repository for each segment. A passphrase would cost them Argon2 each time,
//! and a bucket a request for each wrap. Objects never change, so what an opening fetched and derived may be kept.
//!
//! # What is asked for anew each time, and why
//! * `walden.json`. A repository that was deleted and made again at the same place has another id and other keys; with
//!   an old `walden.json` a push would seal for a repository that is no more. Its bytes are what everything kept here is
//!   bound to, so after that nothing of this is used.
//! * The listing of `keys/`. A wrap never changes, but one may come or go: with an old listing, a host would go on to
//!   seal with a master that was replaced because it leaked, and would not find the master of what others wrote.
//! * The cluster's object, which is not here at all: it goes when its stanza is deleted, and a push that had it from here
//!   would answer 0 for WAL of a stanza that is no more.
//!
//! So what is saved is Argon2, and in a bucket a request for each wrap: those are taken from here if a wrap of this name
//! and length is listed. In a directory they are read anew, and must be what they were.
//!
//! # What is kept of a secret, and how
//! Argon2's output opens the wrap, and with it all that its master seals: it is as good as the passphrase for this
//! repository. Who holds this file can have only as much as who holds the passphrase's, because
//! * it is kept only where the passphrase lies in a file of this host ([`Memory::keeps_derived`]); what comes from the
//!   environment or a command may be meant to be on no disk, and what lies in memory is not written to one;
//! * the caller keeps the file from everybody else;
//! * it is sealed with the passphrase, so that by itself it opens nothing. That also makes a changed passphrase known: it
//!   does not open the seal, Argon2 runs, and the repository's own commitment accepts or rejects it.
//!
//! Whoever gets the file alone can try out passphrases on it, as whoever gets the repository can on its wraps. A seal by a
//! plain hash would make each try millions of times cheaper than there; so the seal's key is stretched too, with a fresh
//! salt, by an Argon2id that costs a fortieth of a wrap's (1 MiB, one pass: about a millisecond, which each segment pays).
//! A key of `key-generate` has nothing to guess or to derive, and nothing of it is kept.
//!
//! The kernel's keyring would keep it off the disk. It was left out: container runtimes forbid its system calls, it knows
//! users and not containers, and what it protects lies beside it in a file.
//!
//! # What can go wrong with it
//! Nothing. A file that is damaged, of another version, place or repository, or cannot be had or written, is as none at
//! all, and what does not open with its help is opened without it before anybody is told that it does not.

use super::error::RepoError;
use super::keys::{self, Derived, Keys, Secret};
use super::layout::{hex, unhex};
use super::seal::expand;
use crate::env::Env;
use crate::storage::{Key, Store};
use crate::units::ByteCount;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The longest file that is read or kept; one wrap takes some 700 bytes.
pub const LONGEST: u64 = 256 * 1024;

/// Where one repository's file is. Whatever goes wrong there is nobody's failure.
pub trait Memory {
    /// Whether what a passphrase was made into may be kept: see the module.
    fn keeps_derived(&self) -> bool;

    /// What was kept last; `None` where there is none, or it may not be trusted.
    fn recall(&self) -> Option<Zeroizing<Vec<u8>>>;

    /// Keeps `contents` in its place.
    fn keep(&self, contents: &[u8]);

    /// Removes what was kept.
    fn forget(&self);
}

/// How a repository is remembered.
#[derive(Clone, Copy)]
pub struct Remembering<'a> {
    /// Where.
    pub memory: &'a dyn Memory,
    /// The repository's place and number in words: what is kept of another is not used.
    pub place: &'a str,
    /// For salts.
    pub env: &'a dyn Env,
}

impl std::fmt::Debug for Remembering<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remembering({})", self.place)
    }
}

/// What an opening took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// How often Argon2 ran as slowly as a wrap asks.
    pub derivations: u32,
    /// Wraps that were fetched.
    pub wraps_fetched: usize,
}

const CACHE: &str = "cache of an opened repository";
const FORMAT: u32 = 1;
/// The stretching of the seal's key.
const MEMORY_KIB: u32 = 1024;
const PASSES: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    walden: String,
    format: u32,
    place: String,
    /// BLAKE3 of its bytes.
    walden_json: String,
    wraps: Vec<StoredWrap>,
    derived: Option<StoredDerived>,
    /// BLAKE3 of this with nothing here, against accidents.
    checksum: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredWrap {
    name: String,
    contents: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredDerived {
    salt: String,
    sealed: String,
}

impl Stored {
    fn checksum(&self) -> String {
        hex(blake3::hash(&serde_json::to_vec(self).unwrap_or_default()).as_bytes())
    }
}

type Wraps = Vec<(Key, Vec<u8>)>;

/// A file that was read and is of this place and repository.
struct Remembered {
    /// Sorted by name.
    wraps: Wraps,
    derived: Option<([u8; 32], Zeroizing<Vec<u8>>)>,
    bound: [u8; 32],
}

/// What the seal is bound to: everything else in the file.
fn bound_to(place: &str, walden_json: &[u8], wraps: &Wraps) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("walden 1 cache seal");
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(place.as_bytes());
    add(walden_json);
    for (name, contents) in wraps {
        add(name.as_str().as_bytes());
        add(contents);
    }
    *hasher.finalize().as_bytes()
}

fn seal_key(words: &str, salt: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let stretched = keys::argon2id(words, salt, MEMORY_KIB, PASSES, 1)?;
    let mut key = Zeroizing::new([0; 32]);
    expand(salt, &*stretched, b"walden cache 1 seal", &mut key);
    Some(key)
}

impl Remembered {
    /// What is in `bytes`; `None` unless it is whole, and of this place and this `walden.json`.
    fn parse(bytes: &[u8], place: &str, walden_json: &[u8]) -> Option<Self> {
        let mut stored: Stored = serde_json::from_slice(bytes).ok()?;
        let checksum = std::mem::take(&mut stored.checksum);
        if stored.walden != CACHE
            || stored.format != FORMAT
            || stored.place != place
            || stored.walden_json != hex(blake3::hash(walden_json).as_bytes())
            || checksum != stored.checksum()
        {
            return None;
        }
        let mut wraps: Wraps = Vec::with_capacity(stored.wraps.len());
        for wrap in stored.wraps {
            wraps.push((Key::new(wrap.name).ok()?, wrap.contents.into_bytes()));
        }
        let derived = match stored.derived {
            None => None,
            Some(derived) => Some((unhex::<32>(&derived.salt)?, Zeroizing::new(bytes_of(&derived.sealed)?))),
        };
        let bound = bound_to(place, walden_json, &wraps);
        Some(Self { wraps, derived, bound })
    }

    fn contents(&self, name: &Key, size: ByteCount) -> Option<&Vec<u8>> {
        let (_, contents) = self.wraps.iter().find(|(held, _)| held == name)?;
        (contents.len() as u64 == size.as_u64()).then_some(contents)
    }

    /// What was derived from these words; `None` if it was from others.
    fn unseal(&self, words: &str) -> Option<Derived> {
        let (salt, sealed) = self.derived.as_ref()?;
        let mut opened = sealed.clone();
        let length = opened.len().checked_sub(16)?;
        let (pairs, tag) = opened.split_at_mut(length);
        let tag: [u8; 16] = (&*tag).try_into().ok()?;
        Aes256Gcm::new((&*seal_key(words, salt)?).into())
            .decrypt_inout_detached(&Nonce::from([0; 12]), &self.bound, (&mut *pairs).into(), &Tag::from(tag))
            .ok()?;
        Some(Derived::from_pairs(pairs))
    }
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(unhex::<1>(std::str::from_utf8(pair).ok()?)?[0])).collect()
}

/// The file for these wraps; with what was derived from `words`, where that is given. `None` where it would be too
/// large, or there is no randomness.
fn file(
    how: &Remembering<'_>,
    walden_json: &[u8],
    wraps: &Wraps,
    words: Option<(&str, &Derived)>,
) -> Option<Vec<u8>> {
    let derived = match words {
        None => None,
        Some((words, derived)) => {
            let mut salt = [0; 32];
            how.env.random(&mut salt).ok()?;
            let mut pairs = derived.to_pairs(wraps.iter().map(|(_, wrap)| wrap.as_slice()));
            let tag = Aes256Gcm::new((&*seal_key(words, &salt)?).into())
                .encrypt_inout_detached(
                    &Nonce::from([0; 12]),
                    &bound_to(how.place, walden_json, wraps),
                    pairs.as_mut_slice().into(),
                )
                .ok()?;
            Some(StoredDerived { salt: hex(&salt), sealed: format!("{}{}", hex(&pairs), hex(&tag)) })
        }
    };
    let mut stored = Stored {
        walden: CACHE.to_owned(),
        format: FORMAT,
        place: how.place.to_owned(),
        walden_json: hex(blake3::hash(walden_json).as_bytes()),
        wraps: Vec::with_capacity(wraps.len()),
        derived,
        checksum: String::new(),
    };
    for (name, contents) in wraps {
        let contents = String::from_utf8(contents.clone()).ok()?;
        stored.wraps.push(StoredWrap { name: name.to_string(), contents });
    }
    stored.checksum = stored.checksum();
    let mut bytes = serde_json::to_vec_pretty(&stored).ok()?;
    bytes.push(b'\n');
    (bytes.len() as u64 <= LONGEST).then_some(bytes)
}

/// Opens the wraps of a repository, with the help of what was kept where `how` says where.
///
/// # Errors
/// As without that help.
pub(super) fn keys(
    store: &dyn Store,
    id: [u8; 16],
    walden_json: &[u8],
    secret: &Secret,
    how: Option<&Remembering<'_>>,
) -> Result<(Keys, Effort), RepoError> {
    let mut listed = Vec::new();
    store.list(&Key::new("keys")?, &mut |object| listed.push((object.key, object.size)))?;
    if listed.is_empty() {
        return Err(RepoError::Missing { object: Key::new("keys")? });
    }
    listed.sort();
    let words = match (secret, how) {
        (Secret::Passphrase(words), Some(how)) if how.memory.keeps_derived() => Some(words.as_str()),
        _ => None,
    };
    // A directory's wraps are as near as the file would be.
    let Some(how) = how.filter(|_| store.gathers() || words.is_some()) else {
        if let (Some(how), true) = (how, secret.is_slow()) {
            // The passphrase may have lain in a file before.
            how.memory.forget();
        }
        let opened = open(store, id, &listed, None, secret, Derived::default())?;
        return Ok((opened.keys, opened.effort));
    };
    let earlier = how.memory.recall().and_then(|bytes| Remembered::parse(&bytes, how.place, walden_json));
    let derived = earlier.as_ref().zip(words).and_then(|(earlier, words)| earlier.unseal(words));
    let wraps = earlier.as_ref().filter(|_| store.gathers());
    let helped = derived.is_some() || wraps.is_some();
    let opened =
        match open(store, id, &listed, wraps, secret, derived.unwrap_or_default()) {
            // What is wrong must be wrong without the cache, too.
            Err(
                RepoError::KeyRejected { .. } | RepoError::Damaged { .. } | RepoError::NewerFormat { .. },
            ) if helped => open(store, id, &listed, None, secret, Derived::default())?,
            other => other?,
        };
    let as_it_was = opened.effort.derivations == 0
        && earlier.is_some_and(|earlier| {
            earlier.wraps == opened.wraps && earlier.derived.is_some() == words.is_some()
        });
    if !as_it_was {
        let words = words.map(|words| (words, &opened.derived));
        if let Some(contents) = file(how, walden_json, &opened.wraps, words) {
            how.memory.keep(&contents);
        }
    }
    Ok((opened.keys, opened.effort))
}

struct Opened {
    keys: Keys,
    wraps: Wraps,
    derived: Derived,
    effort: Effort,
}

/// Opens the wraps that are `listed`, those of `earlier` without fetching them.
fn open(
    store: &dyn Store,
    id: [u8; 16],
    listed: &[(Key, ByteCount)],
    earlier: Option<&Remembered>,
    secret: &Secret,
    mut derived: Derived,
) -> Result<Opened, RepoError> {
    let mut effort = Effort::default();
    let mut wraps = Vec::with_capacity(listed.len());
    for (name, size) in listed {
        let contents = match earlier.and_then(|earlier| earlier.contents(name, *size)) {
            Some(contents) => contents.clone(),
            None => {
                effort.wraps_fetched += 1;
                store.read(name, ByteCount::new(keys::WRAP_LIMIT))?
            }
        };
        wraps.push((name.clone(), contents));
    }
    let keys = keys::open(id, &wraps, secret, &mut derived)?;
    effort.derivations = derived.runs();
    Ok(Opened { keys, wraps, derived, effort })
}

#[cfg(test)]
mod tests {
    use super::super::keys::new_master;
    use super::super::{Repository, layout};
    use super::*;
    use crate::env::Fixed;
    use crate::storage::faulty::{Fault, FaultyStore};
    use crate::storage::memory::MemoryStore;
    use crate::storage::posix::PosixStore;
    use crate::units::Timestamp;
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;

    const WORDS: &str = "correct horse battery staple";

    #[derive(Default)]
    struct Host {
        contents: RefCell<Option<Vec<u8>>>,
        no_file: Cell<bool>,
        writes: Cell<u32>,
    }

    impl Memory for Host {
        fn keeps_derived(&self) -> bool {
            !self.no_file.get()
        }
        fn recall(&self) -> Option<Zeroizing<Vec<u8>>> {
            self.contents.borrow().clone().map(Zeroizing::new)
        }
        fn keep(&self, contents: &[u8]) {
            self.writes.set(self.writes.get() + 1);
            self.contents.replace(Some(contents.to_vec()));
        }
        fn forget(&self) {
            self.contents.replace(None);
        }
    }

    impl Host {
        fn kept(&self) -> String {
            String::from_utf8(self.contents.borrow().clone().unwrap()).unwrap()
        }
    }

    fn env(seed: u64) -> Fixed {
        Fixed::new(Timestamp::from_unix_seconds(0), seed)
    }

    fn passphrase(words: &str) -> Secret {
        Secret::Passphrase(Zeroizing::new(words.to_owned()))
    }

    fn made(store: impl Store + 'static, seed: u64) -> Repository {
        Repository::create(Arc::new(store), Some(&passphrase(WORDS)), "memory", &env(seed)).unwrap()
    }

    fn open(
        store: impl Store + 'static,
        words: &str,
        host: &Host,
    ) -> Result<(Repository, Effort), RepoError> {
        let how = Remembering { memory: host, place: "repo1 memory", env: &env(77) };
        Repository::open_remembering(Arc::new(store), &|| Ok(Some(passphrase(words))), &how)
    }

    /// Whether both have the same keys: what one seals the other opens.
    fn fit(one: &Repository, other: &Repository, number: u64) -> bool {
        let stanza = "shop".parse().unwrap();
        let place = layout::cluster(&stanza, crate::units::SystemIdentifier::new(number)).unwrap();
        one.create_json(&place, &number, &env(number)).unwrap();
        other.read_json::<u64>(&place).is_ok_and(|read| read == number)
    }

    const FULL: Effort = Effort { derivations: 1, wraps_fetched: 1 };
    const NONE: Effort = Effort { derivations: 0, wraps_fetched: 0 };

    #[test]
    fn the_second_opening_derives_nothing_and_fetches_no_wrap() {
        let store = MemoryStore::default();
        let first = made(store.clone(), 1);
        let host = Host::default();
        assert_eq!(open(store.clone(), WORDS, &host).unwrap().1, FULL);
        let counting = FaultyStore::counting(store);
        let (again, effort) = open(counting.clone(), WORDS, &host).unwrap();
        assert_eq!((effort, host.writes.get()), (NONE, 1));
        assert_eq!(counting.calls(), 2, "walden.json and the listing");
        assert!(fit(&first, &again, 1));

        // In a directory the wraps are read anew.
        let dir = tempfile::tempdir().unwrap();
        let store = PosixStore::create_root(dir.path()).unwrap();
        let first = made(store.clone(), 2);
        let host = Host::default();
        assert_eq!(open(store.clone(), WORDS, &host).unwrap().1, FULL);
        let (again, effort) = open(store, WORDS, &host).unwrap();
        assert_eq!(effort, Effort { derivations: 0, wraps_fetched: 1 });
        assert!(fit(&first, &again, 1));
    }

    #[test]
    fn a_changed_passphrase_is_rejected_and_leaves_the_cache_as_it_is() {
        let store = MemoryStore::default();
        made(store.clone(), 1);
        let host = Host::default();
        open(store.clone(), WORDS, &host).unwrap();
        for wrong in ["correct horse battery stapler", " ", "x"] {
            let answer = open(store.clone(), wrong, &host);
            assert!(matches!(answer, Err(RepoError::KeyRejected { .. })), "{wrong}");
        }
        assert_eq!(open(store, WORDS, &host).unwrap().1, NONE);
        assert_eq!(host.writes.get(), 1);
    }

    #[test]
    fn no_damage_of_the_cache_keeps_a_repository_from_opening() {
        let store = MemoryStore::default();
        let first = made(store.clone(), 1);
        let host = Host::default();
        open(store.clone(), WORDS, &host).unwrap();
        let good = host.kept().into_bytes();
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).step_by(41).map(|end| good[..end].to_vec()).collect();
        damaged.extend((0..good.len()).step_by(29).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        }));
        let text = host.kept();
        damaged.push(text.replace("\"format\": 1", "\"format\": 2").into_bytes());
        damaged.push(text.replace("\"place\"", "\"places\"").into_bytes());
        damaged.push(vec![0; 4096]);
        damaged.push(vec![b'['; 100_000]);
        for (number, bytes) in (10..).zip(damaged) {
            host.keep(&bytes);
            let (opened, effort) = open(store.clone(), WORDS, &host).unwrap();
            assert!(effort == FULL || effort == NONE, "{effort:?}");
            assert!(fit(&first, &opened, number), "{}", String::from_utf8_lossy(&bytes));
            if effort == FULL {
                assert_eq!(open(store.clone(), WORDS, &host).unwrap().1, NONE, "it was put right");
            }
        }
    }

    #[test]
    fn a_cache_whose_checksum_fits_and_whose_keys_do_not_is_found_out() {
        let store = MemoryStore::default();
        let first = made(store.clone(), 1);
        let host = Host::default();
        open(store.clone(), WORDS, &host).unwrap();
        let walden_json = store.read(&Key::new("walden.json").unwrap(), ByteCount::mib(1)).unwrap();
        let wraps = Remembered::parse(host.kept().as_bytes(), "repo1 memory", &walden_json).unwrap().wraps;
        let how = Remembering { memory: &host, place: "repo1 memory", env: &env(5) };
        // What was derived is not what Argon2 gives; the wrap is another one of the same length.
        let mut pairs = blake3::hash(&wraps[0].1).as_bytes().to_vec();
        pairs.extend_from_slice(&[9; 32]);
        let wrong = Derived::from_pairs(&pairs);
        let mut other_wrap = wraps.clone();
        let text = String::from_utf8(wraps[0].1.clone()).unwrap();
        let at = text.find("\"commitment\": \"").unwrap() + 15;
        other_wrap[0].1[at] = if other_wrap[0].1[at] == b'0' { b'1' } else { b'0' };
        for contents in [
            file(&how, &walden_json, &wraps, Some((WORDS, &wrong))),
            file(&how, &walden_json, &other_wrap, Some((WORDS, &wrong))),
            file(&how, &walden_json, &other_wrap, None),
            file(&how, &walden_json, &Vec::new(), Some((WORDS, &Derived::default()))),
        ] {
            host.keep(&contents.unwrap());
            let (opened, effort) = open(store.clone(), WORDS, &host).unwrap();
            assert_eq!(effort, FULL);
            assert!(fit(&first, &opened, u64::from(host.writes.get())));
            assert_eq!(open(store.clone(), WORDS, &host).unwrap().1, NONE);
        }
    }

    #[test]
    fn a_repository_that_was_made_again_at_the_place_is_opened_with_its_own_keys() {
        let host = Host::default();
        let old = MemoryStore::default();
        made(old.clone(), 1);
        open(old, WORDS, &host).unwrap();
        let new = MemoryStore::default();
        let made_again = made(new.clone(), 2);
        let (opened, effort) = open(new.clone(), WORDS, &host).unwrap();
        assert_eq!(effort, FULL);
        assert_eq!(opened.file().repository_id, made_again.file().repository_id);
        assert!(fit(&opened, &made_again, 1));
        assert_eq!(open(new.clone(), WORDS, &host).unwrap().1, NONE);
        // Of another place nothing is taken either.
        let how = Remembering { memory: &host, place: "repo2 memory", env: &env(77) };
        let secret = || Ok(Some(passphrase(WORDS)));
        assert_eq!(Repository::open_remembering(Arc::new(new), &secret, &how).unwrap().1, FULL);
    }

    #[test]
    fn masters_that_come_and_go_are_seen_at_once() {
        let store = MemoryStore::default();
        let first = made(store.clone(), 1);
        let host = Host::default();
        open(store.clone(), WORDS, &host).unwrap();
        // Of a random id, so that either may be the one that seals.
        for seed in 2..6 {
            let (_, name, wrap) =
                new_master(*first.keys().repository(), &passphrase(WORDS), &env(seed)).unwrap();
            store.create(&name, &wrap).unwrap();
            let (opened, effort) = open(store.clone(), WORDS, &host).unwrap();
            assert_eq!(effort, FULL);
            assert_eq!(
                format!("{:?}", opened.keys()),
                format!("Keys {{ suite: Aes256Gcm, masters: {seed} }}")
            );
            assert!(fit(&first, &opened, seed));
            assert_eq!(open(store.clone(), WORDS, &host).unwrap().1, NONE);
            let fresh = Repository::open(Arc::new(store.clone()), &|| Ok(Some(passphrase(WORDS)))).unwrap();
            assert!(fit(&opened, &fresh, seed + 10));
        }
        let mut names = Vec::new();
        store.list(&Key::new("keys").unwrap(), &mut |object| names.push(object.key)).unwrap();
        for name in &names[1..] {
            store.delete(name).unwrap();
        }
        let (opened, effort) = open(store.clone(), WORDS, &host).unwrap();
        assert_eq!(effort, NONE);
        assert_eq!(format!("{:?}", opened.keys()), "Keys { suite: Aes256Gcm, masters: 1 }");
        assert_eq!(
            host.kept().matches("wrapped master key").count(),
            1,
            "the others are gone from here, too"
        );
        store.delete(&names[0]).unwrap();
        assert!(matches!(open(store, WORDS, &host), Err(RepoError::Missing { .. })));
    }

    #[test]
    fn of_a_passphrase_that_is_in_no_file_nothing_is_kept_and_what_was_kept_goes() {
        let host = Host::default();
        let store = MemoryStore::default();
        made(store.clone(), 1);
        open(store.clone(), WORDS, &host).unwrap();
        assert!(host.kept().contains("\"sealed\": \"") && host.kept().contains("\"salt\": \""));
        host.no_file.set(true);
        let effort = Effort { derivations: 1, wraps_fetched: 0 };
        for _ in 0..2 {
            assert_eq!(open(store.clone(), WORDS, &host).unwrap().1, effort, "the wraps are public");
            assert!(host.kept().contains("\"derived\": null"), "{}", host.kept());
        }
        let dir = tempfile::tempdir().unwrap();
        let store = PosixStore::create_root(dir.path()).unwrap();
        made(store.clone(), 1);
        assert_eq!(open(store, WORDS, &host).unwrap().1, FULL);
        assert!(host.contents.borrow().is_none());
    }

    #[test]
    fn a_key_of_key_generate_needs_no_cache_but_for_a_buckets_wraps() {
        let key = || Secret::Key(Zeroizing::new([3; 32]));
        let host = Host::default();
        let how = Remembering { memory: &host, place: "p", env: &env(7) };
        let dir = tempfile::tempdir().unwrap();
        let posix = PosixStore::create_root(dir.path()).unwrap();
        Repository::create(Arc::new(posix.clone()), Some(&key()), "filesystem", &env(1)).unwrap();
        Repository::open_remembering(Arc::new(posix), &|| Ok(Some(key())), &how).unwrap();
        assert!(host.contents.borrow().is_none());
        let bucket = MemoryStore::default();
        Repository::create(Arc::new(bucket.clone()), Some(&key()), "memory", &env(1)).unwrap();
        for wraps_fetched in [1, 0] {
            let opened = Repository::open_remembering(Arc::new(bucket.clone()), &|| Ok(Some(key())), &how);
            assert_eq!(opened.unwrap().1, Effort { derivations: 0, wraps_fetched });
        }
        assert!(host.kept().contains("\"derived\": null"));
    }

    #[test]
    fn the_file_holds_neither_the_words_nor_what_was_derived_in_the_clear() {
        let store = MemoryStore::default();
        made(store.clone(), 1);
        let host = Host::default();
        open(store.clone(), WORDS, &host).unwrap();
        let walden_json = store.read(&Key::new("walden.json").unwrap(), ByteCount::mib(1)).unwrap();
        let kept = Remembered::parse(host.kept().as_bytes(), "repo1 memory", &walden_json).unwrap();
        let pairs = kept.unseal(WORDS).unwrap().to_pairs(kept.wraps.iter().map(|(_, wrap)| wrap.as_slice()));
        assert_eq!(pairs.len(), 64);
        assert!(!host.kept().contains(&hex(&pairs[32..])));
        assert!(WORDS.split(' ').all(|word| !host.kept().contains(word)));
        assert!(kept.unseal("other words").is_none());
        // A salt is never used twice.
        host.contents.replace(None);
        let how = Remembering { memory: &host, place: "repo1 memory", env: &env(78) };
        let secret = || Ok(Some(passphrase(WORDS)));
        Repository::open_remembering(Arc::new(store), &secret, &how).unwrap();
        let again = Remembered::parse(host.kept().as_bytes(), "repo1 memory", &walden_json).unwrap();
        assert_ne!(kept.derived.unwrap().0, again.derived.unwrap().0);
    }

    #[test]
    fn a_store_that_fails_is_not_asked_twice_because_of_the_cache() {
        let store = MemoryStore::default();
        made(store.clone(), 1);
        let host = Host::default();
        open(store.clone(), WORDS, &host).unwrap();
        for at in 0..2 {
            for fault in Fault::ALL {
                let faulty = FaultyStore::failing_from(store.clone(), at, fault);
                let answer = open(faulty.clone(), WORDS, &host);
                assert!(matches!(answer, Err(RepoError::Store(_))), "{at} {fault:?}");
                assert_eq!(faulty.calls(), at + 1);
            }
        }
        assert_eq!(host.writes.get(), 1);
    }
}
