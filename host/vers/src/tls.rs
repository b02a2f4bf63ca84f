//! One TLS policy for the REST API and for the way to VMs: verified against the system's roots, plus one file of
//! certificates where the settings name it.
//!
//! Every older client of the platform skips verification on the way to VMs. That leaves the SSH host key, which
//! nobody publishes, as the only thing that tells a VM from an impostor; so it is verified here, and switching it
//! off takes a setting that says so (`VERS_INSECURE_TLS=1`).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::config::TlsSettings;
use crate::error::{Error, Result};

/// The client configuration for these settings. Reads the certificate file.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::other(format!("TLS cannot be set up: {e}")))?
        .dangerous();
    let verifier: Arc<dyn ServerCertVerifier> = if settings.insecure {
        Arc::new(AcceptAny(provider))
    } else {
        Arc::new(platform(settings, provider)?)
    };
    Ok(builder
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn platform(
    settings: &TlsSettings,
    provider: Arc<CryptoProvider>,
) -> Result<rustls_platform_verifier::Verifier> {
    let mut extra = Vec::new();
    if let Some(path) = &settings.ca {
        let bad = |why: String| {
            Error::invalid(format!(
                "the certificate file {} (VERS_TLS_CA) {why}; name a PEM file of certificates",
                path.display()
            ))
        };
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|e| bad(format!("cannot be read: {e}")))?
        {
            extra.push(certificate.map_err(|e| bad(format!("is malformed: {e}")))?);
        }
        if extra.is_empty() {
            return Err(bad("holds no certificate".to_owned()));
        }
    }
    rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider).map_err(|e| {
        Error::other(format!(
            "the system's certificates cannot be used: {e}; name a file of them in VERS_TLS_CA"
        ))
    })
}

/// Whether a chain of errors comes from a certificate that was not accepted.
pub(crate) fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // `io::Error::source` skips the wrapped error itself.
        if let Some(inner) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            && is_certificate_error(inner)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Accepts every certificate; signatures are still checked.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
