//! What is read on the database host: the file itself, and the control file beside it.

use super::PushError;
use crate::postgres::control_file::{CONTROL_FILE_SIZE, ControlFile, ControlFileError};
use crate::units::SystemIdentifier;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How often a control file with a wrong checksum is read again: the server may just be writing it.
const TORN_READS: u32 = 5;

/// No control file tells of which cluster a file is.
#[derive(Debug)]
pub struct NoControlFile {
    /// Where it was looked for, and what came of it.
    pub looked: Vec<(PathBuf, Result<ControlFileError, io::Error>)>,
}

impl fmt::Display for NoControlFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no control file says of which cluster the file is")?;
        for (at, (path, why)) in self.looked.iter().enumerate() {
            write!(f, "{} {}: ", if at == 0 { ";" } else { "," }, path.display())?;
            match why {
                Ok(error) => write!(f, "{error}")?,
                Err(error) => write!(f, "{error}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for NoControlFile {}

/// The system identifier in the control file of the data directory that `path`, a file in its `pg_wal`, is
/// of; else of `data_directory`.
///
/// Beside the file wins: it lies in that cluster's own directory, whatever the settings say. The directory
/// is found by the name alone, so that a `pg_wal` that is a symbolic link does not lead away.
///
/// # Errors
/// When neither has a control file that can be read.
pub fn system_identifier(path: &Path, data_directory: Option<&Path>) -> Result<SystemIdentifier, PushError> {
    // `pg_wal/X` in the data directory itself: its parent's parent is the empty path, the working directory.
    let beside = path.parent().and_then(Path::parent);
    let mut looked = Vec::new();
    for directory in beside.into_iter().chain(data_directory) {
        let control = directory.join("global/pg_control");
        match read_control_file(&control) {
            Ok(file) => return Ok(file.system_identifier),
            Err(why) => looked.push((control, why)),
        }
    }
    Err(PushError::NoControlFile(NoControlFile { looked }))
}

fn read_control_file(path: &Path) -> Result<ControlFile, Result<ControlFileError, io::Error>> {
    let mut tried = 0;
    loop {
        let mut bytes = Vec::with_capacity(CONTROL_FILE_SIZE);
        File::open(path)
            .and_then(|file| file.take(CONTROL_FILE_SIZE as u64).read_to_end(&mut bytes))
            .map_err(Err)?;
        match ControlFile::parse(&bytes) {
            Ok(file) => return Ok(file),
            Err(error) => {
                tried += 1;
                if tried >= TORN_READS {
                    return Err(Ok(error));
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

/// A small file whole.
pub(super) fn read_small(path: &Path, longest: u64) -> Result<Vec<u8>, PushError> {
    let failed = |source| PushError::Read { path: path.to_owned(), source };
    let file = open(path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > longest {
        return Err(PushError::TooLong(length));
    }
    let mut contents = Vec::new();
    file.take(longest.saturating_add(1)).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() as u64 != length {
        return Err(PushError::Changed);
    }
    Ok(contents)
}

/// Opens a regular file.
pub(super) fn open(path: &Path) -> Result<File, PushError> {
    let failed = |source| PushError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
    }
    Ok(file)
}
