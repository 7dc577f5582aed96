//! Opening repositories in object stores, and what to do about their troubles.

use super::open::store_failure;
use crate::failure::{Class, Failure};
use crate::settings::{
    AzureKey, BucketSettings, GcsKey, RepositorySettings, S3Encryption, S3KeySource, SecretSource,
    ServiceSettings, profile_key,
};
use crate::storage::object::connect::FetchS3Key;
use crate::storage::object::rules::BucketRules;
use crate::storage::object::spread::Spread;
use crate::storage::object::{
    self, Azure, AzureCredentials, Bucket, BucketStore, Cause, Gcs, GcsCredentials, NoAnswer, S3,
    S3Credentials, S3Key, Service, Trouble, tried_again,
};
use crate::storage::retry::{RetryPolicy, RetryStore};
use crate::storage::{Key, Store, StoreError, StoreErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file of profiles or certificates that is read, in bytes.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;

/// The store; the server is not asked anything yet.
pub(super) fn open(
    settings: &RepositorySettings,
    bucket: &BucketSettings,
) -> Result<Arc<dyn Store>, Failure> {
    let place = place(settings, bucket)?;
    match place.open() {
        Ok(store) => Ok(Arc::new(tried_again(store, place.retry))),
        Err(error) => Err(store_failure(error, settings, format!("cannot open {}", settings.name()))),
    }
}

/// The store by all addresses of its server's name.
pub(super) fn open_by_every_address(
    settings: &RepositorySettings,
    bucket: &BucketSettings,
) -> Result<Arc<dyn Store>, Failure> {
    let place = place(settings, bucket)?;
    let opened = place.open_each_address().and_then(|stores: Vec<BucketStore>| {
        let looked_at = Key::new("walden.json").map_err(|error| StoreError {
            kind: StoreErrorKind::Unsupported,
            what: "could not look for the repository".to_owned(),
            source: Some(Box::new(error)),
        })?;
        Spread::over(stores, &looked_at)
    });
    match opened {
        Ok(spread) => Ok(Arc::new(RetryStore::new(spread, place.retry))),
        Err(error) => {
            Err(store_failure(error, settings, format!("could not reach the storage of {}", settings.name())))
        }
    }
}

/// What the bucket does by itself; `None` where that is not asked.
pub(super) fn rules(
    settings: &RepositorySettings,
    bucket: &BucketSettings,
) -> Result<Option<BucketRules>, Failure> {
    let opened = place(settings, bucket)?.open();
    opened
        .map(|store| store.rules())
        .map_err(|error| store_failure(error, settings, format!("cannot open {}", settings.name())))
}

fn place(settings: &RepositorySettings, bucket: &BucketSettings) -> Result<Bucket, Failure> {
    let name = settings.name();
    let cannot = |why: String| {
        Failure::new(Class::StorageUnavailable, format!("cannot open {name}")).because_text(why)
    };
    let fetched = |source: &SecretSource, option: &str| {
        source.resolve().map(|secret| secret.expose().to_owned()).map_err(|why| {
            cannot(why).next(format!("Check {name}-{option}-file, and that this user may read it."))
        })
    };
    let service = match &bucket.service {
        ServiceSettings::S3(s3) => Service::S3(S3 {
            region: s3.region.clone(),
            bucket_in_host: s3.bucket_in_host,
            credentials: match &s3.key {
                S3KeySource::Key { id, secret, token } => S3Credentials::Key(S3Key {
                    id: id.expose().to_owned(),
                    secret: fetched(secret, "s3-key-secret")?,
                    token: token.as_ref().map(|token| token.expose().to_owned()),
                }),
                S3KeySource::Profile { name: profile, file } => {
                    S3Credentials::Fetched(profile_of(profile.clone(), file.clone()))
                }
                S3KeySource::Machine => S3Credentials::Machine {
                    relative_uri: variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
                    full_uri: variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")
                        .zip(variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")),
                },
                S3KeySource::WebIdentity => {
                    match variable("AWS_ROLE_ARN").zip(variable("AWS_WEB_IDENTITY_TOKEN_FILE")) {
                        Some((role, token_file)) => S3Credentials::WebIdentity { role, token_file },
                        None => {
                            return Err(cannot(
                                "AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are not both set".to_owned(),
                            )
                            .next(format!("Set them, or another {name}-s3-key-type.")));
                        }
                    }
                }
            },
            encryption: s3.encryption.as_ref().map(|encryption| match encryption {
                S3Encryption::Service => object::S3Encryption::Service,
                S3Encryption::Kms(key) => object::S3Encryption::Kms(key.clone()),
                S3Encryption::Customer(key) => object::S3Encryption::Customer(key.expose().to_owned()),
            }),
            storage_class: s3.storage_class.clone(),
        }),
        ServiceSettings::Azure(azure) => Service::Azure(Azure {
            account: azure.account.clone(),
            account_in_host: azure.account_in_host,
            credentials: match &azure.key {
                AzureKey::Shared(key) => AzureCredentials::Shared(fetched(key, "azure-key")?),
                AzureKey::Sas(key) => AzureCredentials::Sas(fetched(key, "azure-key")?),
                AzureKey::Machine => AzureCredentials::Machine,
            },
        }),
        ServiceSettings::Gcs(gcs) => Service::Gcs(Gcs {
            credentials: match &gcs.key {
                GcsKey::ServiceAccount(file) => GcsCredentials::ServiceAccount(file.display().to_string()),
                GcsKey::Machine => GcsCredentials::Machine,
            },
        }),
    };
    let trusted = match &bucket.ca_file {
        None => None,
        Some(path) => Some(read(path).map_err(|why| {
            cannot(why).next(format!("Check {name}-storage-ca-file, and that this user may read it."))
        })?),
    };
    let folder = match &bucket.folder {
        None => None,
        Some(folder) => Some(Key::new(folder.clone()).map_err(|error| cannot(error.to_string()))?),
    };
    Ok(Bucket {
        place: bucket.place(),
        service,
        name: bucket.name.clone(),
        endpoint: bucket.endpoint.clone(),
        folder,
        trusted,
        verify: bucket.verify_tls,
        silence: bucket.silence,
        retry: RetryPolicy::for_up_to(bucket.retry),
    })
}

/// Reads the key of a profile, anew each time.
fn profile_of(profile: String, file: Option<PathBuf>) -> FetchS3Key {
    Arc::new(move || {
        let path = match &file {
            Some(path) => path.clone(),
            None => match (variable("AWS_SHARED_CREDENTIALS_FILE"), variable("HOME")) {
                (Some(path), _) => path.into(),
                (None, Some(home)) => Path::new(&home).join(".aws/credentials"),
                (None, None) => {
                    return Err("no access key is given, and there is no HOME to look for one".to_owned());
                }
            },
        };
        let contents = read(&path).map_err(|why| match file {
            Some(_) => why,
            None => format!("no access key is given, and {why}"),
        })?;
        let (id, secret, token) =
            profile_key(&contents, &profile).map_err(|why| format!("{}: {why}", path.display()))?;
        let text = |secret: crate::settings::Secret| secret.expose().to_owned();
        Ok(S3Key { id: text(id), secret: text(secret), token: token.map(text) })
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let cannot = |why: String| format!("{} cannot be read: {why}", path.display());
    let mut contents = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| cannot(error.to_string()))?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut contents).map_err(|error| cannot(error.to_string()))?;
    if contents.len() as u64 > LARGEST_FILE {
        return Err(cannot("it is larger than 4 MiB".to_owned()));
    }
    Ok(contents)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What to do about it.
pub(super) fn steps(
    settings: &RepositorySettings,
    bucket: &BucketSettings,
    error: &StoreError,
) -> Vec<String> {
    let name = settings.name();
    let kind = match &bucket.service {
        ServiceSettings::S3(_) => "s3",
        ServiceSettings::Azure(_) => "azure",
        ServiceSettings::Gcs(_) => "gcs",
    };
    let container = if kind == "azure" { "container" } else { "bucket" };
    let trouble = error.source.as_ref().and_then(|source| source.downcast_ref::<Trouble>());
    let step = match trouble {
        Some(Trouble::Refused(answer)) => match answer.cause() {
            Cause::NoBucket | Cause::AbsentOrNoBucket => {
                format!("Make the {container} \"{}\", or check {name}-{kind}-{container} and {name}-{kind}-endpoint.", bucket.name)
            }
            Cause::WrongRegion => match &answer.region {
                Some(region) if kind == "s3" => format!("Set {name}-s3-region={region}, and {name}-s3-endpoint to match."),
                _ => format!("Check {name}-s3-region and {name}-s3-endpoint."),
            },
            Cause::ClockSkew => "Set this machine's clock (`timedatectl`): signatures are good for minutes only.".to_owned(),
            Cause::ExpiredToken => match &bucket.service {
                ServiceSettings::S3(s3) if matches!(s3.key, S3KeySource::Profile { .. }) => {
                    format!("Renew the key in the file of {name}-s3-profile-file.")
                }
                _ => format!("Renew the key and its token (`walden config` shows where {name}-{kind}-… are set)."),
            },
            Cause::UnknownKey | Cause::WrongSecret => {
                format!("Check the key of {name} and its secret (`walden config` shows where {name}-{kind}-… are set).")
            }
            Cause::NoRights => format!(
                "Give these credentials the right to read, to write and to list in the {container} \"{}\"; without the \
                 right to list, a store does not even say what is not there.",
                bucket.name
            ),
            Cause::Archived => "Bring the repository's objects back from the archive, and end the rule that moves them there.".to_owned(),
            Cause::Full => "Make room there; nothing half-written is left in the way.".to_owned(),
            _ => return Vec::new(),
        },
        Some(Trouble::NoAnswer { reason, .. }) => match reason {
            NoAnswer::NameUnknown | NoAnswer::ConnectionRefused => format!("Check {name}-{kind}-endpoint."),
            NoAnswer::CertificateTime => "Check this machine's clock (`timedatectl`); if it is right, whoever runs the store \
                 must renew its certificate."
                .to_owned(),
            NoAnswer::NotTrusted => format!("Set {name}-storage-ca-file to the certificate of whoever signed the store's."),
            NoAnswer::Tls => format!("Check {name}-{kind}-endpoint: is it https:// or http://, and is the port right?"),
            NoAnswer::Silent | NoAnswer::Broken => return Vec::new(),
        },
        Some(Trouble::Credentials(_)) => format!("Set {name}-{kind}-key, or see `walden help backup {name}-{kind}-key-type`."),
        Some(Trouble::Configuration(_)) => format!("Check {name}-{kind}-… and {name}-storage-… (`walden config`)."),
        _ => return Vec::new(),
    };
    vec![step]
}
