//! Where an object store is, how it is spoken to, and as whom.

use super::azure::Deleter;
use super::http::{ClientSettings, Trust, client};
use super::rules::Asker;
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
                in_a_header("the region", &s3.region).map_err(Trouble::configuration)?;
                let url = match s3.bucket_in_host {
                    true => format!("{endpoint}/"),
                    false => format!("{endpoint}/{}", self.name),
                };
                let asking = connector.client();
                let builder = AmazonS3Builder::new()
                    .with_bucket_name(&self.name)
                    .with_region(&s3.region)
                    .with_endpoint(endpoint)
                    .with_virtual_hosted_style_request(s3.bucket_in_host)
                    // One object at a time, which every server can.
                    .with_disable_bulk_delete(true)
                    .with_retry(tried_once())
                    .with_http_connector(connector);
                let builder = s3.credentials.on(s3.encryption_on(builder)?)?;
                let bucket = Arc::new(builder.build().map_err(Trouble::of)?);
                let region = s3.region.clone();
                let asker = Asker { bucket: Arc::clone(&bucket), client: asking, url, region };
                (bucket, Dialect::S3 { storage_class: s3.storage_class.clone(), asker })
            }
            Service::Azure(azure) => {
                in_a_header("the account", &azure.account).map_err(Trouble::configuration)?;
                let url = format!("{endpoint}/{}", self.name);
                let client = connector.client();
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
                let container = Arc::new(builder.build().map_err(Trouble::of)?);
                let account = azure.account.clone();
                let deleter = Deleter { container: Arc::clone(&container), client, url, account };
                (container, Dialect::Azure { deleter })
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

/// The library's setting for it, which it offers by this name only.
const SERVICE_ENCRYPTION: &str = "aws_server_side_encryption";

/// # Errors
/// Where the library no longer has it: to store without what was asked for, and say nothing, would be worse.
fn service_encryption(name: &str) -> Result<AmazonS3ConfigKey, Trouble> {
    name.parse().map_err(|_| {
        Trouble::configuration(
            "this walden cannot ask the service to encrypt: leave out s3-sse, or use s3-kms-key-id"
                .to_owned(),
        )
    })
}

impl S3 {
    fn encryption_on(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder, Trouble> {
        Ok(match &self.encryption {
            None => builder,
            Some(S3Encryption::Service) => {
                builder.with_config(service_encryption(SERVICE_ENCRYPTION)?, "AES256")
            }
            Some(S3Encryption::Kms(key)) => builder.with_sse_kms_encryption(key),
            Some(S3Encryption::Customer(key)) => builder.with_ssec_encryption(key),
        })
    }
}

impl S3Key {
    fn fits(&self) -> Result<(), String> {
        in_a_header("the access key", &self.id)?;
        in_a_header("the session token", self.token.as_deref().unwrap_or_default())
    }
}

/// `object_store` puts these into headers and panics where they do not fit.
fn in_a_header(what: &str, text: &str) -> Result<(), String> {
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(format!("{what} holds a blank or a character that cannot be sent")),
    }
}

impl S3Credentials {
    fn on(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder, Trouble> {
        Ok(match self {
            Self::Key(key) => {
                key.fits().map_err(Trouble::Credentials)?;
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
        })
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
        let fetched = (self.0)().and_then(|key| key.fits().map(|()| key));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::object::tests::servers::Server;
    use crate::storage::{Created, Store as _};
    use crate::units::ByteCount;
    use std::net::Ipv4Addr;

    fn s3(change: impl FnOnce(&mut S3)) -> Service {
        let key = S3Key { id: "ID".to_owned(), secret: "SECRET".to_owned(), token: None };
        let mut s3 = S3 {
            region: "eu-north-1".to_owned(),
            bucket_in_host: false,
            credentials: S3Credentials::Key(key),
            encryption: None,
            storage_class: None,
        };
        change(&mut s3);
        Service::S3(s3)
    }

    fn azure(account_in_host: bool) -> Service {
        let credentials = AzureCredentials::Shared("a2V5".to_owned());
        Service::Azure(Azure { account: "acct".to_owned(), credentials, account_in_host })
    }

    fn bucket(service: Service, endpoint: &str) -> Bucket {
        Bucket {
            place: "somewhere".to_owned(),
            service,
            name: "shop".to_owned(),
            endpoint: endpoint.to_owned(),
            folder: None,
            trusted: None,
            verify: true,
            silence: Duration::from_secs(5),
            retry: RetryPolicy::default(),
        }
    }

    #[test]
    fn the_bucket_or_account_goes_into_the_host_or_the_path_as_told() {
        let in_host = |s3: &mut S3| s3.bucket_in_host = true;
        for (service, endpoint, url) in [
            (s3(|_| ()), "s3.test", "https://s3.test/"),
            (s3(|_| ()), "http://127.0.0.1:9000", "http://127.0.0.1:9000/"),
            (s3(in_host), "s3.eu-north-1.amazonaws.com", "https://shop.s3.eu-north-1.amazonaws.com/"),
            (s3(in_host), "https://s3.test:8443", "https://shop.s3.test:8443/"),
            (azure(true), "blob.core.windows.net", "https://acct.blob.core.windows.net/"),
            (azure(false), "https://127.0.0.1:10000", "https://127.0.0.1:10000/acct"),
            // Emulators print it so.
            (azure(false), "https://127.0.0.1:10000/acct", "https://127.0.0.1:10000/acct"),
        ] {
            let bucket = bucket(service, endpoint);
            assert_eq!(bucket.url().unwrap().as_str(), url);
            bucket.open().unwrap();
        }
        let said = bucket(s3(in_host), "https://127.0.0.1:9000").url().unwrap_err().to_string();
        assert_eq!(said, "the endpoint \"https://127.0.0.1:9000\" cannot have a name before it");
    }

    /// As Amazon and Azure are spoken to; names below these servers' own are looked up nowhere, so the address is given.
    #[test]
    fn by_host_style_real_servers_keep_what_they_are_given() {
        let by_host = |place: Bucket, domain: &str, service: Service| {
            let port = place.endpoint.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
            let endpoint = format!("https://{domain}:{port}");
            let place = Bucket { endpoint, service, ..place };
            place.open_at(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))).unwrap()
        };
        let server = Server::s3();
        let place = server.place(&server.bucket(&[]), "S3");
        let Service::S3(settings) = place.service.clone() else { unreachable!("it is S3") };
        let service = Service::S3(S3 { bucket_in_host: true, ..settings });
        let s3 = by_host(place.clone(), "s3.localhost", service);
        let server = Server::azure();
        let azure_place = server.azure_place("by-host");
        let Service::Azure(settings) = azure_place.service.clone() else { unreachable!("it is Azure") };
        let service = Service::Azure(Azure { account_in_host: true, ..settings });
        let azure = by_host(azure_place.clone(), "blob.localhost", service);
        for (by_host, by_path) in [(s3, place.open().unwrap()), (azure, azure_place.open().unwrap())] {
            let k = Key::new("a/b").unwrap();
            assert_eq!(by_host.create(&k, b"x").unwrap(), Created::New);
            assert_eq!(by_host.create(&k, b"x").unwrap(), Created::Same);
            assert_eq!(by_path.read(&k, ByteCount::mib(1)).unwrap(), b"x", "both are the same bucket");
            assert_eq!(by_host.folder(None).unwrap().folders, ["a"]);
            by_host.delete(&k).unwrap();
            assert_eq!(by_path.size(&k).unwrap(), None);
            assert!(by_host.rules().is_none_or(|rules| rules.versions.is_ok() && rules.expiring.is_ok()));
        }
    }

    #[test]
    fn a_library_that_no_longer_encrypts_is_an_error_and_no_silence() {
        service_encryption(SERVICE_ENCRYPTION).unwrap();
        let said = service_encryption("aws_what_is_not_there").unwrap_err().to_string();
        assert!(said.starts_with("this walden cannot ask the service to encrypt"), "{said}");
    }

    #[test]
    fn what_cannot_be_sent_in_a_header_is_refused_and_does_not_panic() {
        let key = |id: &str, token: Option<&str>| S3Key {
            id: id.to_owned(),
            secret: "s\u{e9}cret".to_owned(),
            token: token.map(str::to_owned),
        };
        for key in [key("cl\u{e9}", None), key("ID", Some("to\nken")), key("I D", None)] {
            let refused = |trouble: StoreError| {
                assert_eq!(trouble.kind, StoreErrorKind::Denied);
                let said = trouble.source.unwrap().to_string();
                assert!(said.ends_with("holds a blank or a character that cannot be sent"), "{said}");
                assert!(!said.contains("cl\u{e9}") && !said.contains('\n'), "{said}");
            };
            let given = s3(|s3| s3.credentials = S3Credentials::Key(key.clone()));
            refused(bucket(given, "http://127.0.0.1:1").open().unwrap_err());
            let fetch: FetchS3Key = Arc::new(move || Ok(key.clone()));
            let fetched = s3(|s3| s3.credentials = S3Credentials::Fetched(fetch));
            refused(
                bucket(fetched, "http://127.0.0.1:1")
                    .open()
                    .unwrap()
                    .size(&Key::new("a").unwrap())
                    .unwrap_err(),
            );
        }
        let region = s3(|s3| s3.region = "\u{e9}u".to_owned());
        let refused = bucket(region, "http://127.0.0.1:1").open().unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unsupported);
    }
}
