use super::*;
use crate::env::Fixed;
use crate::repo::error::RepoError;
use crate::repo::frame::{Compression, EncodedFrame, FrameDecoder, FrameEncoder};
use crate::repo::keys::{Keys, Secret, new_master};
use crate::repo::layout::{Kind, Place};
use crate::repo::seal::Identity;
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::memory::MemoryStore;
use crate::storage::{Key, Store};
use crate::units::Timestamp;

fn env() -> Fixed {
    Fixed::new(Timestamp::from_unix_seconds(0), 7)
}

fn sealed_keys(repository: u8) -> Keys {
    new_master([repository; 16], &Secret::generate(&env()).unwrap(), &env()).unwrap().0
}

fn place(name: &str) -> Place {
    Place {
        key: Key::new(format!("data/{name}")).unwrap(),
        identity: Identity { kind: Kind::Pack, name: name.to_owned() },
    }
}

fn object(keys: &Keys, place: &Place, frames: &[&[u8]]) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(Compression::Zstd(1), true).unwrap();
    let mut encoded: Vec<EncodedFrame> = frames
        .iter()
        .map(|plain| {
            let mut frame = EncodedFrame::default();
            encoder.encode(plain, &mut frame).unwrap();
            frame
        })
        .collect();
    build(keys, place, &mut encoded, b"meta".to_vec(), &env()).unwrap()
}

fn read_all(keys: &Keys, place: &Place, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RepoError> {
    let reader = ObjectReader::open_bytes(keys, place, bytes)?;
    let mut decoder = FrameDecoder::new().unwrap();
    let mut span = reader.span_of(bytes, 0..reader.frames().len())?;
    (0..reader.frames().len())
        .map(|frame| {
            let mut plain = Vec::new();
            reader.decode(&mut span, frame, &mut decoder, &mut plain).map(|()| plain)
        })
        .collect()
}

#[test]
fn objects_come_back_and_no_changed_bit_no_cut_and_no_addition_goes_unseen() {
    let frames: [&[u8]; 4] = [b"first", b"", &[7; 5000], b"last"];
    for keys in [Keys::plain([1; 16]), sealed_keys(1)] {
        let place = place("a");
        let bytes = object(&keys, &place, &frames);
        assert_eq!(read_all(&keys, &place, &bytes).unwrap(), frames);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let error = read_all(&keys, &place, &changed).expect_err("a changed bit went unseen");
                let named = matches!(&error, RepoError::Damaged { object, .. } if *object == place.key);
                assert!(named, "byte {at} bit {bit}: {error}");
            }
        }
        for cut in 0..bytes.len() {
            assert!(read_all(&keys, &place, &bytes[..cut]).is_err(), "cut to {cut}");
        }
        let mut longer = bytes.clone();
        longer.insert(bytes.len() / 2, 0);
        assert!(read_all(&keys, &place, &longer).is_err());
        longer.truncate(bytes.len());
        assert!(read_all(&keys, &place, &longer).is_err());
    }
}

#[test]
fn an_object_of_another_name_kind_or_repository_does_not_open() {
    for (here, there) in [(Keys::plain([1; 16]), Keys::plain([2; 16])), (sealed_keys(1), sealed_keys(2))] {
        let bytes = object(&here, &place("a"), &[b"contents"]);
        assert!(matches!(read_all(&here, &place("b"), &bytes), Err(RepoError::Damaged { .. })));
        assert!(matches!(read_all(&there, &place("a"), &bytes), Err(RepoError::Damaged { .. })));
        let mut other_kind = place("a");
        other_kind.identity.kind = Kind::Map;
        assert!(matches!(read_all(&here, &other_kind, &bytes), Err(RepoError::Damaged { .. })));
    }
}

#[test]
fn an_object_that_is_not_encrypted_is_refused_in_a_repository_that_is() {
    let bytes = object(&Keys::plain([1; 16]), &place("a"), &[b"contents"]);
    let error = read_all(&sealed_keys(1), &place("a"), &bytes).unwrap_err();
    assert_eq!(error.to_string(), "data/a is damaged: it is not encrypted, but the repository is");
}

#[test]
fn an_object_of_a_suite_that_is_not_known_is_a_newer_ones() {
    for keys in [Keys::plain([1; 16]), sealed_keys(1)] {
        let mut bytes = object(&keys, &place("a"), &[b"contents"]);
        // Its own seal, which nobody here can make: the footer does not open with ours.
        let footer_tag = bytes.len() - TRAILER_LENGTH - 1;
        bytes[9] = 7;
        bytes[footer_tag] ^= 1;
        let error = read_all(&keys, &place("a"), &bytes).unwrap_err();
        assert!(matches!(error, RepoError::NewerFormat { format: 7, .. }), "{error}");
    }
}

