//! HTTP towards others: bounded in time and bytes, no redirects, credentials read at each use.

pub mod port;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, RequestBuilder, Response};

use crate::spec::fleet::{Auth, Secret};
use crate::units::Millis;

/// Most bytes of a file or variable that holds a secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of a certificate authority's file.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// Why a request got no usable answer; names neither URL, body nor secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one, or carries a user or password.
    #[error("the URL is not an http or https URL without user and password")]
    Url,
    /// The address is one that is never called.
    #[error("this address is link-local, unspecified or multicast, and never called")]
    Address,
    /// The file of a certificate authority cannot be used.
    #[error("the certificate authority {path} cannot be used: {what}")]
    Authority {
        /// The file as configured.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No client could be made.
    #[error("no HTTP client could be made (are certificate authorities installed?)")]
    Client(#[source] reqwest::Error),
    /// The secret is not where the fleet says.
    #[error("the secret in {place} cannot be read: {what}")]
    Secret {
        /// Variable or file, never its value.
        place: String,
        /// What went wrong.
        what: String,
    },
    /// No answer within the time.
    #[error("no complete answer in time")]
    Timeout,
    /// No connection.
    #[error("no connection")]
    Connect,
    /// The connection broke, or the answer is not HTTP.
    #[error("the connection broke or the answer is not HTTP")]
    Broken,
    /// The answer is longer than allowed; reading stopped there.
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect
        } else {
            Self::Broken
        }
    }
}

/// A client for `url`: `timeout` covers the whole request with its body, redirects and proxies are not followed.
///
/// `authority` (PEM, several certificates allowed) is trusted besides those of the system.
pub fn client(url: &str, timeout: Millis, authority: Option<&Path>) -> Result<Client, Error> {
    let parsed = checked_url(url)?;
    let mut builder = Client::builder()
        .dns_resolver(Names)
        .timeout(timeout.duration())
        .connect_timeout(timeout.duration())
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    // Fails only when another provider was installed first, and then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if parsed.scheme() == "http" {
        // A machine without certificate authorities must still reach plain HTTP.
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(tls);
    } else if let Some(path) = authority {
        builder = builder.tls_certs_merge(certificates(path)?);
    }
    builder.build().map_err(Error::Client)
}

/// The URL, if it is http(s), names a host and carries no credentials.
pub fn checked_url(url: &str) -> Result<url::Url, Error> {
    let parsed = url::Url::parse(url).map_err(|_| Error::Url)?;
    let literal = match parsed.host() {
        Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => None,
    };
    if literal.is_some_and(is_nobodys) {
        return Err(Error::Address);
    }
    let plain = parsed.username().is_empty() && parsed.password().is_none() && parsed.has_host();
    if plain && matches!(parsed.scheme(), "http" | "https") { Ok(parsed) } else { Err(Error::Url) }
}

/// Addresses at which nobody's service is, only the machine's own secrets: link-local (cloud metadata), none, many.
fn is_nobodys(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    link_local || address.is_unspecified() || address.is_multicast()
}

/// Names are looked up once per connection, and what they lead to is looked at then.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept: Vec<_> = found.filter(|address| !is_nobodys(address.ip())).collect();
            if kept.is_empty() {
                return Err(Box::from("no address that may be called"));
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    let wrong = |what: String| Error::Authority { path: path.to_owned(), what };
    let pem = bounded_file(path, CA_BYTES_MAX).map_err(&wrong)?;
    let found = Certificate::from_pem_bundle(pem.as_bytes())
        .map_err(|_| wrong("not a PEM certificate".to_owned()))?;
    if found.is_empty() { Err(wrong("holds no certificate".to_owned())) } else { Ok(found) }
}

fn bounded_file(path: &Path, bytes_max: u64) -> Result<String, String> {
    use std::io::Read;
    let kind = |error: std::io::Error| error.kind().to_string();
    let file = std::fs::File::open(path).map_err(kind)?;
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(kind)?;
    if text.len() as u64 > bytes_max { Err("too long".to_owned()) } else { Ok(text) }
}

