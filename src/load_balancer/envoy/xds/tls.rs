//! Mutual TLS of the xDS port, and that an Envoy is who it says.

use std::io::Read;
use std::path::Path;

use rustls::pki_types::{CertificateDer, ServerName};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use webpki::EndEntityCert;

use super::Error;
use crate::spec::fleet::{MutualTls, Secret};

/// Most bytes of a certificate or key file.
const BYTES_MAX: u64 = 1 << 20;

/// The text of a file, cut after `bytes_max`.
pub fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads the settings' files; clients without a certificate of the authority are not let in.
pub fn config(settings: &MutualTls) -> Result<ServerTlsConfig, Error> {
    let certificate = read(&settings.certificate)?;
    let key = match &settings.key {
        Secret::File(path) => read(path)?,
        Secret::Env(name) => {
            std::env::var(name).map_err(|_| Error::Tls(format!("{name} is not set")))?
        }
    };
    let authority = Certificate::from_pem(read(&settings.client_ca)?);
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(authority))
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { path: path.display().to_string(), source };
    read_bounded(path, BYTES_MAX).map_err(failed)
}

/// The client's certificate has the DNS name `node_cluster`, so that it may have the routes of that group.
pub fn speaks_for(certificates: &[CertificateDer<'static>], node_cluster: &str) -> bool {
    let Some(first) = certificates.first() else { return false };
    let Ok(name) = ServerName::try_from(node_cluster) else { return false };
    EndEntityCert::try_from(first)
        .is_ok_and(|own| own.verify_is_valid_for_subject_name(&name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_speaks_for_its_own_names_only() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["us_east_1".to_owned(), "edge".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let chain = [certificate.der().clone()];
        assert!(speaks_for(&chain, "us_east_1") && speaks_for(&chain, "edge"));
        for other in ["eu_west_1", "", "*", "us_east_1 "] {
            assert!(!speaks_for(&chain, other), "{other}");
        }
        assert!(!speaks_for(&[], "us_east_1"));
    }
}
