//! Settings of repositories in object stores.

use super::accessors::{path_of, text_of};
use super::cipher::read_line;
use super::typed::RepositoryKind;
use super::{Origin, Secret, Settings, Value, ini, table};
use crate::failure::{Class, Failure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSettings {
    /// The bucket's or container's name.
    pub name: String,
    /// A URL or a host, without the bucket or the account.
    pub endpoint: String,
    /// The folder in the bucket, without `/` at either end; the whole bucket for `None`.
    pub folder: Option<String>,
    /// What is particular to the service.
    pub service: ServiceSettings,
    /// Certificates that the server's must come from.
    pub ca_file: Option<PathBuf>,
    /// Whether the server must show who it is.
    pub verify_tls: bool,
    /// How long the server may be silent.
    pub silence: Duration,
    /// How long it is asked again when it does not answer.
    pub retry: Duration,
}

/// What is particular to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceSettings {
    /// S3 and what speaks like it.
    S3(S3Settings),
    /// Azure Blob Storage.
    Azure(AzureSettings),
    /// Google Cloud Storage.
    Gcs(GcsSettings),
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the configuration file or the environment.
    Given(Secret),
    /// In a file.
    File(PathBuf),
}

/// What is particular to S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// Part of every signature.
    pub region: String,
    /// Whether the bucket stands in the host's name; else in the path.
    pub bucket_in_host: bool,
    /// As whom.
    pub key: S3KeySource,
    /// What the service is asked to encrypt with.
    pub encryption: Option<S3Encryption>,
    /// The storage class of new objects.
    pub storage_class: Option<String>,
}

/// Where the access key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3KeySource {
    /// From the settings.
    Key {
        /// The access key.
        id: Secret,
        /// Its secret.
        secret: SecretSource,
        /// The token of a session.
        token: Option<Secret>,
    },
    /// From a section of a file.
    Profile {
        /// The section.
        name: String,
        /// The file; where Amazon's tools look for `None`.
        file: Option<PathBuf>,
    },
    /// From the container or the instance.
    Machine,
    /// For a token that the environment names.
    WebIdentity,
}

/// What the service is asked to encrypt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Encryption {
    /// A key of the service.
    Service,
    /// A key of the key service.
    Kms(String),
    /// This key, in base64.
    Customer(Secret),
}

/// What is particular to Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureSettings {
    /// The storage account.
    pub account: String,
    /// Whether the account stands in the host's name; else in the path.
    pub account_in_host: bool,
    /// As whom.
    pub key: AzureKey,
}

/// As whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureKey {
    /// With the account's key.
    Shared(SecretSource),
    /// With a shared access signature.
    Sas(SecretSource),
    /// As the machine.
    Machine,
}

/// What is particular to Google's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsSettings {
    /// As whom.
    pub key: GcsKey,
}

/// As whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcsKey {
    /// A service account, by its key file.
    ServiceAccount(PathBuf),
    /// As the machine.
    Machine,
}

impl BucketSettings {
    /// The place in a person's words: `s3://shop/repo (eu-north-1)`.
    #[must_use]
    pub fn place(&self) -> String {
        let name = &self.name;
        let folder = self.folder.as_ref().map(|folder| format!("/{folder}")).unwrap_or_default();
        match &self.service {
            ServiceSettings::S3(s3) => format!("s3://{name}{folder} ({})", s3.region),
            ServiceSettings::Azure(azure) => format!("azure://{}/{name}{folder}", azure.account),
            ServiceSettings::Gcs(_) => format!("gs://{name}{folder}"),
        }
    }
}

impl SecretSource {
    /// Fetches the secret.
    ///
    /// # Errors
    /// Why it cannot be had, without anything of it.
    pub fn resolve(&self) -> Result<Secret, String> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let refuse = |why: String| format!("{} cannot be used: {why}", path.display());
                read_line(std::fs::File::open(path).map_err(|e| refuse(e.to_string()))?).map_err(refuse)
            }
        }
    }
}

/// The longest folder: with it and a `/`, keys stay below what every store takes.
const LONGEST_FOLDER: usize = 256;

