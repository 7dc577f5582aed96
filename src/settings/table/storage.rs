//! Options of repositories in object stores.

use super::repository::option;
use super::{Kind, OptionSpec};

const ARCHIVED: &str = "objects there cannot be read until they are brought back";

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "repo-storage-ca-file",
        Kind::Path,
        "certificates that the object store's must come from",
        "A file in PEM form. With it, only these count; without it, the certificates of the operating system \
         (or those that SSL_CERT_FILE names) do.",
    )
    .unset("the operating system's certificates"),
    option(
        "repo-storage-verify-tls",
        Kind::Boolean,
        "whether the object store must prove who it is",
        "With n, whoever stands between here and the store can read and answer everything. Give \
         repo1-storage-ca-file instead.",
    )
    .unset("y"),
    option(
        "repo-storage-retry",
        Kind::Duration(0, 86_400_000),
        "how long an object store that does not answer is asked again",
        "Time-outs, broken connections and answers that ask for patience (503, 429) are followed by another \
         attempt after a growing pause, until this time has passed since the first. What cannot pass by itself, \
         such as missing rights, is never tried again.",
    )
    .unset("1m; 10m for backup, restore, verify and expire"),
    option(
        "repo-s3-bucket",
        Kind::Text,
        "the bucket",
        "It must be there: walden makes no buckets. Versioned buckets and Object Lock work; nothing is ever \
         overwritten, and daily work needs no right to delete.",
    )
    .unset("needed for repo1-type=s3"),
    option(
        "repo-s3-endpoint",
        Kind::Text,
        "where the store is",
        "A host, which is then spoken to by TLS, or a URL with https:// or http://, either with a port if need \
         be. Without it Amazon's of the region.",
    )
    .unset("s3.REGION.amazonaws.com"),
    option(
        "repo-s3-region",
        Kind::Text,
        "the region the bucket is in",
        "It is part of every signature. Stores other than Amazon's mostly have us-east-1, which is the default \
         where an endpoint is given.",
    )
    .unset("us-east-1 with an endpoint, else needed"),
    option(
        "repo-s3-key-type",
        Kind::Choice(
            &["shared", "auto", "web-id"],
            &[("pod-id", "use auto, which finds the credentials of a pod, too")],
        ),
        "where the access key comes from",
        "shared: repo1-s3-key, or a profile file. auto: from the container (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, \
         or AWS_CONTAINER_CREDENTIALS_FULL_URI with AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE) or the instance. \
         web-id: for the token in the file that AWS_WEB_IDENTITY_TOKEN_FILE names, in the role that AWS_ROLE_ARN \
         names. auto and web-id have not been tested against Amazon's servers.",
    )
    .unset("shared"),
    option(
        "repo-s3-key",
        Kind::Text,
        "the access key",
        "With repo1-s3-key-secret or repo1-s3-key-secret-file. Neither is needed where a profile is given.",
    )
    .secret()
    .unset("a profile"),
    option(
        "repo-s3-key-secret",
        Kind::Text,
        "the secret of the access key",
        "Only in a configuration file that nobody else can read, or in the environment. \
         repo1-s3-key-secret-file is often the better place.",
    )
    .secret()
    .unset("no secret"),
    option(
        "repo-s3-key-secret-file",
        Kind::Path,
        "a file that holds the secret of the access key",
        "One line. It should belong to the user that runs walden and be readable by nobody else.",
    )
    .unset("no file"),
    option(
        "repo-s3-token",
        Kind::Text,
        "the token of a session, for a key that is lent",
        "Such a key ends after hours, so a profile file that somebody renews is the better place for it: it is \
         read again for each request.",
    )
    .secret()
    .unset("none"),
    option(
        "repo-s3-profile",
        Kind::Text,
        "the profile whose access key is used",
        "A section of the file that repo1-s3-profile-file names, with aws_access_key_id, aws_secret_access_key \
         and maybe aws_session_token. The file is read for each request, so a key that is renewed there is used \
         at once. Profiles that run programs or sign in by a browser do not work here.",
    )
    .unset("default, where no key is given"),
    option(
        "repo-s3-profile-file",
        Kind::Path,
        "the file of profiles",
        "As Amazon's tools write it. It should be readable by nobody but the user that runs walden.",
    )
    .unset("AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials"),
    option(
        "repo-s3-uri-style",
        Kind::Choice(&["host", "path"], &[]),
        "whether the bucket is part of the host's name or of the path",
        "host: https://BUCKET.ENDPOINT/. path: https://ENDPOINT/BUCKET/, which most stores other than Amazon's \
         want.",
    )
    .unset("host; path where the endpoint is an address or localhost"),
    option(
        "repo-s3-sse",
        Kind::Choice(&["none", "s3"], &[]),
        "whether the service is asked to encrypt what it stores",
        "With s3, by a key of the service; see repo1-s3-kms-key-id for one of yours. This is beside \
         repo1-cipher-type, which keeps the service itself from reading.",
    )
    .unset("none"),
    option(
        "repo-s3-kms-key-id",
        Kind::Text,
        "the key of the key service that the store is to encrypt with",
        "Its identifier or ARN. The credentials need the right to use it.",
    )
    .unset("none"),
    option(
        "repo-s3-sse-customer-key",
        Kind::Text,
        "the key that the store is to encrypt with, and to forget",
        "32 bytes in base64. It goes to the store with each request and is needed for each read.",
    )
    .secret()
    .unset("none"),
    option(
        "repo-s3-storage-class",
        Kind::Text,
        "the storage class of new objects",
        "One from which objects can be read at once: GLACIER and DEEP_ARCHIVE are refused. Classes with a \
         minimal time or a price for reading make archived WAL dear.",
    )
    .unset("the bucket's own"),
    option(
        "repo-azure-account",
        Kind::Text,
        "the storage account",
        "The account's name, which is also the first part of its host's name.",
    )
    .unset("needed for repo1-type=azure"),
    option(
        "repo-azure-container",
        Kind::Text,
        "the container",
        "It must be there: walden makes no containers.",
    )
    .unset("needed for repo1-type=azure"),
    option(
        "repo-azure-key-type",
        Kind::Choice(&["shared", "sas", "auto"], &[]),
        "what the key is",
        "shared: the account's key. sas: a shared access signature. auto: the identity of the machine, without a \
         key; this has not been tested against Azure.",
    )
    .unset("shared"),
    option(
        "repo-azure-key",
        Kind::Text,
        "the account's key or the shared access signature",
        "Only in a configuration file that nobody else can read, or in the environment. repo1-azure-key-file is \
         often the better place.",
    )
    .secret()
    .unset("no key"),
    option(
        "repo-azure-key-file",
        Kind::Path,
        "a file that holds the account's key or the signature",
        "One line. It should belong to the user that runs walden and be readable by nobody else.",
    )
    .unset("no file"),
    option(
        "repo-azure-endpoint",
        Kind::Text,
        "where the store is",
        "A host, which is then spoken to by TLS, or a URL with https:// or http://, without the account.",
    )
    .unset("blob.core.windows.net"),
    option(
        "repo-azure-uri-style",
        Kind::Choice(&["host", "path"], &[]),
        "whether the account is part of the host's name or of the path",
        "host: https://ACCOUNT.ENDPOINT/. path: https://ENDPOINT/ACCOUNT/, as emulators want it.",
    )
    .unset("host; path where the endpoint is an address or localhost"),
    option(
        "repo-gcs-bucket",
        Kind::Text,
        "the bucket",
        "It must be there: walden makes no buckets. Google's service has not been tested against: there is no \
         server of its kind to test with.",
    )
    .unset("needed for repo1-type=gcs"),
    option(
        "repo-gcs-key-type",
        Kind::Choice(
            &["service", "auto"],
            &[("token", "a token ends within the hour: use service, or auto on Google's machines")],
        ),
        "where the credentials come from",
        "service: the key file of a service account. auto: the machine or the user walden runs as.",
    )
    .unset("service"),
    option(
        "repo-gcs-key",
        Kind::Path,
        "the key file of the service account",
        "JSON, as Google's console gives it. It should be readable by nobody but the user that runs walden.",
    )
    .unset("needed for repo1-gcs-key-type=service"),
    option(
        "repo-gcs-endpoint",
        Kind::Text,
        "where the store is",
        "A host, which is then spoken to by TLS, or a URL with https:// or http://.",
    )
    .unset("storage.googleapis.com"),
];

/// What is said of the storage classes that a repository cannot lie in.
pub const NOT_READABLE: &[(&str, &str)] = &[("GLACIER", ARCHIVED), ("DEEP_ARCHIVE", ARCHIVED)];
