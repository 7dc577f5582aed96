//! Deleting from Azure, one object by one request.
//!
//! `object_store` sends deletes in batches only. Whether a signature that is shared permits those is another question
//! than whether it permits deleting, and the parts of their answers have no codes, so that "it is kept by a policy" and
//! "it is not there" could not be told apart.

use super::trouble::Trouble;
use object_store::azure::{AzureAuthorizer, MicrosoftAzure};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use std::sync::Arc;

/// Deletes from a container.
pub(super) struct Deleter {
    /// It has the credentials, fetched anew where they have to be.
    pub container: Arc<MicrosoftAzure>,
    pub client: HttpClient,
    /// The container's URL, without `/` at the end.
    pub url: String,
    pub account: String,
}

impl Deleter {
    pub(super) async fn delete(&self, path: &Path) -> object_store::Result<()> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "MicrosoftAzure",
            source,
        };
        let unusable = || failed(Box::new(Trouble::configuration("the endpoint is not a URL".to_owned())));
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = "DELETE".parse().map_err(|_| unusable())?;
        *request.uri_mut() = format!("{}/{path}", self.url).parse().map_err(|_| unusable())?;
        let credential = self.container.credentials().get_credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        self.client.execute(request).await.map_err(|error| failed(Box::new(error)))?;
        Ok(())
    }
}
