//! An object of any bytes, also with a right header and seals, so that the footer and frames are reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walden::repo::frame::FrameDecoder;
use walden::repo::keys::Keys;
use walden::repo::layout::{Kind, Place};
use walden::repo::object::{ObjectReader, TRAILER_MAGIC};
use walden::repo::seal::{Identity, Sealer};
use walden::storage::Key;

fuzz_target!(|bytes: &[u8]| {
    let keys = Keys::plain([7; 16]);
    let place = Place {
        key: Key::new("x").unwrap(),
        identity: Identity { kind: Kind::Pack, name: "x".to_owned() },
    };
    let read = |object: &[u8]| {
        let Ok(reader) = ObjectReader::open_bytes(&keys, &place, object) else { return };
        let frames = reader.frames().len();
        let Ok(mut span) = reader.span_of(object, 0..frames) else { return };
        let mut decoder = FrameDecoder::new().unwrap();
        for frame in 0..frames {
            let _ = reader.decode(&mut span, frame, &mut decoder, &mut Vec::new());
        }
    };
    read(bytes);

    // One frame and a footer, both sealed as the format says, whatever they hold.
    let Some((first, rest)) = bytes.split_first() else { return };
    let (frame, footer) = rest.split_at(usize::from(*first).min(rest.len()));
    let sealer = Sealer::new(&keys, &place.identity, [1; 32]);
    let (mut frame, mut footer) = (frame.to_vec(), footer.to_vec());
    sealer.seal(0, false, &mut frame);
    sealer.seal(1, true, &mut footer);
    let length = (footer.len() as u32).to_le_bytes();
    read(&[sealer.header(), &frame, &footer, &length, &1_u32.to_le_bytes(), TRAILER_MAGIC].concat());
});