#[test]
fn frames_of_two_objects_cannot_be_exchanged() {
    let keys = sealed_keys(1);
    let one = object(&keys, &place("a"), &[b"AAAA", b"BBBB"]);
    // Two frames of equal length within one object, swapped.
    let mut swapped = one.clone();
    let (first, second) = (96..96 + 20, 96 + 20..96 + 40);
    swapped.copy_within(second.clone(), first.start);
    swapped[second].copy_from_slice(&one[first]);
    let error = read_all(&keys, &place("a"), &swapped).unwrap_err();
    assert_eq!(error.to_string(), "data/a is damaged: frame 0 fails its seal");
}

#[test]
fn an_object_that_is_read_at_once_takes_one_request_and_is_checked_all_the_same() {
    let keys = sealed_keys(1);
    let place = place("a");
    let mut noise = vec![0; 400_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let parts: Vec<&[u8]> = noise.chunks(100_000).collect();
    let bytes = object(&keys, &place, &parts);
    let read = |bytes: &[u8], most: u64| -> Result<(Vec<Vec<u8>>, u64), RepoError> {
        let memory = MemoryStore::new();
        memory.create(&place.key, bytes).unwrap();
        let store = FaultyStore::counting(memory);
        let reader = ObjectReader::open_at_once(&store, &keys, &place, most)?;
        let mut decoder = FrameDecoder::new().unwrap();
        let mut frames = Vec::new();
        for frame in 0..reader.frames().len() {
            let mut span = reader.fetch(&store, frame..frame + 1)?;
            let mut plain = Vec::new();
            reader.decode(&mut span, frame, &mut decoder, &mut plain)?;
            frames.push(plain);
        }
        Ok((frames, store.calls()))
    };
    // All of it at once; the last two frames; no more than for opening.
    for (most, requests) in [(1 << 20, 1), (250_000, 4), (0, 6)] {
        let (frames, calls) = read(&bytes, most).unwrap();
        assert_eq!(frames, parts);
        assert_eq!(calls, requests, "at most {most} bytes at once");
    }
    for at in (0..bytes.len()).step_by(997) {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        assert!(read(&changed, 1 << 20).is_err(), "byte {at}");
        assert!(read(&bytes[..at], 1 << 20).is_err(), "cut at {at}");
    }
}

#[test]
fn an_object_that_is_opened_in_one_trip_is_the_one_that_is_opened_in_two() {
    let keys = sealed_keys(1);
    let place = place("a");
    let opened = |bytes: &[u8], store_fails_at: Option<u64>| {
        let memory = MemoryStore::new();
        memory.create(&place.key, bytes).unwrap();
        let store = match store_fails_at {
            None => FaultyStore::counting(memory),
            Some(at) => FaultyStore::failing_only(memory, at, Fault::NeverSent),
        };
        let reader = ObjectReader::open_in_one_trip(&store, &keys, &place)?;
        let mut decoder = FrameDecoder::new().unwrap();
        let last = reader.frames().len() - 1;
        let mut span = reader.fetch(&store, last..last + 1)?;
        let mut plain = Vec::new();
        reader.decode(&mut span, last, &mut decoder, &mut plain)?;
        Ok::<_, RepoError>((plain, reader.size(), store.calls()))
    };
    // Of one small frame; larger than the first read; with a footer that is larger too.
    let mut noise = vec![0; 100_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let many: Vec<&[u8]> = noise.chunks(50).collect();
    for (frames, requests) in [(vec![&b"small"[..]], 3), (vec![&noise, b"last"], 3), (many, 4)] {
        let bytes = object(&keys, &place, &frames);
        let (plain, size, calls) = opened(&bytes, None).unwrap();
        assert_eq!((plain.as_slice(), size, calls), (*frames.last().unwrap(), bytes.len() as u64, requests));
        for at in 0..requests {
            assert!(matches!(opened(&bytes, Some(at)), Err(RepoError::Store(_))), "request {at}");
        }
        for at in (0..bytes.len()).rev().step_by(1009) {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            let in_two = ObjectReader::open_bytes(&keys, &place, &changed).is_ok();
            if !in_two {
                assert!(matches!(opened(&changed, None), Err(RepoError::Damaged { .. })), "byte {at}");
            }
        }
    }
    let store = MemoryStore::new();
    let error = ObjectReader::open_in_one_trip(&store, &keys, &place).unwrap_err();
    assert!(matches!(error, RepoError::Missing { .. }), "{error}");
}
