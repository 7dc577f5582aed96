//! Object headers and the seal of every frame. This file holds all use of ciphers on stored data.
//!
//! An object's header names the master key and a fresh salt. Its key is derived from the salt, the master's
//! key for the object's purpose and the object's *identity* (repository, kind and logical name, not its
//! path): an object that was moved to another name, or comes from another repository, does not open.
//! Each frame's nonce is its number and whether it is the last, so frames cannot be swapped, dropped or
//! cut off. A salt is never used twice, so neither is a pair of key and nonce.
//!
//! AES-256-GCM is aws-lc's: the `aes-gcm` crate's took 5.6 % of a backup's processor time where this takes 2.7 %
//! (AVX-512; one machine). A test holds the two against each other.

use super::keys::Keys;
use super::layout::Kind;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// How objects begin.
pub const MAGIC: &[u8; 8] = b"WALDEN1\n";
/// Bytes of the header before its extensions.
pub const HEADER_LENGTH: usize = 96;
/// The longest header: extensions are at most this long together with the fixed part.
pub const LONGEST_HEADER: usize = 4096;
/// Bytes that sealing adds to each frame.
pub const TAG_LENGTH: usize = 16;

/// How an object's frames are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Not encrypted: a keyed BLAKE3 of each frame, 16 bytes. Against accidents and swapped objects, not
    /// against anyone who can write to the repository.
    Plain,
    /// AES-256-GCM, key by HKDF-SHA-256.
    Aes256Gcm,
}

impl Suite {
    const fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Aes256Gcm => 1,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Plain),
            1 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }
}

/// What an object is and where it belongs, whatever path it lies under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The kind of object, which also decides the purpose key.
    pub kind: Kind,
    /// The logical name, for example `wal/7572093145086623041/000000010000000A000000FF`.
    pub name: String,
}

/// Why a header does not open. Callers add the object's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It does not begin as objects do, is cut, or contradicts itself.
    NotAnObject,
    /// It was written by a newer walden.
    Newer(u8),
    /// The object is of another kind than the one asked for.
    OtherKind,
    /// The object is sealed with a master key that is not held.
    UnknownMaster([u8; 16]),
    /// The master key is held, but the header's commitment to it does not match: the header was changed.
    Commitment,
    /// The repository is encrypted and the object is not: somebody put it there.
    NotSealed,
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("it does not begin with an object header"),
            Self::Newer(suite) => write!(f, "it uses cipher suite {suite}, which this version does not know"),
            Self::OtherKind => f.write_str("it is an object of another kind"),
            Self::UnknownMaster(id) => {
                f.write_str("it is sealed with master key ")?;
                id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(", which this repository does not hold")
            }
            Self::Commitment => f.write_str("its header does not fit the key it names"),
            Self::NotSealed => f.write_str("it is not encrypted, but the repository is"),
        }
    }
}

/// A frame did not pass its seal: it, the header or the frame's place was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealBroken;

enum Cipher {
    Plain([u8; 32]),
    /// `None` seals and opens nothing. It does not come up: a key of this length is always taken.
    Aes(Option<Box<LessSafeKey>>),
}

/// The seal of one object's frames; opens and seals. Cheap to share between threads.
pub struct Sealer {
    cipher: Cipher,
    header: Vec<u8>,
    header_hash: [u8; 32],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// The info string of an object's key: the lengths are fixed or implied, so no two identities collide.
fn object_info(repository: &[u8; 16], identity: &Identity) -> Vec<u8> {
    let mut info = Vec::with_capacity(64);
    info.extend_from_slice(b"walden object 1");
    info.extend_from_slice(repository);
    info.push(identity.kind.code());
    info.extend_from_slice(identity.name.as_bytes());
    info
}

fn commitment(salt: &[u8; 32], purpose_key: &[u8; 32]) -> [u8; 32] {
    let mut commitment = [0; 32];
    // Of the key and the salt only: a right key in a wrong place must read as damage, not as a wrong key.
    expand(salt, purpose_key, b"walden commitment 1", &mut commitment);
    commitment
}

/// HKDF-SHA-256 into 32 bytes, which is always within its limit.
pub(super) fn expand(salt: &[u8], key: &[u8], info: &[u8], into: &mut [u8; 32]) {
    let derived = Hkdf::<Sha256>::new(Some(salt), key).expand(info, into);
    debug_assert!(derived.is_ok(), "HKDF-SHA-256 gives up to 8,160 bytes");
}

impl Sealer {
    /// The seal for a new object: `salt` must be fresh randomness for every encoding.
    #[must_use]
    pub fn new(keys: &Keys, identity: &Identity, salt: [u8; 32]) -> Self {
        let mut header = Vec::with_capacity(HEADER_LENGTH);
        header.extend_from_slice(MAGIC);
        header.push(identity.kind.code());
        header.push(keys.suite().code());
        header.extend_from_slice(&0_u16.to_le_bytes());
        header.extend_from_slice(&(HEADER_LENGTH as u16).to_le_bytes());
        header.extend_from_slice(&0_u16.to_le_bytes());
        let (master, purpose_key) = keys.writing(identity.kind.purpose());
        header.extend_from_slice(&master);
        header.extend_from_slice(&salt);
        let bound = match keys.suite() {
            Suite::Plain => [0; 32],
            Suite::Aes256Gcm => commitment(&salt, &purpose_key),
        };
        header.extend_from_slice(&bound);
        Self::with_header(keys, identity, header, &purpose_key, &salt)
    }