/// The options of one repository.
struct Of<'a> {
    settings: &'a Settings,
    index: u16,
}

impl Of<'_> {
    fn value(&self, name: &'static str) -> Option<&Value> {
        self.settings.get_indexed(name, self.index).map(|setting| &setting.value)
    }

    fn text(&self, name: &'static str) -> Option<String> {
        self.value(name).and_then(text_of).map(str::to_owned)
    }

    fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.value(name).and_then(path_of).map(Path::to_owned)
    }

    fn secret(&self, name: &'static str) -> Option<Secret> {
        match self.value(name) {
            Some(Value::Secret(secret)) => Some(secret.clone()),
            _ => None,
        }
    }

    /// `repo-s3-key` as it is written for this repository.
    fn written(&self, name: &str) -> String {
        format!("repo{}{}", self.index, name.trim_start_matches("repo"))
    }

    fn needed(&self, name: &'static str) -> Result<String, Failure> {
        self.text(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &'static str) -> Failure {
        let (index, name) = (self.index, self.written(name));
        let kind = self.text("repo-type").unwrap_or_default();
        Failure::new(Class::Usage, format!("repo{index} needs the option {name}"))
            .because_text(format!("repo{index}-type is {kind}"))
            .next(format!("Set {name}."))
    }

    /// A secret that is given, or in a file; not both.
    fn secret_source(
        &self,
        given: &'static str,
        file: &'static str,
    ) -> Result<Option<SecretSource>, Failure> {
        match (self.secret(given), self.path(file)) {
            (Some(_), Some(_)) => Err(self.exclude(given, file)),
            (Some(secret), None) => Ok(Some(SecretSource::Given(secret))),
            (None, Some(path)) => Ok(Some(SecretSource::File(path))),
            (None, None) => Ok(None),
        }
    }

    fn exclude(&self, one: &'static str, other: &'static str) -> Failure {
        let (one, other) = (self.written(one), self.written(other));
        Failure::new(Class::Usage, format!("{one} and {other} exclude each other"))
            .next("`walden config` shows where each comes from. Keep one.")
    }

    /// Whether the name goes before the host: as told, else where the host has a name.
    fn name_in_host(&self, style: &'static str, endpoint: &str) -> bool {
        match self.text(style).as_deref() {
            Some(style) => style == "host",
            None => {
                let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
                let authority = rest.split('/').next().unwrap_or("");
                let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                !(host == "localhost" || host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok())
            }
        }
    }

    fn folder(&self) -> Result<Option<String>, Failure> {
        let setting = self.settings.get_indexed("repo-path", self.index);
        let Some(path) = setting.filter(|s| s.origin != Origin::Default).and_then(|s| path_of(&s.value))
        else {
            return Ok(None);
        };
        let text = path.to_string_lossy();
        let folder = text.trim_matches('/');
        let part_fits = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if folder.is_empty() {
            return Ok(None);
        }
        if folder.len() > LONGEST_FOLDER || !folder.split('/').all(part_fits) {
            let name = self.written("repo-path");
            return Err(Failure::new(Class::Usage, format!("cannot use {name}={text} in a bucket"))
                .because_text(format!(
                    "a folder there is made of letters, digits, `_`, `-`, `.` and `/`, at most {LONGEST_FOLDER} of them"
                )));
        }
        Ok(Some(folder.to_owned()))
    }

    fn s3(&self) -> Result<(String, String, ServiceSettings), Failure> {
        let name = self.needed("repo-s3-bucket")?;
        let region = match (self.text("repo-s3-region"), self.text("repo-s3-endpoint")) {
            (Some(region), _) => region,
            (None, Some(_)) => "us-east-1".to_owned(),
            (None, None) => return Err(self.missing("repo-s3-region")),
        };
        let endpoint = self.text("repo-s3-endpoint").unwrap_or_else(|| format!("s3.{region}.amazonaws.com"));
        let secret = self.secret_source("repo-s3-key-secret", "repo-s3-key-secret-file")?;
        let (profile, file) = (self.text("repo-s3-profile"), self.path("repo-s3-profile-file"));
        let key = match (self.text("repo-s3-key-type").as_deref(), self.secret("repo-s3-key"), secret) {
            (Some("auto"), None, None) => S3KeySource::Machine,
            (Some("web-id"), None, None) => S3KeySource::WebIdentity,
            (Some("auto" | "web-id"), _, _) => return Err(self.exclude("repo-s3-key-type", "repo-s3-key")),
            (_, Some(_), _) if profile.is_some() => {
                return Err(self.exclude("repo-s3-key", "repo-s3-profile"));
            }
            (_, Some(id), Some(secret)) => {
                S3KeySource::Key { id, secret, token: self.secret("repo-s3-token") }
            }
            (_, Some(_), None) => return Err(self.missing("repo-s3-key-secret")),
            (_, None, Some(_)) => return Err(self.missing("repo-s3-key")),
            (_, None, None) => {
                S3KeySource::Profile { name: profile.unwrap_or_else(|| "default".to_owned()), file }
            }
        };
        let encryption = match (
            self.text("repo-s3-sse").as_deref() == Some("s3"),
            self.text("repo-s3-kms-key-id"),
            self.secret("repo-s3-sse-customer-key"),
        ) {
            (false, None, None) => None,
            (true, None, None) => Some(S3Encryption::Service),
            (false, Some(key), None) => Some(S3Encryption::Kms(key)),
            (false, None, Some(key)) => Some(S3Encryption::Customer(key)),
            (true, Some(_), _) => return Err(self.exclude("repo-s3-sse", "repo-s3-kms-key-id")),
            (true, _, Some(_)) => return Err(self.exclude("repo-s3-sse", "repo-s3-sse-customer-key")),
            (_, Some(_), Some(_)) => {
                return Err(self.exclude("repo-s3-kms-key-id", "repo-s3-sse-customer-key"));
            }
        };
        let storage_class = self.text("repo-s3-storage-class");
        let refused = |class: &String| table::NOT_READABLE.iter().find(|(name, _)| name == class);
        if let Some((class, why)) = storage_class.as_ref().and_then(refused) {
            let option = self.written("repo-s3-storage-class");
            return Err(Failure::new(Class::Usage, format!("cannot use {option}={class}")).because_text(*why));
        }
        let bucket_in_host = self.name_in_host("repo-s3-uri-style", &endpoint);
        let service = S3Settings { region, bucket_in_host, key, encryption, storage_class };
        Ok((name, endpoint, ServiceSettings::S3(service)))
    }

    fn azure(&self) -> Result<(String, String, ServiceSettings), Failure> {
        let account = self.needed("repo-azure-account")?;
        let endpoint = self.text("repo-azure-endpoint").unwrap_or_else(|| "blob.core.windows.net".to_owned());
        let key = self.secret_source("repo-azure-key", "repo-azure-key-file")?;
        let key = match (self.text("repo-azure-key-type").as_deref(), key) {
            (Some("auto"), None) => AzureKey::Machine,
            (Some("auto"), Some(_)) => return Err(self.exclude("repo-azure-key-type", "repo-azure-key")),
            (Some("sas"), Some(key)) => AzureKey::Sas(key),
            (_, Some(key)) => AzureKey::Shared(key),
            (_, None) => return Err(self.missing("repo-azure-key")),
        };
        let account_in_host = self.name_in_host("repo-azure-uri-style", &endpoint);
        let service = AzureSettings { account, account_in_host, key };
        Ok((self.needed("repo-azure-container")?, endpoint, ServiceSettings::Azure(service)))
    }

    fn gcs(&self) -> Result<(String, String, ServiceSettings), Failure> {
        let key = match (self.text("repo-gcs-key-type").as_deref(), self.path("repo-gcs-key")) {
            (Some("auto"), None) => GcsKey::Machine,
            (Some("auto"), Some(_)) => return Err(self.exclude("repo-gcs-key-type", "repo-gcs-key")),
            (_, Some(file)) => GcsKey::ServiceAccount(file),
            (_, None) => return Err(self.missing("repo-gcs-key")),
        };
        let endpoint = self.text("repo-gcs-endpoint").unwrap_or_else(|| "storage.googleapis.com".to_owned());
        Ok((self.needed("repo-gcs-bucket")?, endpoint, ServiceSettings::Gcs(GcsSettings { key })))
    }

    /// A forgotten repoN-type would fill a directory that nobody looks at.
    fn refuse_options_of(&self, others: &[&str]) -> Result<(), Failure> {
        let index = self.index;
        let of_other = |name: &str| others.iter().any(|kind| name.starts_with(&format!("repo-{kind}-")));
        let given = self.settings.all().find(|setting| {
            setting.key.index == Some(index)
                && setting.origin != Origin::Default
                && of_other(setting.key.name)
        });
        let Some(given) = given else { return Ok(()) };
        let kind = self.text("repo-type").unwrap_or_else(|| "posix".to_owned());
        let other = given.key.name.split('-').nth(1).unwrap_or_default();
        Err(Failure::new(Class::Usage, format!("repo{index} has {} but is of type {kind}", given.name()))
            .next(format!("Set repo{index}-type={other}, or remove {}.", given.name())))
    }
}

