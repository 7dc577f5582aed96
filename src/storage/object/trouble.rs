//! What goes wrong between us and an object store, by cause, and in words that hold no secret.
//!
//! Only what is known to be harmless is taken from an answer: status, code, the first line of the message, the
//! region and the clock. An answer can also repeat what was signed, so the rest is not looked at, and no URL is
//! ever shown: in it, too, there may be a signature.

use crate::storage::StoreErrorKind;
use std::fmt;
use std::time::Duration;

/// The longest message that is taken from an answer, in characters.
const LONGEST_MESSAGE: usize = 300;

/// An answer that is not success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The host that answered.
    pub host: String,
    /// The HTTP status.
    pub status: u16,
    /// The store's own code: `NoSuchKey`, `ContainerNotFound`. Empty where there is none.
    pub code: String,
    /// The first line of the store's message.
    pub message: String,
    /// The region that the server says the bucket is in.
    pub region: Option<String>,
    /// The server's clock.
    pub clock: Option<String>,
}

/// Why an exchange came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server answered, and not with success.
    Refused(Box<Answer>),
    /// There was no answer, or not all of it.
    NoAnswer {
        /// Who was asked.
        host: String,
        /// What kept it from answering.
        reason: NoAnswer,
        /// What the system or the library says of it.
        text: String,
    },
    /// What is stored is longer than what may be read.
    TooLarge {
        /// Its size, as far as it is known.
        size: u64,
        /// What was allowed.
        limit: u64,
    },
    /// The settings cannot be used; the text says which and why.
    Configuration(String),
    /// There are no credentials, or those there are cannot be used.
    Credentials(String),
    /// An answer that makes no sense.
    Unexpected(String),
}

/// What kept a server from answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The name is not known.
    NameUnknown,
    /// Nobody listens there.
    ConnectionRefused,
    /// The server's certificate is not one that we trust.
    NotTrusted,
    /// The server's certificate is past its time, or not yet good.
    CertificateTime,
    /// Another trouble of TLS: the port speaks something else, for one.
    Tls,
    /// It said nothing for too long.
    Silent,
    /// The connection broke.
    Broken,
}

/// What there is to do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The object is not there.
    Absent,
    /// A 404 that does not say what is absent.
    AbsentOrNoBucket,
    /// The name is taken, or somebody is creating it.
    Taken,
    /// There is no such bucket or container.
    NoBucket,
    /// The bucket is in another region.
    WrongRegion,
    /// The clocks differ too much.
    ClockSkew,
    /// The session token has expired.
    ExpiredToken,
    /// The key is not known.
    UnknownKey,
    /// The secret does not belong to the key.
    WrongSecret,
    /// These credentials may not do this.
    NoRights,
    /// The object was moved to an archive from which it must be brought back first.
    Archived,
    /// There is no room.
    Full,
    /// The store is overloaded or in trouble of its own.
    Busy,
    /// The range lies behind the end.
    NoSuchRange,
    /// The store does not know how to do this.
    NotOffered,
    /// Anything else.
    Other,
}

impl Answer {
    /// Reads an answer: what its headers and its body (XML of S3 and Azure, JSON of token services) say.
    pub(super) fn read<'a>(
        host: String,
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
    ) -> Self {
        let body = String::from_utf8_lossy(body);
        let mut code = text_of(&body, "Code").unwrap_or_default();
        let mut message = text_of(&body, "Message").unwrap_or_default();
        if code.is_empty() && body.trim_start().starts_with('{') {
            (code, message) = from_json(&body);
        }
        // An answer to HEAD has no body; Azure says its code in a header, too.
        if let Some(in_header) = header("x-ms-error-code") {
            code = clean(in_header);
        }
        let region = header("x-amz-bucket-region").map(clean).or_else(|| text_of(&body, "Region"));
        let clock = text_of(&body, "ServerTime").or_else(|| header("date").map(clean));
        Self { host, status, code, message, region, clock }
    }

    /// What it comes to.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match (self.status, self.code.as_str()) {
            (_, "NoSuchKey" | "BlobNotFound") => Cause::Absent,
            (
                _,
                "NoSuchBucket"
                | "ContainerNotFound"
                | "ContainerBeingDeleted"
                | "ContainerDisabled"
                | "InvalidBucketName"
                | "InvalidResourceName",
            ) => Cause::NoBucket,
            // Azure says this to a create-only token whose blob is there.
            (_, "UnauthorizedBlobOverwrite") => Cause::Taken,
            (_, "RequestTimeTooSkewed") => Cause::ClockSkew,
            (_, "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException") => Cause::ExpiredToken,
            (
                _,
                "InvalidAccessKeyId" | "InvalidSecurity" | "InvalidToken" | "UnrecognizedClientException",
            ) => Cause::UnknownKey,
            (_, "SignatureDoesNotMatch" | "AuthenticationFailed") => Cause::WrongSecret,
            (
                _,
                "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "TemporaryRedirect"
                | "IllegalLocationConstraintException",
            ) => Cause::WrongRegion,
            (_, "InvalidObjectState" | "BlobArchived") => Cause::Archived,
            (507, _) | (_, "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull") => Cause::Full,
            (_, "RequestTimeout" | "SlowDown" | "ServerBusy" | "OperationTimedOut" | "InternalError") => {
                Cause::Busy
            }
            (300..=399, _) if self.status != 304 => Cause::WrongRegion,
            (304 | 409 | 412, _) => Cause::Taken,
            (404, _) => Cause::AbsentOrNoBucket,
            (401 | 403, _) => Cause::NoRights,
            (416, _) => Cause::NoSuchRange,
            (405 | 501, _) => Cause::NotOffered,
            (408 | 429 | 500.., _) => Cause::Busy,
            _ => Cause::Other,
        }
    }

    fn is_passing_conflict(&self) -> bool {
        matches!(self.code.as_str(), "OperationAborted" | "ConditionalRequestConflict")
    }
}

