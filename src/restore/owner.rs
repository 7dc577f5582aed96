//! To whom the restored files belong.
//!
//! Never the numbers in the image: on this host they may be somebody else's.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// A user and a group of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
}

impl Owner {
    /// Whoever runs this program.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self { user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() }
    }

    /// The owner of a file.
    #[must_use]
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self { user: metadata.uid(), group: metadata.gid() }
    }

    /// Reads `USER`, `USER:GROUP`, or numbers. Without a group it is the user's own.
    ///
    /// # Errors
    /// When there is no such user or group.
    pub fn parse(text: &str) -> Result<Self, NotAnOwner> {
        let refuse = || NotAnOwner(text.to_owned());
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let (user, own_group) = match user.parse() {
            Ok(number) => (number, numbers("passwd", user).map(|found| found.1)),
            Err(_) => numbers("passwd", user).map(|(user, group)| (user, Some(group))).ok_or_else(refuse)?,
        };
        let group = match group {
            None => own_group.ok_or_else(refuse)?,
            Some(group) => match group.parse() {
                Ok(number) => number,
                Err(_) => numbers("group", group).ok_or_else(refuse)?.0,
            },
        };
        Ok(Self { user, group })
    }

    /// The user's name, or its number where it has none.
    #[must_use]
    pub fn user_name(self) -> String {
        name_of("passwd", self.user)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user_name(), name_of("group", self.group))
    }
}

/// There is no such user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnOwner(String);

impl fmt::Display for NotAnOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a user of this host, nor user:group", self.0)
    }
}

impl std::error::Error for NotAnOwner {}

/// The numbers in the third and fourth field of an entry. The file first; directories of users that are not in
/// it (LDAP) are asked through getent, which every system with such a directory has.
fn numbers(table: &str, name: &str) -> Option<(u32, u32)> {
    if name.is_empty() || name.starts_with('-') || name.contains(['\n', ':', '\0']) {
        return None;
    }
    let fields = |line: &str| -> Option<(u32, u32)> {
        let mut fields = line.split(':');
        (fields.next()? == name || fields.clone().nth(1)? == name).then_some(())?;
        let number = fields.nth(1)?.parse().ok()?;
        // In the group table the fourth field holds members instead.
        Some((number, fields.next()?.parse().unwrap_or(number)))
    };
    let file = std::fs::read_to_string(Path::new("/etc").join(table)).unwrap_or_default();
    file.lines().find_map(fields).or_else(|| {
        let answer = Command::new("getent").arg(table).arg(name).output().ok()?;
        String::from_utf8_lossy(&answer.stdout).lines().find_map(fields)
    })
}

fn name_of(table: &str, number: u32) -> String {
    let wanted = number.to_string();
    let name = |line: &str| -> Option<String> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then(|| name.to_owned())
    };
    let file = std::fs::read_to_string(Path::new("/etc").join(table)).unwrap_or_default();
    file.lines().find_map(name).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_by_name_and_number() {
        assert_eq!(Owner::parse("root"), Ok(Owner { user: 0, group: 0 }));
        assert_eq!(Owner::parse("0:0"), Ok(Owner { user: 0, group: 0 }));
        assert_eq!(Owner::parse("12345:54321"), Ok(Owner { user: 12345, group: 54321 }));
        assert_eq!(Owner::parse("root:root").map(Owner::user_name), Ok("root".to_owned()));
        for bad in ["", "no-such-user-here", "root:no-such-group", ":", "-x", "a\nb"] {
            assert!(Owner::parse(bad).is_err(), "{bad}");
        }
    }
}
