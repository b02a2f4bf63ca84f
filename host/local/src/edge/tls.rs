//! The platform's own certificates: an authority that lives in the state directory, and a leaf made at every start.
//!
//! The authority may sign names under `vm.localhost` only (name constraints), so that who trusts it trusts nothing else.
//! It is never installed anywhere: clients are pointed at `ca.pem`. The leaf and its key exist in memory alone.

use super::DOMAIN;
use crate::error::Error;
use crate::state::{StateDir, write};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::PathBuf;
use std::sync::Arc;

/// What the listener shows, and who vouches for it.
#[derive(Debug)]
pub(crate) struct Authority {
    /// For clients to trust.
    pub(crate) ca_pem: PathBuf,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) config: ConfigSource,
}

/// Builds the server's configuration around a resolver.
#[derive(Debug)]
pub(crate) struct ConfigSource(Arc<CryptoProvider>);

impl ConfigSource {
    pub(crate) fn with_resolver(
        self,
        resolver: Arc<dyn rustls::server::ResolvesServerCert>,
    ) -> Arc<rustls::ServerConfig> {
        // The provider has both protocol versions: it was built for them.
        let builder = rustls::ServerConfig::builder_with_provider(self.0.clone())
            .with_safe_default_protocol_versions();
        let builder = builder.unwrap_or_else(|_| rustls::ServerConfig::builder());
        Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver))
    }
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Tls(e.to_string())
}

fn ca_params() -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .distinguished_name
        .push(DnType::CommonName, "vers-local authority");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(DOMAIN.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

impl Authority {
    /// Loads the authority, or makes it, and signs a new leaf.
    pub(crate) fn load(state: &StateDir) -> Result<Self, Error> {
        let (ca_pem, ca_key) = (state.path("ca.pem"), state.path("ca.key"));
        let params = ca_params()?;
        let key = match std::fs::read_to_string(&ca_key) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| Error::Damaged {
                path: ca_key.clone(),
                why: format!("it holds no private key: {e}"),
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(failed)?;
                // A certificate of another key is of no use.
                let _ = std::fs::remove_file(&ca_pem);
                write(&ca_key, key.serialize_pem().as_bytes())?;
                key
            }
            Err(e) => return Err(Error::file("read", &ca_key)(e)),
        };
        if !ca_pem.exists() {
            let certificate = params.self_signed(&key).map_err(failed)?;
            write(&ca_pem, certificate.pem().as_bytes())?;
        }
        let leaf_key = KeyPair::generate().map_err(failed)?;
        let mut leaf = CertificateParams::new(vec![format!("*.{DOMAIN}")]).map_err(failed)?;
        leaf.distinguished_name
            .push(DnType::CommonName, "vers-local edge");
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        let leaf = leaf
            .signed_by(&leaf_key, &Issuer::new(params, key))
            .map_err(failed)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let certified =
            CertifiedKey::from_der(vec![leaf.der().clone()], private, &provider).map_err(failed)?;
        Ok(Self {
            ca_pem,
            certified: Arc::new(certified),
            config: ConfigSource(provider),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    fn verify(state: &StateDir, authority: &Authority, name: &str) -> Result<(), rustls::Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(state.path("ca.pem")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier
            .verify_server_cert(
                &authority.certified.cert[0],
                &[],
                &name,
                &[],
                UnixTime::now(),
            )
            .map(|_| ())
    }

    #[test]
    fn the_leaf_is_good_for_vms_only_and_the_authority_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path()).unwrap();
        let first = Authority::load(&state).unwrap();
        let pem = std::fs::read(state.path("ca.pem")).unwrap();
        verify(&state, &first, "8080--x.vm.localhost").unwrap();
        assert!(verify(&state, &first, "localhost").is_err());
        assert!(verify(&state, &first, "a.b.vm.localhost").is_err());
        let second = Authority::load(&state).unwrap();
        assert_eq!(std::fs::read(state.path("ca.pem")).unwrap(), pem);
        verify(&state, &second, "x.vm.localhost").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(state.path("ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_authority_cannot_vouch_for_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path()).unwrap();
        let mut authority = Authority::load(&state).unwrap();
        let ca =
            KeyPair::from_pem(&std::fs::read_to_string(state.path("ca.key")).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["bank.example".to_owned()]).unwrap();
        let leaf = leaf
            .signed_by(&key, &Issuer::new(ca_params().unwrap(), ca))
            .unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        authority.certified =
            Arc::new(CertifiedKey::from_der(vec![leaf.der().clone()], private, &provider).unwrap());
        assert!(verify(&state, &authority, "bank.example").is_err());
    }
}
