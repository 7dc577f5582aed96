//! The file that PostgreSQL waits for.

use crate::durable;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file beside the target that becomes the target in one step, when every byte of it was checked.
///
/// Not synced: PostgreSQL asks again after a crash, and syncs what it keeps when it gives it its final name
/// (`KeepFileRestoredFromArchive`). Until [`TargetFile::show`] the target is what it was. A killed process
/// leaves a file that the next one for the same target takes over, so that they do not pile up.
#[derive(Debug)]
pub struct TargetFile {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    shown: bool,
}

impl TargetFile {
    /// Makes an empty one for `target`, whose directory must exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::other("the target has no file name"))?;
        let mut own = std::ffi::OsString::from(".walden-get-");
        own.push(name);
        let usual = target.with_file_name(&own);
        if let Some(file) = take_over(&usual)? {
            return Ok(Self { target: target.to_owned(), temporary: usual, file, shown: false });
        }
        // Another process works on the same target, or the file system has no locks: a name of our own.
        own.push(format!("-{}", std::process::id()));
        let temporary = target.with_file_name(&own);
        let _ = fs::remove_file(&temporary);
        let file = open().create_new(true).open(&temporary)?;
        Ok(Self { target: target.to_owned(), temporary, file, shown: false })
    }

    /// Forgets what was written.
    ///
    /// # Errors
    /// Of the file system.
    pub fn clear(&mut self) -> io::Result<()> {
        empty(&self.file)?;
        self.file.rewind()
    }

    /// Appends.
    ///
    /// # Errors
    /// Of the file system.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Writes at an offset. Several threads may.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads what was written at an offset.
    ///
    /// # Errors
    /// Of the file system, also when there is not so much.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Reads what there is at an offset into the beginning of `bytes`; gives how much, 0 at the end.
    ///
    /// # Errors
    /// Of the file system.
    pub fn read_some_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    /// Makes everything from `offset` on zero, up to `size`. Takes no space for it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn zero_from(&mut self, offset: u64, size: u64) -> io::Result<()> {
        self.file.set_len(offset)?;
        self.file.set_len(size)
    }

    /// Makes it `size` long: cut, or with zeros at the end that take no space.
    ///
    /// # Errors
    /// Of the file system.
    pub fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    /// Makes the file the target. Readers find the whole of it or what was there before.
    ///
    /// # Errors
    /// Of the file system; the target is what it was.
    pub fn show(mut self) -> io::Result<()> {
        durable::show_unsynced(&self.temporary, &self.target)?;
        self.shown = true;
        Ok(())
    }
}

impl Drop for TargetFile {
    fn drop(&mut self) {
        if !self.shown {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn open() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(
        i32::try_from((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC).bits()).unwrap_or(0),
    );
    options
}

/// Opens `path`, new or left by a process that died; `None` when somebody holds it.
fn take_over(path: &Path) -> io::Result<Option<File>> {
    for _ in 0..4 {
        let file = open().create(true).truncate(false).open(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // Before the lock its holder may have shown or removed it: then this is not the file of that name.
        let here = file.metadata()?;
        if fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (here.dev(), here.ino())) {
            empty(&file)?;
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Cuts the file to nothing. One that is empty is left alone: ext4 writes a file that was cut to disk when it
/// is closed, and PostgreSQL reads this one and throws it away.
fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.len() > 0 { file.set_len(0) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_shows_before_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("RECOVERYXLOG");
        let mut file = TargetFile::create(&target).unwrap();
        file.append(b"abcdef").unwrap();
        assert!(!target.exists());
        file.zero_from(2, 8).unwrap();
        file.show().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"ab\0\0\0\0\0\0");
        assert_eq!(names(dir.path()), ["RECOVERYXLOG"]);
    }

    #[test]
    fn one_that_is_dropped_leaves_the_target_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("RECOVERYXLOG");
        let mut file = TargetFile::create(&target).unwrap();
        file.append(b"old").unwrap();
        file.show().unwrap();
        let mut file = TargetFile::create(&target).unwrap();
        file.append(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["RECOVERYXLOG"]);
    }

    #[test]
    fn what_a_killed_process_left_is_taken_over_and_what_a_living_one_holds_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("RECOVERYXLOG");
        drop(
            OpenOptions::new().create_new(true).write(true).open(dir.path().join(".walden-get-RECOVERYXLOG")),
        );
        let mut first = TargetFile::create(&target).unwrap();
        first.append(b"first").unwrap();
        let mut second = TargetFile::create(&target).unwrap();
        second.append(b"2").unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        second.show().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"2");
        first.show().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["RECOVERYXLOG"]);
    }
}
