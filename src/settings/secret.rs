//! Text that must not be shown.

use std::fmt;
use zeroize::Zeroizing;

/// A key or passphrase. It has no `Display`, its `Debug` shows nothing of it, and its memory is cleared
/// when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` into custody.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself: for deriving keys, never for showing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Whether a connection string may hold a password: by its name in pairs or parameters, or before the `@` of a URL.
/// Errs on the side of yes.
#[must_use]
pub fn may_hold_password(conninfo: &str) -> bool {
    let in_url = conninfo.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    });
    in_url || conninfo.to_ascii_lowercase().contains("password")
}

/// What is shown in place of such a string.
pub const HOLDS_PASSWORD: &str = "******** (it holds a password)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_with_a_password_are_known() {
        for with in [
            "host=db1 password=x",
            "PASSWORD = 'a b' host=db1",
            "postgresql://u:p@db1/x",
            "postgres://db1?password=x",
            "postgresql://u:p%40@db1,db2:1/x?sslmode=require",
            "sslpassword=x",
        ] {
            assert!(may_hold_password(with), "{with}");
        }
        for without in
            ["host=db1 passfile=/p", "postgresql://u@db1:5432/x", "postgresql://db1/a:b@c", "service=x", ""]
        {
            assert!(!may_hold_password(without), "{without}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("open sesame".into())), "Secret(…)");
    }
}