    fn with_header(
        keys: &Keys,
        identity: &Identity,
        header: Vec<u8>,
        purpose_key: &[u8; 32],
        salt: &[u8; 32],
    ) -> Self {
        let header_hash = *blake3::hash(&header).as_bytes();
        let info = object_info(keys.repository(), identity);
        let cipher = match keys.suite() {
            Suite::Plain => {
                let mut hasher = blake3::Hasher::new_derive_key("walden 1 plain frame seal");
                hasher.update(&header_hash).update(&info);
                Cipher::Plain(*hasher.finalize().as_bytes())
            }
            Suite::Aes256Gcm => {
                let mut key = Zeroizing::new([0; 32]);
                expand(salt, purpose_key, &info, &mut key);
                let key = UnboundKey::new(&AES_256_GCM, &*key).ok();
                Cipher::Aes(key.map(|key| Box::new(LessSafeKey::new(key))))
            }
        };
        Self { cipher, header, header_hash }
    }

    /// Opens the header at the beginning of `bytes` for the object that is asked for.
    ///
    /// # Errors
    /// See [`HeaderError`]. A header of another identity opens here; its frames do not.
    pub fn open(keys: &Keys, identity: &Identity, bytes: &[u8]) -> Result<Self, HeaderError> {
        let fixed: &[u8; HEADER_LENGTH] = bytes.first_chunk().ok_or(HeaderError::NotAnObject)?;
        if &fixed[..8] != MAGIC {
            return Err(HeaderError::NotAnObject);
        }
        let suite = Suite::from_code(fixed[9]).ok_or(HeaderError::Newer(fixed[9]))?;
        if fixed[8] != identity.kind.code() {
            return Err(HeaderError::OtherKind);
        }
        // Flags and extensions belong to later versions: whatever they mean, this version would get it wrong.
        let length = usize::from(u16::from_le_bytes([fixed[12], fixed[13]]));
        if length != HEADER_LENGTH || fixed[10..12] != [0, 0] || fixed[14..16] != [0, 0] {
            return Err(HeaderError::NotAnObject);
        }
        if suite != keys.suite() {
            return Err(if suite == Suite::Plain {
                HeaderError::NotSealed
            } else {
                HeaderError::NotAnObject
            });
        }
        let mut master = [0; 16];
        master.copy_from_slice(&fixed[16..32]);
        let mut salt = [0; 32];
        salt.copy_from_slice(&fixed[32..64]);
        let purpose_key =
            keys.reading(&master, identity.kind.purpose()).ok_or(HeaderError::UnknownMaster(master))?;
        let bound = match suite {
            Suite::Plain => [0; 32],
            Suite::Aes256Gcm => commitment(&salt, &purpose_key),
        };
        if bound != fixed[64..96] {
            return Err(HeaderError::Commitment);
        }
        Ok(Self::with_header(keys, identity, fixed.to_vec(), &purpose_key, &salt))
    }

    /// As [`Sealer::open`], whatever suite the header names, as if it were the repository's: what then opens a
    /// frame had another byte there when it was sealed.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn open_as_ours(keys: &Keys, identity: &Identity, bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut fixed: [u8; HEADER_LENGTH] = *bytes.first_chunk().ok_or(HeaderError::NotAnObject)?;
        fixed[9] = keys.suite().code();
        Self::open(keys, identity, &fixed)
    }