impl Trouble {
    pub(super) const fn configuration(text: String) -> Self {
        Self::Configuration(text)
    }

    pub(super) fn silent(host: &str, allowed: Duration) -> Self {
        let text = format!("nothing came for {} s", allowed.as_secs_f64());
        Self::NoAnswer { host: host.to_owned(), reason: NoAnswer::Silent, text }
    }

    pub(super) fn no_answer(host: &str, error: &reqwest::Error) -> Self {
        let mut reason = NoAnswer::Broken;
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(link) = cause {
            if let Some(io) = link.downcast_ref::<std::io::Error>() {
                match io.kind() {
                    std::io::ErrorKind::ConnectionRefused => reason = NoAnswer::ConnectionRefused,
                    std::io::ErrorKind::TimedOut => reason = NoAnswer::Silent,
                    _ => {}
                }
                if let Some(tls) = tls_within(io) {
                    reason = tls_reason(tls);
                }
            }
            if let Some(tls) = link.downcast_ref::<rustls::Error>() {
                reason = tls_reason(tls);
            }
            if link.to_string() == "dns error" {
                reason = NoAnswer::NameUnknown;
            }
            cause = link.source();
        }
        if reason == NoAnswer::Broken && error.is_timeout() {
            reason = NoAnswer::Silent;
        }
        let text = clean(&super::http::deepest(error));
        Self::NoAnswer { host: host.to_owned(), reason, text }
    }

    /// The trouble in an error of `object_store`: ours, where it passed through, else what the library says.
    pub(super) fn of(error: object_store::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(link) = cause {
            if let Some(trouble) = link.downcast_ref::<Self>() {
                return trouble.clone();
            }
            cause = link.source();
        }
        Self::Unexpected(clean(&super::http::deepest(&error)))
    }

    /// How callers have to take it. What [`Cause::Taken`] means to a create, only the create can find out.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        match self {
            Self::Refused(answer) => match answer.cause() {
                Cause::Absent => StoreErrorKind::NotFound,
                // A store that waits for another request on the same name does not refuse this one.
                Cause::Taken if answer.is_passing_conflict() => StoreErrorKind::Unavailable,
                // Whoever creates looks at what is there. To a delete or a read a conflict is a refusal: a lock, a
                // policy that keeps objects unchanged, a lease.
                Cause::Taken => StoreErrorKind::Denied,
                Cause::Busy => StoreErrorKind::Unavailable,
                Cause::Full => StoreErrorKind::Full,
                Cause::NoSuchRange | Cause::NotOffered | Cause::Other => StoreErrorKind::Unsupported,
                // A bucket that is not there is no missing object: `archive-get` would take it for the end of WAL.
                Cause::AbsentOrNoBucket
                | Cause::NoBucket
                | Cause::WrongRegion
                | Cause::ClockSkew
                | Cause::ExpiredToken
                | Cause::UnknownKey
                | Cause::WrongSecret
                | Cause::NoRights
                | Cause::Archived => StoreErrorKind::Denied,
            },
            // Once a server has shown the wrong certificate, it will again.
            Self::NoAnswer { reason: NoAnswer::NotTrusted | NoAnswer::CertificateTime, .. } => {
                StoreErrorKind::Denied
            }
            Self::NoAnswer { .. } | Self::Unexpected(_) => StoreErrorKind::Unavailable,
            Self::TooLarge { .. } | Self::Configuration(_) => StoreErrorKind::Unsupported,
            Self::Credentials(_) => StoreErrorKind::Denied,
        }
    }

    /// The cause, where a server named one.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Refused(answer) => Some(answer.cause()),
            _ => None,
        }
    }
}