impl Settings {
    /// What kind of storage a repository is in, and where.
    pub(super) fn repository_kind(&self, index: u16) -> Result<RepositoryKind, Failure> {
        let of = Of { settings: self, index };
        let (name, endpoint, service) = match of.text("repo-type").as_deref() {
            Some("s3") => of.refuse_options_of(&["azure", "gcs"]).and_then(|()| of.s3())?,
            Some("azure") => of.refuse_options_of(&["s3", "gcs"]).and_then(|()| of.azure())?,
            Some("gcs") => of.refuse_options_of(&["s3", "azure"]).and_then(|()| of.gcs())?,
            _ => {
                of.refuse_options_of(&["s3", "azure", "gcs"])?;
                let path = of.path("repo-path").ok_or_else(|| {
                    Failure::new(Class::Usage, format!("repo{index} has no path"))
                        .because_text(format!("an option of repo{index} is set, but not repo{index}-path"))
                        .next(format!("Set repo{index}-path, or remove the other options of repo{index}."))
                })?;
                return Ok(RepositoryKind::Posix { path });
            }
        };
        let retry = match of.value("repo-storage-retry") {
            Some(Value::Duration(length)) => *length,
            // What takes hours must outlive a store's bad minutes; what PostgreSQL asks for, it asks for again.
            _ if matches!(self.command().name, "backup" | "restore" | "verify" | "expire") => {
                Duration::from_secs(600)
            }
            _ => Duration::from_secs(60),
        };
        Ok(RepositoryKind::Bucket(Box::new(BucketSettings {
            name,
            endpoint,
            folder: of.folder()?,
            service,
            ca_file: of.path("repo-storage-ca-file"),
            verify_tls: of.value("repo-storage-verify-tls") != Some(&Value::Boolean(false)),
            silence: self.io_timeout(),
            retry,
        })))
    }
}

/// The access key, its secret and maybe the token of a session, of a profile in a file as Amazon's tools write it
/// (`~/.aws/credentials`, `~/.aws/config`).
///
/// # Errors
/// What is missing, without anything of a secret.
pub fn profile_key(contents: &[u8], profile: &str) -> Result<(Secret, Secret, Option<Secret>), String> {
    let parsed = ini::parse(contents);
    let long = format!("profile {profile}");
    let is_it = |section: &str| section == profile || section == long;
    if !parsed.sections.iter().any(|(section, _)| is_it(section)) {
        return Err(format!("there is no profile \"{profile}\""));
    }
    let value = |key: &str| {
        let entry = parsed.entries.iter().rev().find(|e| is_it(&e.section) && e.key == key)?;
        Some(Secret::new(entry.value.clone()))
    };
    let needed = |key: &str| value(key).ok_or_else(|| format!("the profile \"{profile}\" has no {key}"));
    Ok((needed("aws_access_key_id")?, needed("aws_secret_access_key")?, value("aws_session_token")))
}
