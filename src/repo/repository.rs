//! Making and opening a repository, and the small objects in it.

use super::error::RepoError;
use super::frame::{Compression, EncodedFrame, FrameDecoder, FrameEncoder};
use super::keys::{self, Keys, Secret};
use super::layout::{Place, REPOSITORY_FILE, hex, unhex};
use super::object::{ObjectReader, ObjectWriter, build};
use super::remembered::{self, Effort, Remembering};
use super::seal::Suite;
use crate::env::Env;
use crate::storage::{Created, Key, Store, StoreErrorKind};
use crate::units::ByteCount;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// The newest format this version reads and the one it writes.
pub const FORMAT: u32 = 1;
/// The most bytes of one object.
pub const OBJECT_LIMIT: ByteCount = ByteCount::mib(64);
/// The most bytes of a small object: catalog entries, clusters, histories. Records may be larger.
pub const SMALL_LIMIT: ByteCount = ByteCount::mib(16);

const REPOSITORY: &str = "repository";

/// `walden.json`: what the repository is. Readable without any key, written last when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryFile {
    /// Always `repository`.
    pub walden: String,
    /// The format its objects have.
    pub format: u32,
    /// The oldest format version that can read it; a later walden may raise it, this one then refuses.
    pub min_reader: u32,
    /// 16 random bytes in hex: part of every object's identity.
    pub repository_id: String,
    /// `none` or `aes-256-gcm`.
    pub cipher: String,
    /// The most bytes of an object.
    pub object_limit_bytes: u64,
    /// Plain bytes of a data frame.
    pub frame_bytes: u64,
    /// How the store creates objects atomically: `filesystem` (link(2), or `renameat2` where links are not
    /// supported), `if-none-match`, `memory`.
    pub create_only: String,
    /// When it was made, for people.
    pub created_at: String,
    /// BLAKE3 over the other fields in this order, against accidents.
    pub checksum: String,
}

impl RepositoryFile {
    fn checksum(&self) -> String {
        let text = format!(
            "{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
            self.walden,
            self.format,
            self.min_reader,
            self.repository_id,
            self.cipher,
            self.object_limit_bytes,
            self.frame_bytes,
            self.create_only,
            self.created_at
        );
        hex(blake3::hash(text.as_bytes()).as_bytes())
    }
}

/// Where the secret comes from is decided only when it is needed.
pub type SecretSource<'a> = &'a dyn Fn() -> Result<Option<Secret>, RepoError>;

/// An open repository: a store, what `walden.json` says, and the keys.
#[derive(Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    file: Arc<RepositoryFile>,
    keys: Arc<Keys>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.store.describe())
    }
}

fn repository_file_key() -> Result<Key, RepoError> {
    Ok(Key::new(REPOSITORY_FILE)?)
}

/// Reads `walden.json` alone, for what needs no key.
///
/// # Errors
/// [`RepoError::NoRepository`] when there is none, damage, or a newer format.
pub fn read_repository_file(store: &dyn Store) -> Result<RepositoryFile, RepoError> {
    read_file_and_bytes(store).map(|(file, _)| file)
}

fn read_file_and_bytes(store: &dyn Store) -> Result<(RepositoryFile, Vec<u8>), RepoError> {
    let key = repository_file_key()?;
    let bytes = store.read(&key, ByteCount::new(64 * 1024)).map_err(|error| match error.kind {
        StoreErrorKind::NotFound => RepoError::NoRepository { place: store.describe() },
        _ => RepoError::Store(error),
    })?;
    // A later format may have other fields, so the version is looked at before the rest.
    #[derive(Deserialize)]
    struct Version {
        walden: String,
        min_reader: u32,
    }
    let version: Version = serde_json::from_slice(&bytes)
        .map_err(|_| RepoError::damaged(&key, "it is not a repository's file"))?;
    if version.walden != REPOSITORY {
        return Err(RepoError::damaged(&key, "it is not a repository's file"));
    }
    if version.min_reader > FORMAT {
        return Err(RepoError::NewerFormat { what: key.to_string(), format: version.min_reader.into() });
    }
    let file: RepositoryFile = serde_json::from_slice(&bytes)
        .map_err(|_| RepoError::damaged(&key, "one of its fields is missing or changed"))?;
    if file.checksum() != file.checksum {
        return Err(RepoError::damaged(&key, "its checksum is wrong"));
    }
    Ok((file, bytes))
}