/// The error of TLS in an I/O error, which does not name it as its source, and may itself be in another.
fn tls_within(io: &std::io::Error) -> Option<&rustls::Error> {
    let inner = io.get_ref()?;
    match inner.downcast_ref::<std::io::Error>() {
        Some(io) => tls_within(io),
        None => inner.downcast_ref::<rustls::Error>(),
    }
}

fn tls_reason(error: &rustls::Error) -> NoAnswer {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => NoAnswer::CertificateTime,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => NoAnswer::NotTrusted,
        _ => NoAnswer::Tls,
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, status, code, message, .. } = self;
        let cause = self.cause();
        match cause {
            Cause::WrongRegion => match &self.region {
                Some(region) => write!(f, "the bucket is in the region {region}")?,
                None => f.write_str("the bucket is not at this endpoint or not in this region")?,
            },
            Cause::NoBucket => f.write_str("there is no such bucket")?,
            Cause::AbsentOrNoBucket => f.write_str("the server does not say what is not there")?,
            Cause::ClockSkew => {
                f.write_str("this machine's clock and the server's differ too much")?;
                if let Some(clock) = &self.clock {
                    write!(f, " (the server's says {clock})")?;
                }
            }
            Cause::ExpiredToken => f.write_str("the session token has expired")?,
            Cause::UnknownKey => f.write_str("the server does not know the access key")?,
            Cause::WrongSecret => f.write_str("the secret does not belong to the key")?,
            Cause::NoRights => f.write_str("these credentials may not do this")?,
            Cause::Archived => {
                f.write_str("the object was moved to an archive and must be restored from there")?
            }
            Cause::Full => f.write_str("the store is full")?,
            Cause::Busy => f.write_str("the store cannot do it just now")?,
            _ => f.write_str("the store refused")?,
        }
        write!(f, ": {host} answered {status}")?;
        if !code.is_empty() {
            write!(f, " {code}")?;
        }
        if !message.is_empty() {
            write!(f, " ({message})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(answer) => answer.fmt(f),
            Self::NoAnswer { host, reason, text } => match reason {
                NoAnswer::NameUnknown => write!(f, "the name {host} cannot be looked up ({text})"),
                NoAnswer::ConnectionRefused => write!(f, "nobody answers at {host} ({text})"),
                NoAnswer::NotTrusted => write!(f, "the certificate of {host} is not trusted ({text})"),
                NoAnswer::CertificateTime => write!(f, "the certificate of {host} is not good now ({text})"),
                NoAnswer::Tls => write!(f, "no TLS connection to {host} ({text})"),
                NoAnswer::Silent => write!(f, "{host} does not answer in time ({text})"),
                NoAnswer::Broken => write!(f, "the connection to {host} broke ({text})"),
            },
            Self::TooLarge { size, limit } => {
                write!(f, "it has {size} bytes or more, and at most {limit} were expected")
            }
            Self::Configuration(text) | Self::Credentials(text) => f.write_str(text),
            Self::Unexpected(text) => write!(f, "the answer makes no sense: {text}"),
        }
    }
}

impl std::error::Error for Trouble {}

/// What is in the first element of this name, as it is written.
pub(super) fn section<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text)
}

/// The text of the first element of this name, without entities of its own.
pub(super) fn text_of(body: &str, name: &str) -> Option<String> {
    let text = section(body, name)?
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&");
    Some(clean(&text)).filter(|text| !text.is_empty())
}

/// Code and message of a token service's answer.
fn from_json(body: &str) -> (String, String) {
    let Ok(document) = serde_json::from_str::<serde_json::Value>(body) else { return Default::default() };
    let text = |value: &serde_json::Value| value.as_str().map(clean).unwrap_or_default();
    let error = &document["error"];
    match error.is_object() {
        true => (text(&error["status"]), text(&error["message"])),
        false => (text(error), text(&document["error_description"])),
    }
}

