//! What a bucket does by itself with what lies in it: keep versions, and let objects expire.
//!
//! `object_store` has no calls for these questions, so they are asked here, signed by its signer and sent by the same
//! client. Nothing rests on the answers: they are for warnings, and whoever may not ask is not hindered.

use super::trouble::{Cause, Trouble, section, text_of};
use super::{BucketStore, Dialect, error};
use crate::storage::StoreError;
use bytes::Bytes;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use std::sync::Arc;

/// A bucket has at most 1,000 rules; of more than this many nobody reads the names.
const MOST_RULES: usize = 1_000;

/// What became of the questions. An answer that could not be had says why.
#[derive(Debug)]
pub struct BucketRules {
    /// What happens to what is deleted.
    pub versions: Result<Versions, StoreError>,
    /// The rules that remove objects of ours.
    pub expiring: Result<Vec<ExpiryRule>, StoreError>,
}

/// What happens to what is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// It is kept as an older version.
    Kept,
    /// It is gone for good, though versions were kept once.
    Suspended,
    /// It is gone for good.
    Off,
}

/// A rule by which the store removes objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryRule {
    /// Its name; empty where it has none.
    pub name: String,
    /// What the names of its objects begin with; empty for all.
    pub prefix: String,
    /// When: `after 30 days`, `on 2027-01-01T00:00:00Z`.
    pub when: String,
}

/// Asks a bucket of S3.
pub(super) struct Asker {
    /// It has the credentials, fetched anew where they have to be.
    pub bucket: Arc<AmazonS3>,
    pub client: HttpClient,
    /// The bucket's URL, without a question.
    pub url: String,
    pub region: String,
}

impl Asker {
    async fn ask(&self, question: &str) -> object_store::Result<Bytes> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "S3",
            source,
        };
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let unusable = || Trouble::configuration("the endpoint is not a URL".to_owned());
        *request.uri_mut() =
            format!("{}?{question}", self.url).parse().map_err(|_| failed(Box::new(unusable())))?;
        let credential = self.bucket.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None)?;
        let answer = self.client.execute(request).await.map_err(|error| failed(Box::new(error)))?;
        answer.into_body().bytes().await.map_err(|error| failed(Box::new(error)))
    }
}

impl BucketStore {
    /// What the bucket does by itself; `None` where the service is not asked: only S3 is.
    #[must_use]
    pub fn rules(&self) -> Option<BucketRules> {
        let Dialect::S3 { asker, .. } = &self.inner.dialect else { return None };
        let ask = |question: &str| self.wait(asker.ask(question));
        let versions = self.inner.pages.run(|| {
            versions(ask("versioning"))
                .map_err(|trouble| error(trouble, "could not ask whether versioning is on".to_owned()))
        });
        let expiring = self.inner.pages.run(|| {
            expiring(ask("lifecycle"), &self.inner.prefix)
                .map_err(|trouble| error(trouble, "could not ask for rules that remove objects".to_owned()))
        });
        Some(BucketRules { versions, expiring })
    }
}

/// A store that does not know the question does not do what is asked about.
fn is_not_offered(trouble: &Trouble) -> bool {
    trouble.cause() == Some(Cause::NotOffered)
        || matches!(trouble, Trouble::Refused(answer) if answer.code == "NoSuchLifecycleConfiguration")
}

fn versions(answer: Result<Bytes, Trouble>) -> Result<Versions, Trouble> {
    let body = match answer {
        Err(trouble) if is_not_offered(&trouble) => return Ok(Versions::Off),
        answer => answer?,
    };
    let body = String::from_utf8_lossy(&body);
    if !body.contains("VersioningConfiguration") {
        return Err(Trouble::Unexpected("it says nothing of versioning".to_owned()));
    }
    Ok(match text_of(&body, "Status").as_deref() {
        Some("Enabled") => Versions::Kept,
        Some("Suspended") => Versions::Suspended,
        _ => Versions::Off,
    })
}

/// The rules that remove objects whose names begin with `ours`.
fn expiring(answer: Result<Bytes, Trouble>, ours: &str) -> Result<Vec<ExpiryRule>, Trouble> {
    let body = match answer {
        Err(trouble) if is_not_offered(&trouble) => return Ok(Vec::new()),
        answer => answer?,
    };
    let body = String::from_utf8_lossy(&body);
    if !body.contains("LifecycleConfiguration") {
        return Err(Trouble::Unexpected("it says nothing of rules".to_owned()));
    }
    let rules = body.split("<Rule>").skip(1).take(MOST_RULES).filter_map(expiry);
    Ok(rules.filter(|rule| rule.prefix.starts_with(ours) || ours.starts_with(&rule.prefix)).collect())
}

