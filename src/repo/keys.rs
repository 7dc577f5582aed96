//! Keys: what a person holds, what wraps the repository's master keys, and the masters themselves.
//!
//! A person holds either a random key (`walden-key-1.…`, from `walden key-generate`) or a passphrase. It
//! opens a *wrap*, an object that holds one master key sealed with it. Masters are random, made with the
//! repository, and derive one key per purpose. Random keys need HKDF only; passphrases go through Argon2id,
//! which costs 19 MiB and some 20 ms each time a repository is opened, unless what came of it is at hand
//! ([`super::remembered`]).

use super::error::RepoError;
use super::layout::{Purpose, hex, unhex};
use super::seal::{Suite, expand};
use crate::env::Env;
use crate::storage::Key;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// What stands before every key string; 1 is the form of the string.
const KEY_PREFIX: &str = "walden-key-1.";
/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Argon2id: OWASP's first recommendation, 19 MiB and two passes.
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;
/// More than this in a wrap is somebody else's idea of fun: refuse instead of allocating.
const ARGON2_MEMORY_LIMIT_KIB: u32 = 256 * 1024;

/// What a person holds. Never printed: `Debug` shows only which kind it is.
pub enum Secret {
    /// 32 random bytes.
    Key(Zeroizing<[u8; 32]>),
    /// Words, at least one byte.
    Passphrase(Zeroizing<String>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Secret::Key(…)",
            Self::Passphrase(_) => "Secret::Passphrase(…)",
        })
    }
}

impl Secret {
    /// A new random key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate(env: &dyn Env) -> Result<Self, RepoError> {
        let mut key = Zeroizing::new([0; 32]);
        env.random(&mut *key)?;
        Ok(Self::Key(key))
    }

    /// Reads what stands in a key file or setting: a `walden-key-1.…` string, or else a passphrase. White
    /// space around it is not part of it.
    ///
    /// # Errors
    /// [`RepoError::KeyMistyped`] when it begins like a key string and its checksum is wrong,
    /// [`RepoError::KeyMissing`] when nothing is there.
    pub fn parse(text: &str) -> Result<Self, RepoError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RepoError::KeyMissing);
        }
        let Some(rest) = text.strip_prefix(KEY_PREFIX) else {
            return Ok(Self::Passphrase(Zeroizing::new(text.to_owned())));
        };
        let parsed =
            rest.split_once('.').and_then(|(key, sum)| Some((unbase32::<32>(key)?, unbase32::<4>(sum)?)));
        match parsed {
            Some((key, sum)) if sum == checksum(&key) => Ok(Self::Key(Zeroizing::new(key))),
            _ => Err(RepoError::KeyMistyped),
        }
    }

    /// The key string for a person to keep; `None` for a passphrase, which only they know.
    #[must_use]
    pub fn key_string(&self) -> Option<Zeroizing<String>> {
        let Self::Key(key) = self else { return None };
        Some(Zeroizing::new(format!("{KEY_PREFIX}{}.{}", base32(&**key), base32(&checksum(key)))))
    }

    /// Whether opening a repository with it runs Argon2.
    #[must_use]
    pub const fn is_slow(&self) -> bool {
        matches!(self, Self::Passphrase(_))
    }
}

/// Four bytes that a mistyped key will not fit.
fn checksum(key: &[u8; 32]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new_derive_key("walden 1 key string checksum");
    hasher.update(key);
    let mut sum = [0; 4];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
    sum
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - held) & 31) as usize]));
    }
    text
}

fn unbase32<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != (N * 8).div_ceil(5) {
        return None;
    }
    let mut bytes = [0; N];
    let (mut bits, mut held, mut at) = (0_u32, 0, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|l| *l == letter.to_ascii_lowercase())?;
        bits = bits << 5 | u32::try_from(value).ok()?;
        held += 5;
        if held >= 8 {
            held -= 8;
            *bytes.get_mut(at)? = (bits >> held & 0xFF) as u8;
            at += 1;
        }
        bits &= (1 << held) - 1;
    }
    // The bits that fill up the last letter are zero, so that a key has one spelling.
    (at == N && bits == 0).then_some(bytes)
}

/// A master key and what it is derived into. Zeroized when dropped.
struct Master {
    id: [u8; 16],
    wal: [u8; 32],
    data: [u8; 32],
    meta: [u8; 32],
}

