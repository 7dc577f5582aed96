//! Where a repository's key comes from. It is fetched when it is needed, and not before.

use super::Secret;
use super::table::{Lookup, look_up};
use crate::failure::{Class, Failure};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// How a repository is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// Not at all.
    None,
    /// AES-256-GCM under a key from here.
    Aes256Gcm(KeySource),
}

/// Where the key or passphrase is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In the configuration file or the environment.
    Given(Secret),
    /// In a file.
    File(PathBuf),
    /// Printed by a command.
    Command(String),
    /// Nowhere: the settings name no key for this repository.
    Missing {
        /// The repository's number.
        repository: u16,
    },
}

/// Longer than any passphrase; what is longer is not a key file.
const LONGEST_KEY: u64 = 4096;

impl KeySource {
    /// Fetches the key: reads the file or runs the command.
    ///
    /// # Errors
    /// [`Class::KeyRejected`] when there is none or it cannot be had. The text holds nothing of what was read.
    pub fn resolve(&self) -> Result<Secret, Failure> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let refuse = |why: String| {
                    Failure::new(Class::KeyRejected, format!("cannot read the key file {}", path.display()))
                        .because_text(why)
                        .next("Check repoN-cipher-pass-file, and that this user may read it; `walden config` tells where it is set.")
                };
                let file = std::fs::File::open(path).map_err(|e| refuse(e.to_string()))?;
                read_line(file).map_err(refuse)
            }
            Self::Command(command) => run(command),
            Self::Missing { repository } => Err(Failure::new(
                Class::KeyRejected,
                format!("repo{repository} is encrypted and no key is given"),
            )
            .next(format!(
                "Name one of repo{repository}-cipher-pass-file, repo{repository}-cipher-pass-command or \
                         repo{repository}-cipher-pass in the configuration file."
            ))
            .next("`walden key-generate` prints a new key, for a repository that is yet to be created.")),
        }
    }
}

/// The one line of text that `from` gives.
pub(super) fn read_line(from: impl std::io::Read) -> Result<Secret, String> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    from.take(LONGEST_KEY + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > LONGEST_KEY {
        return Err(format!("it is longer than {LONGEST_KEY} bytes, so it is not a key"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not text".to_owned())?;
    let line = text.lines().next().unwrap_or("").trim();
    if line.is_empty() {
        return Err("its first line is empty".into());
    }
    Ok(Secret::new(line.to_owned()))
}

/// Whether a variable of the environment sets an option whose value is a secret: `WALDEN_REPO1_S3_KEY_SECRET`.
fn holds_a_secret(variable: &str) -> bool {
    let Some(name) = variable.strip_prefix("WALDEN_") else { return false };
    let option = name.to_lowercase().replace('_', "-");
    matches!(look_up(&option, None), Lookup::Known(spec, _) if spec.secret)
}

fn run(command: &str) -> Result<Secret, Failure> {
    let refuse = |why: String| {
        // The command's text may hold a token, so it is not shown.
        Failure::new(Class::KeyRejected, "the command that prints the repository's key did not give one")
            .because_text(why)
            .next("Run the command of repoN-cipher-pass-command by hand, as the same user.")
    };
    let mut shell = Command::new("/bin/sh");
    // What it prints besides the key goes into logs, PostgreSQL's among them; `env` or `set` there must not tell
    // more than the command itself knows.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(holds_a_secret) {
            shell.env_remove(name);
        }
    }
    let mut child = shell
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| refuse(format!("sh could not be started: {e}")))?;
    let read = child.stdout.take().map_or_else(|| Err("it has no output".to_owned()), read_line);
    let ended = child.wait().map_err(|e| refuse(e.to_string()))?;
    if !ended.success() {
        return Err(refuse(format!("it ended with {ended}")));
    }
    read.map_err(|why| refuse(format!("of what it printed: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_command_is_the_key() {
        let source = KeySource::Command("printf 'open sesame\\nmore\\n'".into());
        assert_eq!(source.resolve().unwrap().expose(), "open sesame");
    }

    #[test]
    fn a_command_that_fails_gives_no_key_and_its_text_is_not_shown() {
        for command in
            ["echo tok3n; exit 3", "true tok3n", "printf '\\n' # tok3n", "yes tok3n | head -c 9999"]
        {
            let failure = KeySource::Command(command.into()).resolve().unwrap_err();
            assert_eq!(failure.class(), Class::KeyRejected);
            assert!(!failure.to_string().contains("tok3n"), "{failure}");
        }
    }

    #[test]
    fn variables_that_hold_secrets_are_told_from_others() {
        for name in [
            "WALDEN_REPO1_CIPHER_PASS",
            "WALDEN_REPO12_S3_KEY_SECRET",
            "WALDEN_REPO2_S3_TOKEN",
            "WALDEN_REPO1_AZURE_KEY",
            "WALDEN_REPO1_S3_SSE_CUSTOMER_KEY",
        ] {
            assert!(holds_a_secret(name), "{name}");
        }
        for name in [
            "WALDEN_CONFIG",
            "WALDEN_REPO1_S3_KEY_SECRET_FILE",
            "WALDEN_REPO1_CIPHER_PASS_FILE",
            "HOME",
            "AWS_PROFILE",
        ] {
            assert!(!holds_a_secret(name), "{name}");
        }
    }

    #[test]
    fn a_key_file_is_read_when_it_is_needed() {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b" a key \n").unwrap();
        let source = KeySource::File(file.path().to_owned());
        assert_eq!(source.resolve().unwrap().expose(), "a key");
        drop(file);
        assert_eq!(source.resolve().unwrap_err().class(), Class::KeyRejected);
    }
}
