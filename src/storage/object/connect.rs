//! Where an object store is, how it is spoken to, and as whom.

use super::http::{ClientSettings, Trust, client};
use super::trouble::Trouble;
use super::{Backend, BucketStore, Dialect};
use crate::storage::retry::RetryPolicy;
use crate::storage::{Key, StoreError, StoreErrorKind};
use futures_util::future::BoxFuture;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::CredentialProvider;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, RetryConfig};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

/// A bucket or container, and a folder in it.
#[derive(Clone)]
pub struct Bucket {
    /// The place in a person's words: `s3://shop/repo (eu-north-1)`.
    pub place: String,
    /// What kind of service it is, and what is particular to it.
    pub service: Service,
    /// The bucket's or container's name.
    pub name: String,
    /// Where the service is: a URL, or a host that is spoken to by TLS.
    pub endpoint: String,
    /// The folder in the bucket under which everything lies; the top of the bucket for `None`.
    pub folder: Option<Key>,
    /// Certificates in PEM that a server's must come from; the system's for `None`.
    pub trusted: Option<Vec<u8>>,
    /// Whether a server must show a certificate that is trusted and its own.
    pub verify: bool,
    /// How long a server may be silent.
    pub silence: Duration,
    /// How often the later pages of a listing are asked for again. (All else is for the
    /// [`RetryStore`](crate::storage::retry::RetryStore) around.)
    pub retry: RetryPolicy,
}

/// The services that can be spoken to.
#[derive(Clone)]
pub enum Service {
    /// S3 and what speaks like it.
    S3(S3),
    /// Azure Blob Storage.
    Azure(Azure),
    /// Google Cloud Storage.
    Gcs(Gcs),
}

/// What is particular to S3.
#[derive(Clone)]
pub struct S3 {
    /// The region, which is part of every signature.
    pub region: String,
    /// Whether the bucket is part of the host's name, or of the path.
    pub bucket_in_host: bool,
    /// As whom.
    pub credentials: S3Credentials,
    /// How the server is to encrypt what it stores.
    pub encryption: Option<S3Encryption>,
    /// The storage class of new objects.
    pub storage_class: Option<String>,
}

/// A key of S3.
#[derive(Clone)]
pub struct S3Key {
    /// Its name.
    pub id: String,
    /// The secret.
    pub secret: String,
    /// The token of a session, for keys that are lent.
    pub token: Option<String>,
}

/// Fetches a key; the text of an error is for people and without secrets.
pub type FetchS3Key = Arc<dyn Fn() -> Result<S3Key, String> + Send + Sync>;

/// Where the key comes from.
#[derive(Clone)]
pub enum S3Credentials {
    /// Given.
    Key(S3Key),
    /// Fetched for each request: whoever renews it need not tell us.
    Fetched(FetchS3Key),
    /// From the machine or the container we run on.
    Machine {
        /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`.
        relative_uri: Option<String>,
        /// `AWS_CONTAINER_CREDENTIALS_FULL_URI` and `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
        full_uri: Option<(String, String)>,
    },
    /// A role, for the token in a file.
    WebIdentity {
        /// `AWS_ROLE_ARN`.
        role: String,
        /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
        token_file: String,
    },
}

/// How the server encrypts. (What walden stores can be encrypted before, too.)
#[derive(Clone)]
pub enum S3Encryption {
    /// With a key of the service.
    Service,
    /// With a key of the key service, by this name.
    Kms(String),
    /// With this key, in base64, which the server forgets again.
    Customer(String),
}

/// What is particular to Azure.
#[derive(Clone)]
pub struct Azure {
    /// The storage account.
    pub account: String,
    /// As whom.
    pub credentials: AzureCredentials,
    /// Whether the account is part of the host's name, or of the path.
    pub account_in_host: bool,
}

/// As whom.
#[derive(Clone)]
pub enum AzureCredentials {
    /// With the account's key, in base64.
    Shared(String),
    /// With a shared access signature.
    Sas(String),
    /// As the machine we run on.
    Machine,
}

/// What is particular to Google's.
#[derive(Clone)]
pub struct Gcs {
    /// As whom.
    pub credentials: GcsCredentials,
}

/// As whom.
#[derive(Clone)]
pub enum GcsCredentials {
    /// A service account, by its key file.
    ServiceAccount(String),
    /// As the machine we run on.
    Machine,
}