impl Drop for Master {
    fn drop(&mut self) {
        self.wal.zeroize();
        self.data.zeroize();
        self.meta.zeroize();
    }
}

impl Master {
    fn derive(repository: &[u8; 16], id: [u8; 16], master: &[u8; 32]) -> Self {
        let mut derived = Self { id, wal: [0; 32], data: [0; 32], meta: [0; 32] };
        let salt = [&repository[..], &id[..]].concat();
        expand(&salt, master, b"walden purpose 1 wal", &mut derived.wal);
        expand(&salt, master, b"walden purpose 1 data", &mut derived.data);
        expand(&salt, master, b"walden purpose 1 meta", &mut derived.meta);
        derived
    }

    const fn purpose(&self, purpose: Purpose) -> &[u8; 32] {
        match purpose {
            Purpose::Wal => &self.wal,
            Purpose::Data => &self.data,
            Purpose::Meta => &self.meta,
        }
    }
}

/// The keys of an open repository.
pub struct Keys {
    repository: [u8; 16],
    suite: Suite,
    /// Sorted so that the first one seals new objects.
    masters: Vec<Master>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("suite", &self.suite).field("masters", &self.masters.len()).finish()
    }
}

impl Keys {
    /// The keys of a repository that is not encrypted.
    #[must_use]
    pub const fn plain(repository: [u8; 16]) -> Self {
        Self { repository, suite: Suite::Plain, masters: Vec::new() }
    }

    /// How new objects are sealed, and how all must be.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The repository's id, part of every object's identity.
    #[must_use]
    pub const fn repository(&self) -> &[u8; 16] {
        &self.repository
    }

    /// The master's id and the purpose key for a new object; zeros in a plain repository.
    pub(super) fn writing(&self, purpose: Purpose) -> ([u8; 16], Zeroizing<[u8; 32]>) {
        self.masters.first().map_or(([0; 16], Zeroizing::new([0; 32])), |master| {
            (master.id, Zeroizing::new(*master.purpose(purpose)))
        })
    }

    /// The purpose key of the master an object names; `None` when it is not held.
    pub(super) fn reading(&self, master: &[u8; 16], purpose: Purpose) -> Option<Zeroizing<[u8; 32]>> {
        match self.suite {
            Suite::Plain => (*master == [0; 16]).then(|| Zeroizing::new([0; 32])),
            Suite::Aes256Gcm => {
                let held = self.masters.iter().find(|held| held.id == *master)?;
                Some(Zeroizing::new(*held.purpose(purpose)))
            }
        }
    }
}

/// How a wrap's key is derived from what a person holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", deny_unknown_fields)]
enum Derivation {
    /// A random key.
    #[serde(rename = "hkdf-sha256")]
    Hkdf,
    /// A passphrase.
    #[serde(rename = "argon2id")]
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
}

/// The stored form of a wrap, `keys/<master-id>/<wrap-id>`: JSON, readable without any key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrap {
    walden: String,
    format: u32,
    master_id: String,
    wrap_id: String,
    derivation: Derivation,
    salt: String,
    commitment: String,
    sealed: String,
}

const WRAP: &str = "wrapped master key";

/// The longest wrap read; they are about 500 bytes.
pub(super) const WRAP_LIMIT: u64 = 16 * 1024;

struct WrapKey {
    key: Zeroizing<[u8; 32]>,
    commitment: [u8; 32],
}

/// What Argon2 made of one passphrase and the wraps it was tried on, by the hash of the wrap: its salt and its
/// parameters are in that.
///
/// As good as the passphrase for these wraps, so it is to be kept like one.
#[derive(Default)]
pub(super) struct Derived {
    known: Vec<(blake3::Hash, Zeroizing<[u8; 32]>)>,
    runs: u32,
}

impl Derived {
    /// What is known for this wrap.
    fn of(&self, wrap: &[u8]) -> Option<&Zeroizing<[u8; 32]>> {
        let hash = blake3::hash(wrap);
        self.known.iter().find(|(of, _)| *of == hash).map(|(_, material)| material)
    }

    fn learn(&mut self, wrap: &[u8], material: Zeroizing<[u8; 32]>) {
        self.known.push((blake3::hash(wrap), material));
    }

