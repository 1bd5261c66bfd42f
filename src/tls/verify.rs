//! The root certificates that this system trusts, and how a certificate stands with them.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::parse_x509_certificate;

/// Where systems keep the bundle of their root certificates: Debian, Ubuntu, Alpine and Arch; Fedora and its relatives.
const BUNDLES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The last second of the year 9999, which stands for "no well-defined expiration date" (RFC 5280 section 4.1.2.5).
const NO_EXPIRY: u64 = 253_402_300_799;

/// Reads the root certificates that the system trusts. Blocks on disk I/O.
///
/// `SSL_CERT_FILE` names them, if it is set. Where it `names_own_certificate`, that of this server, the system's usual
/// bundles and folder are read instead.
pub fn system_roots(names_own_certificate: bool) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted_certificates(names_own_certificate));
    roots
}

fn trusted_certificates(names_own_certificate: bool) -> Vec<CertificateDer<'static>> {
    if names_own_certificate {
        let bundles = BUNDLES.into_iter().map(|bundle| (Some(Path::new(bundle)), None));
        let folder = openssl_probe::candidate_cert_dirs().next();
        let places = bundles.chain([(None, folder)]);
        let load = |(bundle, folder)| rustls_native_certs::load_certs_from_paths(bundle, folder);
        places.flat_map(|place| load(place).certs).collect()
    } else {
        rustls_native_certs::load_native_certs().certs
    }
}

/// TLS as clients on this system use it, with the [roots of the system](system_roots). As browsers do, it also accepts a
/// certificate that is itself among them. Without any roots it rejects every certificate.
pub async fn client_config(names_own_certificate: bool) -> Arc<ClientConfig> {
    let load = move || trusted_certificates(names_own_certificate);
    let trusted = tokio::task::spawn_blocking(load).await.unwrap_or_default();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    // Without roots there is no verifier.
    let Ok(verifier) = WebPkiServerVerifier::builder(Arc::new(roots)).build() else {
        let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
        return Arc::new(config.with_no_client_auth());
    };
    let verifier = Arc::new(TrustingVerifier { verifier, trusted });
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
    Arc::new(config.with_no_client_auth())
}

/// A verifier that also accepts a certificate that is itself trusted: one that `openssl req -x509` makes says that it is
/// an authority, and is none of a chain.
#[derive(Debug)]
struct TrustingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for TrustingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        if verified.is_err() && self.trusted.iter().any(|trusted| trusted == end_entity) {
            check_validity(end_entity, now.as_secs())?;
            let parsed = ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_name(&parsed, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Whether a certificate is valid at `now`, in whole seconds since the Unix epoch.
fn check_validity(certificate: &CertificateDer<'_>, now: u64) -> Result<(), CertificateError> {
    let (_, parsed) =
        parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    Ok(())
}

/// What is wrong with a certificate, for an operator.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another crate, not exhaustive")]
pub fn describe(error: &CertificateError) -> String {
    let words = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: is one of the clocks wrong?"
        }
        CertificateError::Revoked => "it is revoked",
        CertificateError::UnknownIssuer => {
            "no authority that this system trusts has issued it, or its chain is not complete"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is issued for another name"
        }
        CertificateError::BadSignature => "its signature is wrong",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed with an algorithm that is not supported, or by an authority with another kind of key"
        }
        CertificateError::BadEncoding => "it cannot be read",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for servers"
        }
        // rustls has no variant for it.
        CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => {
            "it says that it is an authority, and this system does not trust it"
        }
        // The errors of others: their text is all that there is.
        other => return other.to_string(),
    };
    words.to_owned()
}

/// When a certificate expires, in whole seconds since the Unix epoch. `None` if it cannot be parsed or never expires.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let not_after = parsed.validity().not_after.timestamp();
    u64::try_from(not_after).ok().filter(|not_after| *not_after != NO_EXPIRY)
}

/// Verifies that a client with these `roots` accepts `chain`, whose first certificate is the server's own, at `now`
/// (whole seconds since the Unix epoch).
///
/// # Errors
///
/// What the client would report.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: u64,
) -> Result<(), Error> {
    match chain {
        [own, intermediates @ ..] => verify_signature(own, intermediates, roots, now),
        [] => Err(Error::NoCertificatesPresented),
    }
}

/// Whether a certificate is valid for `name`. True if `name` is no name that a certificate can hold.
pub fn is_valid_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return true };
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
}

fn verify_signature(
    own: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: u64,
) -> Result<(), Error> {
    let algorithms = default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let own = ParsedCertificate::try_from(own)?;
    verify_server_cert_signed_by_trust_anchor(&own, roots, intermediates, now, algorithms)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    /// 2030-01-01, 2040-01-01, 2050-01-01.
    const YEARS: [u64; 3] = [1_893_456_000, 2_208_988_800, 2_524_608_000];

    fn params(names: &[&str], from: i32, until: i32) -> CertificateParams {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params
    }

    fn self_signed(from: i32, until: i32) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params(&["localhost"], from, until).self_signed(&key).unwrap().der().clone()
    }

    /// RFC 5280 section 4.1.2.5: `99991231235959Z`.
    fn never_expires() -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&["localhost"], 2020, 2040);
        params.not_after = date_time_ymd(9999, 12, 31) + Duration::from_secs(86_399);
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_expiry_of_a_certificate_is_its_not_after() {
        assert_eq!(not_after(&self_signed(2020, 2040)), Some(YEARS[1]));
        assert_eq!(
            not_after(&self_signed(2020, 2021)),
            Some(1_609_459_200),
            "also when it has expired"
        );
        assert_eq!(not_after(&never_expires()), None);
        assert_eq!(not_after(&CertificateDer::from(b"none".as_slice())), None);
    }

    #[test]
    fn a_chain_is_accepted_if_its_root_is_trusted_and_while_it_is_valid() {
        let key = KeyPair::generate().unwrap();
        let mut authority = params(&[], 2020, 2060);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(authority, key);
        let own_key = KeyPair::generate().unwrap();
        let own = params(&["a.example"], 2030, 2040).signed_by(&own_key, &issuer).unwrap();
        let chain = [own.der().clone()];
        let mut trusted = RootCertStore::empty();
        trusted.add(root).unwrap();
        let problem = |now, roots| match verify_chain(&chain, roots, now) {
            Ok(()) => String::new(),
            Err(error) => format!("{error:?}"),
        };

        assert_eq!(problem(YEARS[0] + 1, &trusted), "");
        assert!(problem(YEARS[0] - 1, &trusted).contains("NotValidYet"));
        assert!(problem(YEARS[2], &trusted).contains("Expired"));
        assert!(problem(YEARS[0] + 1, &RootCertStore::empty()).contains("UnknownIssuer"));
        assert!(verify_chain(&[], &trusted, YEARS[0]).is_err());
        assert!(is_valid_for(&chain[0], "a.example") && !is_valid_for(&chain[0], "b.example"));
    }

    #[test]
    fn the_systems_roots_are_read_where_the_variable_names_the_own_certificate() {
        let roots = system_roots(true);

        let has_bundle = BUNDLES.iter().any(|bundle| Path::new(bundle).exists());
        assert_eq!(roots.is_empty(), !has_bundle);
    }
}
