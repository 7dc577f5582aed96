//! Reading and listing the files of a [`PosixStore`](super::posix::PosixStore).

use super::{Key, Listed};
use crate::durable::Directory;
use crate::units::ByteCount;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const COMPARE_AT_ONCE: usize = 256 * 1024;

/// Opens an object. What is no file (a folder, a pipe) is no object: `NOENT`.
pub(super) fn open(root: &Directory, key: &str) -> Result<File, Errno> {
    // Not blocking: opening a pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::openat(root, key, flags, Mode::empty())?;
    match size_of_object(&rustix::fs::fstat(&fd)?) {
        Some(_) => Ok(File::from(fd)),
        None => Err(Errno::NOENT),
    }
}

/// The size, when this is a regular file.
pub(super) fn size_of_object(stat: &Stat) -> Option<u64> {
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
        .then(|| u64::try_from(stat.st_size).unwrap_or(0))
}

pub(super) fn size(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// The bytes of `range`, which must end within the file; empty when it ends before it starts.
pub(super) fn range(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let length =
        usize::try_from(range.end.saturating_sub(range.start)).map_err(|_| io::Error::from(Errno::NOMEM))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| io::Error::from(Errno::NOMEM))?;
    bytes.resize(length, 0);
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// Whether the file holds exactly `bytes`.
pub(super) fn holds(file: &File, bytes: &[u8]) -> io::Result<bool> {
    if size(file)? != bytes.len() as u64 {
        return Ok(false);
    }
    let mut buffer = vec![0; COMPARE_AT_ONCE.min(bytes.len())];
    let mut at = 0;
    for expected in bytes.chunks(COMPARE_AT_ONCE) {
        let part = &mut buffer[..expected.len()];
        file.read_exact_at(part, at)?;
        if part != expected {
            return Ok(false);
        }
        at += expected.len() as u64;
    }
    Ok(true)
}

/// Whether two files hold the same bytes.
pub(super) fn hold_the_same(one: &File, other: &File) -> io::Result<bool> {
    let length = size(one)?;
    if length != size(other)? {
        return Ok(false);
    }
    let mut at = 0;
    while at < length {
        let end = length.min(at + COMPARE_AT_ONCE as u64);
        if range(one, at..end)? != range(other, at..end)? {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

/// What lies directly in a folder.
pub(super) enum Entry {
    Object(Listed),
    /// Its last part only.
    Folder(String),
}

/// Gives what lies in `folder` (empty for the root) to `each`; nothing when there is no such folder. What no
/// key can name, and what is neither file nor directory, is passed over. Links are followed, as in reading.
pub(super) fn one_level(root: &Directory, folder: &str, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
    let name = if folder.is_empty() { "." } else { folder };
    let opened = match root.open_below(name) {
        Ok(opened) => opened,
        Err(e) if absent(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    match read_entries(&opened, folder, each) {
        Err(e) if absent(&e) => Ok(()),
        read => read,
    }
}

fn absent(e: &io::Error) -> bool {
    let raw = e.raw_os_error();
    raw == Some(Errno::NOENT.raw_os_error()) || raw == Some(Errno::NOTDIR.raw_os_error())
}

fn read_entries(opened: &Directory, folder: &str, each: &mut dyn FnMut(Entry)) -> io::Result<()> {
    for entry in Dir::read_from(opened)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let key = if folder.is_empty() { Key::new(name) } else { Key::new(format!("{folder}/{name}")) };
        let Ok(key) = key else { continue };
        if entry.file_type() == FileType::Directory {
            each(Entry::Folder(name.to_owned()));
            continue;
        }
        let stat = match rustix::fs::statat(opened, name, AtFlags::empty()) {
            Ok(stat) => stat,
            // Deleted since, or a link to nothing.
            Err(Errno::NOENT | Errno::LOOP) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if let Some(size) = size_of_object(&stat) {
            each(Entry::Object(Listed { key, size: ByteCount::new(size) }));
        } else if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            each(Entry::Folder(name.to_owned()));
        }
    }
    Ok(())
}

/// A listing of everything below a folder.
pub(super) struct Walk<'a> {
    root: &'a Directory,
    /// The directories that we are in, so that a link to one of them does not lead round in circles.
    inside: Vec<(u64, u64)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Directory) -> Self {
        Self { root, inside: Vec::new() }
    }

    /// Nothing when there is no such folder. An error names the folder that could not be read.
    pub(super) fn below(
        &mut self,
        folder: &str,
        each: &mut dyn FnMut(Listed),
    ) -> Result<(), (PathBuf, io::Error)> {
        let trouble = |e: io::Error| (self.root.path().join(folder), e);
        let opened = match self.root.open_below(folder) {
            Ok(opened) => opened,
            Err(e) if absent(&e) => return Ok(()),
            Err(e) => return Err(trouble(e)),
        };
        let stat = rustix::fs::fstat(&opened).map_err(|errno| trouble(errno.into()))?;
        let identity = (stat.st_dev, stat.st_ino);
        if self.inside.contains(&identity) {
            return Ok(());
        }
        let mut folders = Vec::new();
        let read = read_entries(&opened, folder, &mut |entry| match entry {
            Entry::Object(listed) => each(listed),
            Entry::Folder(name) => folders.push(name),
        });
        match read {
            // Emptied and removed meanwhile.
            Err(e) if absent(&e) => return Ok(()),
            read => read.map_err(trouble)?,
        }
        drop(opened);
        self.inside.push(identity);
        for name in folders {
            self.below(&format!("{folder}/{name}"), each)?;
        }
        self.inside.pop();
        Ok(())
    }
}