    /// The header's bytes, with which the object begins.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Frame number in eight bytes, three zero bytes, and 1 for the last frame of the object.
    fn nonce(frame: u64, last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&frame.to_le_bytes());
        nonce[11] = u8::from(last);
        nonce
    }

    /// Encrypts `bytes` in place and appends the tag.
    ///
    /// # Errors
    /// For frames of 64 GiB and more, which the frame limit forbids; `bytes` are then not to be stored.
    pub fn seal(&self, frame: u64, last: bool, bytes: &mut Vec<u8>) -> Result<(), SealBroken> {
        let nonce = Self::nonce(frame, last);
        match &self.cipher {
            Cipher::Plain(key) => {
                let tag = plain_tag(key, &nonce, bytes);
                bytes.extend_from_slice(&tag);
            }
            Cipher::Aes(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .as_ref()
                    .and_then(|key| {
                        key.seal_in_place_separate_tag(nonce, Aad::from(&self.header_hash), bytes).ok()
                    })
                    .ok_or(SealBroken)?;
                bytes.extend_from_slice(tag.as_ref());
            }
        }
        Ok(())
    }

    /// Checks and decrypts `sealed` in place; the result is its front without the tag.
    ///
    /// # Errors
    /// When the seal is broken; the contents of `sealed` are then of no use.
    pub fn open_frame<'a>(
        &self,
        frame: u64,
        last: bool,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealBroken> {
        let length = sealed.len().checked_sub(TAG_LENGTH).ok_or(SealBroken)?;
        let nonce = Self::nonce(frame, last);
        match &self.cipher {
            Cipher::Plain(key) => {
                let (bytes, tag) = sealed.split_at_mut(length);
                if plain_tag(key, &nonce, bytes) == *tag { Ok(bytes) } else { Err(SealBroken) }
            }
            Cipher::Aes(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let key = key.as_ref().ok_or(SealBroken)?;
                key.open_in_place(nonce, Aad::from(&self.header_hash), sealed).map_err(|_| SealBroken)
            }
        }
    }
}

fn plain_tag(key: &[u8; 32], nonce: &[u8; 12], bytes: &[u8]) -> [u8; TAG_LENGTH] {
    let hash = blake3::Hasher::new_keyed(key).update(nonce).update(bytes).finalize();
    let mut tag = [0; TAG_LENGTH];
    tag.copy_from_slice(&hash.as_bytes()[..TAG_LENGTH]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Fixed;
    use crate::repo::keys::{Secret, new_master};
    use crate::units::Timestamp;
    use aes_gcm::aead::{AeadInOut, KeyInit};
    use aes_gcm::{Aes256Gcm, Tag};

    #[test]
    fn two_implementations_seal_alike() {
        let env = Fixed::new(Timestamp::from_unix_seconds(0), 7);
        let (keys, ..) = new_master([1; 16], &Secret::generate(&env).unwrap(), &env).unwrap();
        let identity = Identity { kind: Kind::Pack, name: "data/a".to_owned() };
        let salt = [3; 32];
        let sealer = Sealer::new(&keys, &identity, salt);
        let (_, purpose_key) = keys.writing(identity.kind.purpose());
        let mut key = [0; 32];
        expand(&salt, &*purpose_key, &object_info(keys.repository(), &identity), &mut key);
        let other = Aes256Gcm::new((&key).into());
        // Around the widths at which implementations change their gait.
        for length in [0, 1, 15, 16, 17, 127, 128, 255, 256, 1023, 4096, 65_537, 131_072] {
            let mut plain = vec![0; length];
            blake3::Hasher::new().update(&[length as u8]).finalize_xof().fill(&mut plain);
            for (frame, last) in [(0, false), (1, false), (u64::MAX, true)] {
                let mut ours = plain.clone();
                sealer.seal(frame, last, &mut ours).unwrap();
                let mut theirs = plain.clone();
                let nonce = aes_gcm::Nonce::from(Sealer::nonce(frame, last));
                let tag: Tag = other
                    .encrypt_inout_detached(&nonce, &sealer.header_hash, theirs.as_mut_slice().into())
                    .unwrap();
                theirs.extend_from_slice(&tag);
                assert!(ours == theirs, "{length} bytes, frame {frame}");
                assert_eq!(sealer.open_frame(frame, last, &mut theirs), Ok(&mut plain.clone()[..]));
                assert_eq!(sealer.open_frame(frame, !last, &mut ours), Err(SealBroken));
            }
        }
    }
}