impl Repository {
    /// Makes a repository in an empty store: the key's wrap first, `walden.json` last.
    ///
    /// After an error or a crash there is no repository; calling again makes one (a wrap that was left behind
    /// opens nothing and does no harm).
    ///
    /// # Errors
    /// [`RepoError::Exists`] when there is one, or the store's trouble.
    pub fn create(
        store: Arc<dyn Store>,
        secret: Option<&Secret>,
        create_only: &str,
        env: &dyn Env,
    ) -> Result<Self, RepoError> {
        let key = repository_file_key()?;
        let exists = || RepoError::Exists { place: store.describe() };
        if store.size(&key)?.is_some() {
            return Err(exists());
        }
        let mut id = [0; 16];
        env.random(&mut id)?;
        let keys = match secret {
            None => Keys::plain(id),
            Some(secret) => {
                let (keys, name, wrap) = keys::new_master(id, secret, env)?;
                store.create(&name, &wrap)?;
                keys
            }
        };
        let mut file = RepositoryFile {
            walden: REPOSITORY.to_owned(),
            format: FORMAT,
            min_reader: FORMAT,
            repository_id: hex(&id),
            cipher: if secret.is_some() { "aes-256-gcm" } else { "none" }.to_owned(),
            object_limit_bytes: OBJECT_LIMIT.as_u64(),
            frame_bytes: super::frame::DATA_FRAME as u64,
            create_only: create_only.to_owned(),
            created_at: env.now().compact(),
            checksum: String::new(),
        };
        file.checksum = file.checksum();
        let mut bytes = serde_json::to_vec_pretty(&file).unwrap_or_default();
        bytes.push(b'\n');
        // COMMIT POINT: with this object the place is a repository. Racing makers: one wins, the other is told.
        match store.create(&key, &bytes) {
            Ok(Created::New | Created::Same) => {}
            Err(error) if error.kind == StoreErrorKind::Taken => return Err(exists()),
            Err(error) => return Err(error.into()),
        }
        Ok(Self { store, file: Arc::new(file), keys: Arc::new(keys) })
    }

    /// Opens the repository in `store`. `secret` is asked for only when it is encrypted.
    ///
    /// # Errors
    /// [`RepoError::NoRepository`], [`RepoError::KeyMissing`], [`RepoError::KeyRejected`],
    /// [`RepoError::NewerFormat`], damage, or the store's trouble.
    pub fn open(store: Arc<dyn Store>, secret: SecretSource<'_>) -> Result<Self, RepoError> {
        Self::open_with(store, secret, None).map(|(repository, _)| repository)
    }

    /// The same with the help of what an earlier opening left on this host, and leaves the same for later ones. What
    /// comes of it is what [`Repository::open`] would give, with less effort.
    ///
    /// # Errors
    /// As [`Repository::open`]; none of its own.
    pub fn open_remembering(
        store: Arc<dyn Store>,
        secret: SecretSource<'_>,
        how: &Remembering<'_>,
    ) -> Result<(Self, Effort), RepoError> {
        Self::open_with(store, secret, Some(how))
    }

