//! The real file system, for settings.

use crate::settings::Files;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Files as they are on this machine.
pub(super) struct RealFiles;

/// No configuration is as large; what is larger is not one.
const LARGEST: u64 = 4 << 20;

impl Files for RealFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut contents = Vec::new();
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > LARGEST {
            return Err(io::Error::other("it is larger than 4 MiB"));
        }
        Ok(contents)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }

    fn readable_by_all(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
    }
}