/// What a rule removes. Older versions and what was never finished are not objects of ours, nor is what has tags.
fn expiry(rule: &str) -> Option<ExpiryRule> {
    if text_of(rule, "Status").as_deref() != Some("Enabled") || rule.contains("<Tag>") {
        return None;
    }
    let expiration = section(rule, "Expiration")?;
    let days = text_of(expiration, "Days").map(|days| format!("after {days} days"));
    let when = days.or_else(|| text_of(expiration, "Date").map(|date| format!("on {date}")))?;
    let text = |name| text_of(rule, name).unwrap_or_default();
    Some(ExpiryRule { name: text("ID"), prefix: text("Prefix"), when })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::object::trouble::Answer;

    fn body(text: &str) -> Result<Bytes, Trouble> {
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn refused(status: u16, code: &str) -> Trouble {
        let body = format!("<Error><Code>{code}</Code></Error>");
        Trouble::Refused(Box::new(Answer::read("h".to_owned(), status, |_| None, body.as_bytes())))
    }

    fn found(rules: &str) -> Vec<ExpiryRule> {
        let document = format!(
            "<?xml version=\"1.0\"?>\n<LifecycleConfiguration xmlns=\"x\">{rules}</LifecycleConfiguration>"
        );
        expiring(body(&document), "walden/").unwrap()
    }

    #[test]
    fn versioning_is_on_off_or_suspended_and_nonsense_is_none_of_it() {
        for (status, expected) in [
            ("<Status>Enabled</Status><MfaDelete>Disabled</MfaDelete>", Versions::Kept),
            ("<Status>Suspended</Status>", Versions::Suspended),
            ("", Versions::Off),
        ] {
            let document = format!("<VersioningConfiguration>{status}</VersioningConfiguration>");
            assert_eq!(versions(body(&document)).unwrap(), expected);
        }
        assert_eq!(versions(body("<VersioningConfiguration xmlns=\"x\"/>")).unwrap(), Versions::Off);
        assert_eq!(versions(Err(refused(501, "NotImplemented"))).unwrap(), Versions::Off);
        versions(body("<html>Enabled</html>")).unwrap_err();
        versions(Err(refused(403, "AccessDenied"))).unwrap_err();
    }

    #[test]
    fn a_rule_counts_if_it_is_on_and_removes_objects_of_ours() {
        let rule = |more: &str| format!("<Rule><ID>tidy</ID><Status>Enabled</Status>{more}</Rule>");
        let days = "<Expiration><Days>30</Days></Expiration>";
        for (more, prefix) in [
            (days.to_owned(), ""),
            (format!("<Filter></Filter>{days}"), ""),
            (format!("<Prefix>walden/shop/</Prefix>{days}"), "walden/shop/"),
            (format!("<Filter><Prefix>wal</Prefix></Filter>{days}"), "wal"),
            (
                format!(
                    "<Filter><And><Prefix>walden/</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>{days}"
                ),
                "walden/",
            ),
        ] {
            let expected = ExpiryRule {
                name: "tidy".to_owned(),
                prefix: prefix.to_owned(),
                when: "after 30 days".to_owned(),
            };
            assert_eq!(found(&rule(&more)), [expected], "{more}");
        }
        let dated = found(&rule("<Expiration><Date>2027-01-01T00:00:00Z</Date></Expiration>"));
        assert_eq!(dated.first().map(|rule| rule.when.as_str()), Some("on 2027-01-01T00:00:00Z"));
        for harmless in [
            rule(&format!("<Prefix>logs/</Prefix>{days}")),
            rule(&format!("<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>{days}")),
            rule("<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"),
            rule(
                "<NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays></NoncurrentVersionExpiration>",
            ),
            rule(
                "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
            ),
            rule(days).replace("Enabled", "Disabled"),
        ] {
            assert_eq!(found(&harmless), [], "{harmless}");
        }
        // One after the other.
        let two = format!("{}{}", rule(&format!("<Prefix>logs/</Prefix>{days}")), rule(days));
        assert_eq!(found(&two).len(), 1);
    }

    #[test]
    fn a_store_without_rules_has_none_and_one_that_refuses_to_say_is_not_believed_to() {
        assert_eq!(expiring(Err(refused(404, "NoSuchLifecycleConfiguration")), "").unwrap(), []);
        assert_eq!(expiring(Err(refused(501, "NotImplemented")), "").unwrap(), []);
        expiring(Err(refused(403, "AccessDenied")), "").unwrap_err();
        expiring(Err(refused(404, "NoSuchBucket")), "").unwrap_err();
        expiring(body("<html></html>"), "").unwrap_err();
        assert_eq!(expiring(body("<LifecycleConfiguration><Rule><Rule><Status>"), "").unwrap(), []);
    }
}
