//! Certificates of an authority made for a test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority, a server's certificate, and one for the Envoys of each of two groups.
pub fn write(directory: &Path) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let save = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    save("ca.pem", params.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(params, key);
    for (file, name) in
        [("server", "localhost"), ("us_east_1", "us_east_1"), ("eu_west_1", "eu_west_1")]
    {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        save(&format!("{file}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        save(&format!("{file}.key"), key.serialize_pem());
    }
    directory.to_owned()
}