    fn open_with(
        store: Arc<dyn Store>,
        secret: SecretSource<'_>,
        how: Option<&Remembering<'_>>,
    ) -> Result<(Self, Effort), RepoError> {
        let (file, bytes) = read_file_and_bytes(&*store)?;
        let key = repository_file_key()?;
        let id =
            unhex::<16>(&file.repository_id).ok_or_else(|| RepoError::damaged(&key, "its id is no id"))?;
        let (keys, effort) = match file.cipher.as_str() {
            "none" => (Keys::plain(id), Effort::default()),
            "aes-256-gcm" => {
                let secret = secret()?.ok_or(RepoError::KeyMissing)?;
                remembered::keys(&*store, id, &bytes, &secret, how)?
            }
            other => {
                return Err(RepoError::damaged(&key, format!("its cipher \"{other}\" is not known")));
            }
        };
        Ok((Self { store, file: Arc::new(file), keys: Arc::new(keys) }, effort))
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The store below, to share.
    #[must_use]
    pub fn store_handle(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The keys that open and seal its objects.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What `walden.json` says.
    #[must_use]
    pub fn file(&self) -> &RepositoryFile {
        &self.file
    }

    /// Whether objects are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.keys.suite() != Suite::Plain
    }

    /// The place in a person's words.
    #[must_use]
    pub fn describe(&self) -> String {
        self.store.describe()
    }

    /// Begins an object that is written frame by frame.
    ///
    /// # Errors
    /// As [`ObjectWriter::begin`].
    pub fn begin(&self, place: &Place, env: &dyn Env) -> Result<ObjectWriter, RepoError> {
        ObjectWriter::begin(self.store(), self.keys(), place, env)
    }

    /// Opens an object for reading.
    ///
    /// # Errors
    /// As [`ObjectReader::open`].
    pub fn reader(&self, place: &Place) -> Result<ObjectReader, RepoError> {
        ObjectReader::open(self.store(), self.keys(), place)
    }

    /// Opens an object that will be read from its beginning to its end: where a read costs a round trip, up to `most`
    /// bytes of it come with the first.
    ///
    /// # Errors
    /// As [`ObjectReader::open`].
    pub fn reader_at_once(&self, place: &Place, most: u64) -> Result<ObjectReader, RepoError> {
        if self.store().gathers() {
            ObjectReader::open_at_once(self.store(), self.keys(), place, most)
        } else {
            self.reader(place)
        }
    }

    /// Opens a large object of which parts will be read: where a read costs a round trip, in one of them.
    ///
    /// # Errors
    /// As [`ObjectReader::open`].
    pub fn reader_of_parts(&self, place: &Place) -> Result<ObjectReader, RepoError> {
        if self.store().gathers() {
            ObjectReader::open_in_one_trip(self.store(), self.keys(), place)
        } else {
            self.reader(place)
        }
    }

    /// Creates a small object of these plain parts, one frame each, with `meta` in its footer.
    ///
    /// A lost reply is settled by the bytes: the same call's bytes there are ours.
    ///
    /// # Errors
    /// [`RepoError::Conflict`] when the name is taken (also by an object of equal contents that was encoded
    /// by somebody else: compare with [`Repository::read_parts`] where that matters), or the store's trouble.
    pub fn create_parts(
        &self,
        place: &Place,
        parts: &[&[u8]],
        meta: Vec<u8>,
        env: &dyn Env,
    ) -> Result<Created, RepoError> {
        let bytes = self.build_parts(place, parts, meta, env)?;
        self.create_built(place, &bytes)
    }

    /// The bytes that [`Repository::create_parts`] would create.
    ///
    /// # Errors
    /// When there is no randomness, or a part breaks a limit.
    pub fn build_parts(
        &self,
        place: &Place,
        parts: &[&[u8]],
        meta: Vec<u8>,
        env: &dyn Env,
    ) -> Result<Vec<u8>, RepoError> {
        let too_large = |_| RepoError::TooLarge { what: place.key.to_string() };
        let mut encoder = FrameEncoder::new(Compression::Zstd(1), false).map_err(too_large)?;
        let mut frames = Vec::with_capacity(parts.len());
        for part in parts {
            let mut frame = EncodedFrame::default();
            encoder.encode(part, &mut frame).map_err(too_large)?;
            frames.push(frame);
        }
        let bytes = build(self.keys(), place, &mut frames, meta, env)?;
        if bytes.len() as u64 > OBJECT_LIMIT.as_u64() {
            return Err(RepoError::TooLarge { what: place.key.to_string() });
        }
        Ok(bytes)
    }

    /// Creates an object from bytes that were built before. Calling again with the same bytes is safe.
    ///
    /// # Errors
    /// As [`Repository::create_parts`].
    pub fn create_built(&self, place: &Place, bytes: &[u8]) -> Result<Created, RepoError> {
        self.store.create(&place.key, bytes).map_err(|error| match error.kind {
            StoreErrorKind::Taken => RepoError::Conflict { object: place.key.clone() },
            _ => RepoError::Store(error),
        })
    }

    /// The plain parts and the meta of a small object.
    ///
    /// # Errors
    /// As [`Repository::reader`].
    pub fn read_parts(&self, place: &Place) -> Result<(Vec<Vec<u8>>, Vec<u8>), RepoError> {
        let bytes = self.store.read(&place.key, OBJECT_LIMIT).map_err(|error| match error.kind {
            StoreErrorKind::NotFound => RepoError::Missing { object: place.key.clone() },
            _ => RepoError::Store(error),
        })?;
        let reader = ObjectReader::open_bytes(self.keys(), place, &bytes)?;
        let count = reader.frames().len();
        let mut span = reader.span_of(&bytes, 0..count)?;
        let mut decoder =
            FrameDecoder::new().map_err(|_| RepoError::TooLarge { what: place.key.to_string() })?;
        let mut parts = Vec::with_capacity(count);
        for frame in 0..count {
            let mut plain = Vec::new();
            reader.decode(&mut span, frame, &mut decoder, &mut plain)?;
            parts.push(plain);
        }
        Ok((parts, reader.meta().to_vec()))
    }

    /// Creates a small object whose single part is `value` as JSON.
    ///
    /// # Errors
    /// As [`Repository::create_parts`].
    pub fn create_json<T: Serialize>(
        &self,
        place: &Place,
        value: &T,
        env: &dyn Env,
    ) -> Result<Created, RepoError> {
        let json = serde_json::to_vec_pretty(value)
            .map_err(|_| RepoError::TooLarge { what: place.key.to_string() })?;
        self.create_parts(place, &[&json], Vec::new(), env)
    }

    /// Reads what [`Repository::create_json`] created.
    ///
    /// # Errors
    /// As [`Repository::read_parts`]; damage when the JSON is not of this type.
    pub fn read_json<T: DeserializeOwned>(&self, place: &Place) -> Result<T, RepoError> {
        let (parts, _) = self.read_parts(place)?;
        json_part(place, parts.first())
    }
}

/// Reads a JSON part of an object.
///
/// # Errors
/// Damage when there is none, or it is not of this type.
pub(super) fn json_part<T: DeserializeOwned>(place: &Place, part: Option<&Vec<u8>>) -> Result<T, RepoError> {
    let part = part.ok_or_else(|| RepoError::damaged(&place.key, "it has no contents"))?;
    serde_json::from_slice(part)
        .map_err(|error| RepoError::damaged(&place.key, format!("its contents are not understood: {error}")))
}