/// The value behind a reference, read now; surrounding white space is cut, an empty one is an error.
pub fn secret(reference: &Secret) -> Result<String, Error> {
    let (place, read) = match reference {
        Secret::Env(name) => {
            (format!("variable {name}"), std::env::var(name).map_err(|_| "not set".to_owned()))
        }
        Secret::File(path) => (path.display().to_string(), bounded_file(path, SECRET_BYTES_MAX)),
    };
    let value = match read {
        Ok(value) => value.trim().to_owned(),
        Err(what) => return Err(Error::Secret { place, what }),
    };
    if value.is_empty() {
        return Err(Error::Secret { place, what: "empty".to_owned() });
    }
    Ok(value)
}

/// The `Authorization` header for these credentials, read now and marked so that it is never logged.
pub fn authorization(auth: &Auth) -> Result<HeaderValue, Error> {
    let (text, reference) = match auth {
        Auth::Bearer(token) => (format!("Bearer {}", secret(token)?), token),
        Auth::Basic { username, password } => {
            let pair = format!("{username}:{}", secret(password)?);
            (format!("Basic {}", BASE64_STANDARD.encode(pair)), password)
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| Error::Secret {
        place: match reference {
            Secret::Env(name) => format!("variable {name}"),
            Secret::File(path) => path.display().to_string(),
        },
        what: "holds characters that no header may have".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The request with its credentials, if it has any.
pub fn with_auth(request: RequestBuilder, auth: Option<&Auth>) -> Result<RequestBuilder, Error> {
    Ok(match auth {
        Some(auth) => request.header(reqwest::header::AUTHORIZATION, authorization(auth)?),
        None => request,
    })
}

/// The body, read piece by piece and given up as soon as it exceeds `bytes_max`.
pub async fn body(mut response: Response, bytes_max: u64) -> Result<Vec<u8>, Error> {
    if response.content_length().is_some_and(|length| length > bytes_max) {
        return Err(Error::TooLong(bytes_max));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if (bytes.len() + piece.len()) as u64 > bytes_max {
            return Err(Error::TooLong(bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_credentials_or_other_schemes_are_refused() {
        for bad in ["file:///etc/passwd", "http://a:b@c/", "http://a@c/", "no", "unix:/x"] {
            assert!(matches!(checked_url(bad), Err(Error::Url)), "{bad}");
        }
        assert!(checked_url("https://prom.internal/prefix").is_ok());
    }

    #[test]
    fn row_28_addresses_of_the_machines_own_secrets_are_never_called() {
        for bad in [
            "http://169.254.169.254/latest/meta-data",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/",
            "http://0.0.0.0:9090/",
            "http://[::]/",
            "http://224.0.0.1/",
        ] {
            assert!(matches!(checked_url(bad), Err(Error::Address)), "{bad}");
        }
        for bad in ["file:///etc/passwd", "gopher://a/", "http://"] {
            assert!(matches!(checked_url(bad), Err(Error::Url)), "{bad}");
        }
        assert!(checked_url("http://127.0.0.1:9090").is_ok());
        let answers = [("169.254.169.254", true), ("10.0.0.7", false), ("fe80::2", true)];
        for (address, nobodys) in answers {
            assert_eq!(is_nobodys(address.parse().unwrap()), nobodys, "{address}");
        }
    }

    #[test]
    fn a_secret_is_read_again_at_each_use_and_never_named_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let auth = Auth::Bearer(Secret::File(path.clone()));
        assert!(matches!(authorization(&auth), Err(Error::Secret { .. })));
        for token in ["first", "second"] {
            std::fs::write(&path, format!(" {token}\n")).unwrap();
            assert_eq!(authorization(&auth).unwrap(), format!("Bearer {token}").as_str());
        }
        std::fs::write(&path, "plan\u{7}ted").unwrap();
        let error = authorization(&auth).unwrap_err();
        assert!(!format!("{error}{error:?}").contains("plan"), "{error:?}");
        std::fs::write(&path, "  \n").unwrap();
        assert!(authorization(&auth).unwrap_err().to_string().ends_with("empty"));
    }
}