    /// How often Argon2 ran with a wrap's parameters.
    pub(super) const fn runs(&self) -> u32 {
        self.runs
    }

    /// What is known of these wraps, in the clear: for each its hash and what was derived for it, 64 bytes.
    pub(super) fn to_pairs<'a>(&self, wraps: impl Iterator<Item = &'a [u8]>) -> Zeroizing<Vec<u8>> {
        // Made in one piece: a vector that grows leaves copies behind.
        let mut pairs = Zeroizing::new(Vec::with_capacity(64 * self.known.len()));
        for wrap in wraps {
            if let Some(material) = self.of(wrap) {
                pairs.extend_from_slice(blake3::hash(wrap).as_bytes());
                pairs.extend_from_slice(&**material);
            }
        }
        pairs
    }

    /// What [`Derived::to_pairs`] made, with no run of Argon2.
    pub(super) fn from_pairs(pairs: &[u8]) -> Self {
        let mut derived = Self::default();
        for pair in pairs.chunks_exact(64) {
            let (hash, material) = pair.split_at(32);
            if let (Ok(hash), Ok(material)) = (hash.try_into(), material.try_into()) {
                derived.known.push((blake3::Hash::from_bytes(hash), Zeroizing::new(material)));
            }
        }
        derived
    }
}

/// 32 bytes of a passphrase by Argon2id; `None` for parameters it does not know.
pub(super) fn argon2id(
    words: &str,
    salt: &[u8; 32],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> Option<Zeroizing<[u8; 32]>> {
    let parameters = argon2::Params::new(memory_kib, passes, lanes, Some(32)).ok()?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
    let mut key = Zeroizing::new([0; 32]);
    argon2.hash_password_into(words.as_bytes(), salt, &mut *key).ok()?;
    Some(key)
}

impl Wrap {
    /// Everything the sealed key is bound to.
    fn bound_to(&self, repository: &[u8; 16]) -> Vec<u8> {
        let derivation = match self.derivation {
            Derivation::Hkdf => "hkdf-sha256".to_owned(),
            Derivation::Argon2id { memory_kib, passes, lanes } => {
                format!("argon2id {memory_kib} {passes} {lanes}")
            }
        };
        format!("walden wrap 1\n{}\n{}\n{}\n{derivation}", hex(repository), self.master_id, self.wrap_id)
            .into_bytes()
    }

    /// What the wrap's key is made of; `None` when the secret is of the other kind or the parameters are absurd.
    fn material(&self, salt: &[u8; 32], secret: &Secret) -> Option<Zeroizing<[u8; 32]>> {
        match (&self.derivation, secret) {
            (Derivation::Hkdf, Secret::Key(key)) => Some(key.clone()),
            (Derivation::Argon2id { memory_kib, passes, lanes }, Secret::Passphrase(words)) => {
                if *memory_kib > ARGON2_MEMORY_LIMIT_KIB || *passes > 64 || *lanes > 16 {
                    return None;
                }
                argon2id(words, salt, *memory_kib, *passes, *lanes)
            }
            _ => None,
        }
    }

    fn key(&self, repository: &[u8; 16], salt: &[u8; 32], material: &[u8; 32]) -> WrapKey {
        let bound = self.bound_to(repository);
        let (mut key, mut commitment) = (Zeroizing::new([0; 32]), [0; 32]);
        expand(salt, material, &[&b"seal\n"[..], &bound].concat(), &mut key);
        expand(salt, material, &[&b"commit\n"[..], &bound].concat(), &mut commitment);
        WrapKey { key, commitment }
    }
}

/// A new random master key and its first wrap.
///
/// # Errors
/// When there is no randomness.
pub(super) fn new_master(
    repository: [u8; 16],
    secret: &Secret,
    env: &dyn Env,
) -> Result<(Keys, Key, Vec<u8>), RepoError> {
    let mut master = Zeroizing::new([0; 32]);
    let (mut id, mut wrap_id, mut salt) = ([0; 16], [0; 8], [0; 32]);
    env.random(&mut *master)?;
    env.random(&mut id)?;
    env.random(&mut wrap_id)?;
    env.random(&mut salt)?;
    let mut wrap = Wrap {
        walden: WRAP.to_owned(),
        format: 1,
        master_id: hex(&id),
        wrap_id: hex(&wrap_id),
        derivation: match secret {
            Secret::Key(_) => Derivation::Hkdf,
            Secret::Passphrase(_) => {
                Derivation::Argon2id { memory_kib: ARGON2_MEMORY_KIB, passes: ARGON2_PASSES, lanes: 1 }
            }
        },
        salt: hex(&salt),
        commitment: String::new(),
        sealed: String::new(),
    };
    let name = Key::new(format!("keys/{}/{}", wrap.master_id, wrap.wrap_id))?;
    let Some(material) = wrap.material(&salt, secret) else { return Err(RepoError::KeyMissing) };
    let derived = wrap.key(&repository, &salt, &material);
    let mut sealed = *master;
    let tag = Aes256Gcm::new((&*derived.key).into())
        .encrypt_inout_detached(
            &Nonce::from([0; 12]),
            &wrap.bound_to(&repository),
            sealed.as_mut_slice().into(),
        )
        .map_err(|_| RepoError::TooLarge { what: "a key".to_owned() })?;
    wrap.commitment = hex(&derived.commitment);
    wrap.sealed = format!("{}{}", hex(&sealed), hex(&tag));
    let mut bytes = serde_json::to_vec_pretty(&wrap).unwrap_or_default();
    bytes.push(b'\n');
    let keys =
        Keys { repository, suite: Suite::Aes256Gcm, masters: vec![Master::derive(&repository, id, &master)] };
    Ok((keys, name, bytes))
}

/// Opens every wrap that `secret` fits. What Argon2 made is taken from `derived` where it is there, and added to it.
///
/// # Errors
/// [`RepoError::KeyRejected`] when it fits none; damage when a wrap it fits does not open, or when none can
/// be read at all.
pub(super) fn open(
    repository: [u8; 16],
    wraps: &[(Key, Vec<u8>)],
    secret: &Secret,
    derived: &mut Derived,
) -> Result<Keys, RepoError> {
    let mut masters: Vec<Master> = Vec::new();
    let mut tried = Vec::new();
    let mut damaged = None;
    for (name, bytes) in wraps {
        match open_one(&repository, name, bytes, secret, derived) {
            Ok(Some(master)) => {
                if !masters.iter().any(|held| held.id == master.id) {
                    masters.push(master);
                }
            }
            Ok(None) => tried.push(name.clone()),
            Err(error) => damaged = Some(error),
        }
    }
    masters.sort_by_key(|master| std::cmp::Reverse(master.id));
    match (masters.is_empty(), damaged) {
        (false, _) => Ok(Keys { repository, suite: Suite::Aes256Gcm, masters }),
        (true, Some(error)) => Err(error),
        (true, None) => Err(RepoError::KeyRejected { wraps: tried }),
    }
}

fn open_one(
    repository: &[u8; 16],
    name: &Key,
    bytes: &[u8],
    secret: &Secret,
    derived: &mut Derived,
) -> Result<Option<Master>, RepoError> {
    let damaged = |why: &str| RepoError::damaged(name, why);
    let wrap: Wrap = serde_json::from_slice(bytes).map_err(|_| damaged("it is not a wrapped key"))?;
    if wrap.walden != WRAP || name.as_str() != format!("keys/{}/{}", wrap.master_id, wrap.wrap_id) {
        return Err(damaged("it is not the wrapped key of this name"));
    }
    if wrap.format != 1 {
        return Err(RepoError::NewerFormat { what: name.to_string(), format: wrap.format.into() });
    }
    let (Some(id), Some(salt), Some(commitment), Some(mut sealed)) = (
        unhex::<16>(&wrap.master_id),
        unhex::<32>(&wrap.salt),
        unhex::<32>(&wrap.commitment),
        unhex::<48>(&wrap.sealed).map(Zeroizing::new),
    ) else {
        return Err(damaged("one of its fields is cut or changed"));
    };
    let slow = matches!(wrap.derivation, Derivation::Argon2id { .. }) && secret.is_slow();
    let material = match derived.of(bytes) {
        Some(material) if slow => material.clone(),
        _ => {
            let Some(material) = wrap.material(&salt, secret) else { return Ok(None) };
            if slow {
                derived.runs += 1;
                derived.learn(bytes, material.clone());
            }
            material
        }
    };
    let derived = wrap.key(repository, &salt, &material);
    if derived.commitment != commitment {
        return Ok(None);
    }
    let (master, tag) = sealed.split_at_mut(32);
    let tag: [u8; 16] = (&*tag).try_into().map_err(|_| damaged("one of its fields is cut or changed"))?;
    Aes256Gcm::new((&*derived.key).into())
        .decrypt_inout_detached(
            &Nonce::from([0; 12]),
            &wrap.bound_to(repository),
            (&mut *master).into(),
            &Tag::from(tag),
        )
        .map_err(|_| damaged("the key fits, but the seal is broken"))?;
    let master: Zeroizing<[u8; 32]> =
        Zeroizing::new((&*master).try_into().map_err(|_| damaged("one of its fields is cut or changed"))?);
    Ok(Some(Master::derive(repository, id, &master)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Fixed;
    use crate::units::Timestamp;
    use proptest::prelude::*;

    fn env() -> Fixed {
        Fixed::new(Timestamp::from_unix_seconds(0), 1)
    }

    #[test]
    fn a_key_string_comes_back_and_a_mistyped_one_is_told_apart_from_a_wrong_one() {
        let key = Secret::generate(&env()).unwrap();
        let text = key.key_string().unwrap();
        assert!(text.starts_with("walden-key-1."), "{}", text.len());
        let Secret::Key(again) = Secret::parse(&format!(" {}\n", *text)).unwrap() else {
            panic!("not a key")
        };
        let Secret::Key(key) = key else { panic!("not a key") };
        assert_eq!(*again, *key);
        let mut wrong = text.to_string();
        let at = "walden-key-1.".len() + 5;
        let other = if wrong.as_bytes()[at] == b'x' { "y" } else { "x" };
        wrong.replace_range(at..=at, other);
        assert!(matches!(Secret::parse(&wrong), Err(RepoError::KeyMistyped)));
        assert!(matches!(Secret::parse("correct horse"), Ok(Secret::Passphrase(_))));
        assert!(matches!(Secret::parse(" \n"), Err(RepoError::KeyMissing)));
    }

    #[test]
    fn only_the_right_secret_opens_a_wrap_and_damage_is_not_called_a_wrong_key() {
        for secret in
            [Secret::generate(&env()).unwrap(), Secret::Passphrase(Zeroizing::new("words".to_owned()))]
        {
            let (_, name, bytes) = new_master([9; 16], &secret, &env()).unwrap();
            let wraps = [(name, bytes)];
            open([9; 16], &wraps, &secret, &mut Derived::default()).unwrap();
            assert!(matches!(
                open([8; 16], &wraps, &secret, &mut Derived::default()),
                Err(RepoError::KeyRejected { .. })
            ));
            let wrong = Secret::Key(Zeroizing::new([1; 32]));
            assert!(matches!(
                open([9; 16], &wraps, &wrong, &mut Derived::default()),
                Err(RepoError::KeyRejected { .. })
            ));
            let text = String::from_utf8(wraps[0].1.clone()).unwrap();
            let at = text.find("\"sealed\": \"").unwrap() + 11;
            let mut flipped = wraps[0].1.clone();
            flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
            let broken = [(wraps[0].0.clone(), flipped)];
            assert!(matches!(
                open([9; 16], &broken, &secret, &mut Derived::default()),
                Err(RepoError::Damaged { .. })
            ));
        }
    }

    #[test]
    fn nothing_secret_is_in_debug_output() {
        let secret = Secret::Passphrase(Zeroizing::new("hunter2".to_owned()));
        assert_eq!(format!("{secret:?}"), "Secret::Passphrase(…)");
        let (keys, _, bytes) = new_master([9; 16], &secret, &env()).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys { suite: Aes256Gcm, masters: 1 }");
        assert!(!String::from_utf8(bytes).unwrap().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn base_32_has_one_spelling(bytes: [u8; 32], text in "[0-9a-z]{52}") {
            prop_assert_eq!(unbase32::<32>(&base32(&bytes)), Some(bytes));
            if let Some(bytes) = unbase32::<32>(&text) {
                prop_assert_eq!(base32(&bytes), text);
            }
        }
    }
}