/// The first line, short, and without what a terminal would obey.
fn clean(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    line.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::read("s3.test".to_owned(), status, |_| None, body.as_bytes())
    }

    fn s3(status: u16, code: &str) -> Answer {
        answer(
            status,
            &format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>M.</Message></Error>"),
        )
    }

    #[test]
    fn only_an_object_that_is_named_as_absent_is_absent() {
        use StoreErrorKind::{Denied, NotFound};
        for (answer, kind) in [
            (s3(404, "NoSuchKey"), NotFound),
            (s3(404, "NoSuchBucket"), Denied),
            (s3(404, "SomethingElse"), Denied),
            (answer(404, "<html>not found</html>"), Denied),
            (answer(404, ""), Denied),
            (s3(403, "AccessDenied"), Denied),
        ] {
            assert_eq!(Trouble::Refused(Box::new(answer.clone())).kind(), kind, "{answer:?}");
        }
        let azure = |code| {
            let header = move |name: &str| (name == "x-ms-error-code").then_some(code);
            Trouble::Refused(Box::new(Answer::read("a".to_owned(), 404, header, b""))).kind()
        };
        assert_eq!(azure("BlobNotFound"), NotFound);
        assert_eq!(azure("ContainerNotFound"), Denied);
        assert_eq!(azure("ResourceNotFound"), Denied);
    }

    #[test]
    fn only_what_may_pass_is_worth_trying_again() {
        for (status, code, again) in [
            (503, "SlowDown", true),
            (500, "InternalError", true),
            (400, "RequestTimeout", true),
            (429, "", true),
            (408, "", true),
            (502, "", true),
            (501, "NotImplemented", false),
            (400, "ExpiredToken", false),
            (400, "InvalidArgument", false),
            (403, "RequestTimeTooSkewed", false),
            (301, "PermanentRedirect", false),
            (507, "", false),
        ] {
            let kind = Trouble::Refused(Box::new(s3(status, code))).kind();
            assert_eq!(kind == StoreErrorKind::Unavailable, again, "{status} {code}: {kind:?}");
        }
    }

    #[test]
    fn a_conflict_is_a_refusal_unless_it_passes() {
        for (status, code, kind) in [
            (409, "BlobImmutableDueToPolicy", StoreErrorKind::Denied),
            (409, "SnapshotsPresent", StoreErrorKind::Denied),
            (409, "", StoreErrorKind::Denied),
            (412, "LeaseIdMissing", StoreErrorKind::Denied),
            (409, "OperationAborted", StoreErrorKind::Unavailable),
            (409, "ConditionalRequestConflict", StoreErrorKind::Unavailable),
        ] {
            let answer = s3(status, code);
            assert_eq!(answer.cause(), Cause::Taken, "{answer:?}");
            assert_eq!(Trouble::Refused(Box::new(answer.clone())).kind(), kind, "{answer:?}");
        }
    }

    #[test]
    fn an_answer_says_what_is_wrong_and_repeats_no_signature() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does \
                    not match</Message><StringToSign>AWS4-HMAC</StringToSign>\
                    <SignatureProvided>5ec4e7</SignatureProvided></Error>";
        let shown = answer(403, body).to_string();
        assert_eq!(
            shown,
            "the secret does not belong to the key: s3.test answered 403 SignatureDoesNotMatch \
             (The request signature we calculated does not match)"
        );
        let region = answer(
            400,
            "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'a' is wrong; expecting \
             'eu-north-1'</Message><Region>eu-north-1</Region></Error>",
        );
        assert!(region.to_string().starts_with("the bucket is in the region eu-north-1: "), "{region}");
        let redirect = Answer::read(
            "h".to_owned(),
            301,
            |name| (name == "x-amz-bucket-region").then_some("eu-west-1"),
            b"",
        );
        assert_eq!(redirect.to_string(), "the bucket is in the region eu-west-1: h answered 301");
        let skew =
            "<Error><Code>RequestTimeTooSkewed</Code><ServerTime>2026-11-21T02:10:05Z</ServerTime></Error>";
        assert!(answer(403, skew).to_string().contains("(the server's says 2026-11-21T02:10:05Z)"));
        let azure = "\u{feff}<Error><Code>AuthenticationFailed</Code><Message>Server failed.\nRequestId:1\n\
                     Time:2</Message><AuthenticationErrorDetail>signature 'abc='</AuthenticationErrorDetail></Error>";
        let shown = answer(403, azure).to_string();
        assert!(shown.ends_with("403 AuthenticationFailed (Server failed.)"), "{shown}");
        let token = "{\"error\":\"invalid_client\",\"error_description\":\"expired\\u001b[0m\"}";
        assert!(answer(400, token).to_string().ends_with("400 invalid_client (expired[0m)"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_long(status: u16, body: Vec<u8>) {
            let answer = Answer::read("h".to_owned(), status, |_| None, &body);
            prop_assert!(answer.to_string().chars().count() < 1000);
        }
    }
}