impl Bucket {
    /// The store. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// `Unsupported` when the settings cannot be used.
    pub fn open(&self) -> Result<BucketStore, StoreError> {
        self.open_at(None).map_err(|trouble| self.cannot_open(trouble))
    }

    /// One store for each address that the server's name has, in its order.
    ///
    /// # Errors
    /// As [`Bucket::open`]; `Unavailable` when the name cannot be looked up.
    pub fn open_each_address(&self) -> Result<Vec<BucketStore>, StoreError> {
        let opened = || {
            let url = self.url()?;
            let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
                return Ok(vec![self.open_at(None)?]);
            };
            let found = (host, port).to_socket_addrs().map_err(|error| Trouble::NoAnswer {
                host: host.to_owned(),
                reason: super::trouble::NoAnswer::NameUnknown,
                text: error.to_string(),
            })?;
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.dedup();
            if addresses.len() < 2 {
                return Ok(vec![self.open_at(None)?]);
            }
            addresses.into_iter().map(|address| self.open_at(Some(address))).collect()
        };
        opened().map_err(|trouble| self.cannot_open(trouble))
    }

    fn cannot_open(&self, trouble: Trouble) -> StoreError {
        let kind = match trouble.kind() {
            StoreErrorKind::NotFound => StoreErrorKind::Denied,
            kind => kind,
        };
        StoreError { kind, what: format!("could not open {}", self.place), source: Some(Box::new(trouble)) }
    }

    /// The URL of what holds the bucket, or, where the bucket is in the host's name, of the bucket itself.
    fn url(&self) -> Result<reqwest::Url, Trouble> {
        let wrong = |why: &str| Trouble::configuration(format!("the endpoint \"{}\" {why}", self.endpoint));
        let text = match self.endpoint.contains("://") {
            true => self.endpoint.clone(),
            false => format!("https://{}", self.endpoint),
        };
        let mut url: reqwest::Url = text.parse().map_err(|_| wrong("is neither a URL nor a host"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("is neither https:// nor http://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(Trouble::configuration("the endpoint holds more than a host and a path".to_owned()));
        }
        let in_host = match &self.service {
            Service::S3(s3) if s3.bucket_in_host => Some(&self.name),
            Service::Azure(azure) if azure.account_in_host => Some(&azure.account),
            _ => None,
        };
        if let Some(first) = in_host {
            let host = format!("{first}.{}", url.host_str().unwrap_or_default());
            url.set_host(Some(&host)).map_err(|_| wrong("cannot have a name before it"))?;
        } else if let Service::Azure(azure) = &self.service {
            let wanted = format!("/{}", azure.account);
            if url.path().trim_end_matches('/') != wanted {
                url.set_path(&wanted);
            }
        }
        Ok(url)
    }

    fn open_at(&self, address: Option<IpAddr>) -> Result<BucketStore, Trouble> {
        let url = self.url()?;
        let trust = match (url.scheme(), self.verify, &self.trusted) {
            ("http", _, None) if !self.asks_the_cloud() => Trust::NoTls,
            (_, false, _) => Trust::Anybody,
            (_, true, None) => Trust::System,
            (_, true, Some(pem)) if self.asks_the_cloud() => Trust::Also(pem.clone()),
            (_, true, Some(pem)) => Trust::Only(pem.clone()),
        };
        let pinned = url.host_str().zip(address).map(|(host, address)| (host.to_owned(), address));
        let connector = client(ClientSettings { trust, silence: self.silence, pinned })?;
        let endpoint = url.as_str().trim_end_matches('/').to_owned();
        let (backend, dialect): (Arc<dyn Backend>, Dialect) = match &self.service {
            Service::S3(s3) => {
                let builder = AmazonS3Builder::new()
                    .with_bucket_name(&self.name)
                    .with_region(&s3.region)
                    .with_endpoint(endpoint)
                    .with_virtual_hosted_style_request(s3.bucket_in_host)
                    // One object at a time, which every server can.
                    .with_disable_bulk_delete(true)
                    .with_retry(tried_once())
                    .with_http_connector(connector);
                let built = s3.credentials.on(s3.encryption_on(builder)).build();
                (
                    Arc::new(built.map_err(Trouble::of)?),
                    Dialect::S3 { storage_class: s3.storage_class.clone() },
                )
            }
            Service::Azure(azure) => {
                let builder = MicrosoftAzureBuilder::new()
                    .with_account(&azure.account)
                    .with_container_name(&self.name)
                    .with_endpoint(endpoint)
                    .with_retry(tried_once())
                    .with_http_connector(connector);
                let builder = match &azure.credentials {
                    AzureCredentials::Shared(key) => builder.with_access_key(key),
                    AzureCredentials::Sas(token) => {
                        builder.with_config(AzureConfigKey::SasKey, token.trim_start_matches('?'))
                    }
                    AzureCredentials::Machine => builder,
                };
                (Arc::new(builder.build().map_err(Trouble::of)?), Dialect::Azure)
            }
            Service::Gcs(gcs) => {
                let builder = GoogleCloudStorageBuilder::new()
                    .with_bucket_name(&self.name)
                    .with_base_url(&endpoint)
                    .with_retry(tried_once())
                    .with_http_connector(connector);
                let builder = match &gcs.credentials {
                    GcsCredentials::ServiceAccount(file) => builder.with_service_account_path(file),
                    GcsCredentials::Machine => builder,
                };
                (Arc::new(builder.build().map_err(Trouble::of)?), Dialect::Gcs)
            }
        };
        BucketStore::new(backend, dialect, self.folder.clone(), self.place.clone(), self.retry)
            .map_err(|error| Trouble::configuration(format!("no runtime for the network: {error}")))
    }

    /// Whether credentials come from a service of a cloud, which is spoken to with the system's certificates.
    const fn asks_the_cloud(&self) -> bool {
        match &self.service {
            Service::S3(s3) => {
                matches!(s3.credentials, S3Credentials::Machine { .. } | S3Credentials::WebIdentity { .. })
            }
            Service::Azure(azure) => matches!(azure.credentials, AzureCredentials::Machine),
            Service::Gcs(_) => true,
        }
    }
}

/// Trying again is left to the layer above, which knows what may be repeated.
fn tried_once() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, backoff: BackoffConfig::default() }
}

