//! TLS of the API: its only version, and which certificates are people.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::ServerName;

use super::world::{FLEET, World};

/// An authority and what it signed, in a folder.
struct Pki {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let own = Self { folder: tempfile::tempdir().unwrap(), authority };
        own.write("ca.pem", &own.authority.pem());
        own
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A certificate for a name, and its key, each in a file and both in a third one.
    fn sign(&self, name: &str, serial: u64) -> PathBuf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.both"), &(key.serialize_pem() + &certificate.pem()))
    }

    fn revoke(&self, serial: u64) {
        let at = rcgen::date_time_ymd(2026, 1, 1);
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: at,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at,
            next_update: rcgen::date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        self.write("crl.pem", &params.signed_by(&self.authority).unwrap().pem().unwrap());
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn fleet(&self) -> String {
        format!(
            "{FLEET}api:\n  listen: \"127.0.0.1:0\"\n  tls: {{certificate: {}, key: {{file: {}}}, client_ca: {}, revoked: {}}}\n",
            self.path("localhost.pem"),
            self.path("localhost.key"),
            self.path("ca.pem"),
            self.path("crl.pem"),
        )
    }
}

fn client(ca: &Path, identity: Option<&Path>) -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
    let mut builder = reqwest::Client::builder().no_proxy().tls_certs_only([ca]);
    if let Some(path) = identity {
        let identity = reqwest::Identity::from_pem(&std::fs::read(path).unwrap()).unwrap();
        builder = builder.identity(identity);
    }
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_40_old_tls_strange_and_revoked_certificates_stay_out() {
    let (pki, strangers) = (Pki::new(), Pki::new());
    pki.sign("localhost", 1);
    let ana = pki.sign("ana.ops.internal", 2);
    let unknown = pki.sign("nobody.ops.internal", 3);
    let revoked = {
        let path = pki.sign("ben.ops.internal", 4);
        pki.revoke(4);
        path
    };
    let strange = strangers.sign("ana.ops.internal", 2);
    let world = World::with(&pki.fleet()).await;
    let url = format!("https://localhost:{}/v1/fleet", world.listening.address.port());
    let ca = pki.folder.path().join("ca.pem");
    let status = async |identity: Option<&Path>| {
        let answer = client(&ca, identity).get(&url).send().await;
        answer.map(|answer| answer.status().as_u16()).ok()
    };
    assert_eq!(status(Some(&ana)).await, Some(200));
    assert_eq!(status(None).await, Some(401));
    assert_eq!(status(Some(&unknown)).await, Some(401));
    assert_eq!(status(Some(&revoked)).await, None);
    assert_eq!(status(Some(&strange)).await, None);
    let token = &world.tokens["rob"];
    let answer = client(&ca, None).get(&url).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // Another authority than the client's own: the client refuses.
    let other = strangers.folder.path().join("ca.pem");
    assert!(client(&other, None).get(&url).send().await.is_err());

    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(&ca).unwrap();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let handshake = async |version: &'static rustls::SupportedProtocolVersion| {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(world.listening.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.is_ok()
    };
    assert!(handshake(&rustls::version::TLS13).await);
    assert!(!handshake(&rustls::version::TLS12).await);
}