impl S3 {
    fn encryption_on(&self, builder: AmazonS3Builder) -> AmazonS3Builder {
        match &self.encryption {
            None => builder,
            Some(S3Encryption::Service) => match "aws_server_side_encryption".parse::<AmazonS3ConfigKey>() {
                Ok(key) => builder.with_config(key, "AES256"),
                Err(_) => builder,
            },
            Some(S3Encryption::Kms(key)) => builder.with_sse_kms_encryption(key),
            Some(S3Encryption::Customer(key)) => builder.with_ssec_encryption(key),
        }
    }
}

impl S3Credentials {
    fn on(&self, builder: AmazonS3Builder) -> AmazonS3Builder {
        match self {
            Self::Key(key) => {
                let builder = builder.with_access_key_id(&key.id).with_secret_access_key(&key.secret);
                match &key.token {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
            Self::Fetched(fetch) => builder.with_credentials(Arc::new(Fetched(Arc::clone(fetch)))),
            Self::Machine { relative_uri: Some(uri), .. } => {
                builder.with_config(AmazonS3ConfigKey::ContainerCredentialsRelativeUri, uri)
            }
            Self::Machine { full_uri: Some((uri, token_file)), .. } => builder
                .with_config(AmazonS3ConfigKey::ContainerCredentialsFullUri, uri)
                .with_config(AmazonS3ConfigKey::ContainerAuthorizationTokenFile, token_file),
            Self::Machine { .. } => builder,
            Self::WebIdentity { role, token_file } => builder
                .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
                .with_config(AmazonS3ConfigKey::RoleArn, role),
        }
    }
}

struct Fetched(FetchS3Key);

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetched(…)")
    }
}

impl CredentialProvider for Fetched {
    type Credential = AwsCredential;

    fn get_credential<'life0, 'async_trait>(
        &'life0 self,
    ) -> BoxFuture<'async_trait, object_store::Result<Arc<AwsCredential>>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let fetched = (self.0)();
        Box::pin(async move {
            match fetched {
                Ok(S3Key { id, secret, token }) => {
                    Ok(Arc::new(AwsCredential { key_id: id, secret_key: secret, token }))
                }
                Err(why) => Err(object_store::Error::Generic {
                    store: "S3",
                    source: Box::new(Trouble::Credentials(why)),
                }),
            }
        })
    }
}
