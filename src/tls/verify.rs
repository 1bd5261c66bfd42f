//! Whom this machine trusts, and how a certificate stands with that.

use std::path::Path;

use rustls::{
    CertificateError, Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use std::time::Duration;

/// Where systems keep whom they trust: Debian, Ubuntu, Alpine and Arch; Fedora and its kin.
const BUNDLES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The last second of the year 9999, which stands for "no end" (RFC 5280 section 4.1.2.5).
const NO_END: u64 = 253_402_300_799;

/// Whom the system trusts. Where `SSL_CERT_FILE` names `our_own` certificate, it does not say that. Blocks while
/// files are read.
pub fn authorities(our_own: Option<&Path>) -> RootCertStore {
    let found = match our_own {
        None => rustls_native_certs::load_native_certs().certs,
        Some(_) => {
            let read = |bundle| {
                rustls_native_certs::load_certs_from_paths(Some(Path::new(bundle)), None).certs
            };
            BUNDLES.into_iter().flat_map(read).collect()
        }
    };
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found);
    authorities
}

/// When a certificate ends, in whole seconds since the Unix epoch; `None` where it is none, or has no end.
pub fn end_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    // What a verifier finds first in that year, before it asks who has signed.
    match stands(certificate, &[], &RootCertStore::empty(), NO_END) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        Ok(()) | Err(_) => None,
    }
}

/// Whether a client that trusts `authorities` accepts a chain, the server's own certificate first, `now` in whole
/// seconds since the Unix epoch.
///
/// # Errors
///
/// What the client would say.
pub fn check(
    chain: &[CertificateDer<'_>],
    authorities: &RootCertStore,
    now: u64,
) -> Result<(), Error> {
    match chain {
        [own, others @ ..] => stands(own, others, authorities, now),
        [] => Err(Error::NoCertificatesPresented),
    }
}

/// Whether a certificate is made out to `name`; of what is no name that is true of every one.
pub fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return true };
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
}

fn stands(
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    authorities: &RootCertStore,
    now: u64,
) -> Result<(), Error> {
    let algorithms = default_provider().signature_verification_algorithms.all;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let own = ParsedCertificate::try_from(own)?;
    verify_server_cert_signed_by_trust_anchor(&own, authorities, others, now, algorithms)
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

    #[test]
    fn the_end_of_a_certificate_is_what_it_says() {
        assert_eq!(end_of(&self_signed(2020, 2040)), Some(YEARS[1]));
        assert_eq!(end_of(&self_signed(2020, 2021)), Some(1_609_459_200), "also when it is over");
        assert_eq!(end_of(&CertificateDer::from(b"none".as_slice())), None);
    }

    #[test]
    fn a_chain_is_accepted_where_whoever_signed_it_is_trusted_and_while_it_lasts() {
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
        let fault = |now, authorities| match check(&chain, authorities, now) {
            Ok(()) => String::new(),
            Err(error) => format!("{error:?}"),
        };

        assert_eq!(fault(YEARS[0] + 1, &trusted), "");
        assert!(fault(YEARS[0] - 1, &trusted).contains("NotValidYet"));
        assert!(fault(YEARS[2], &trusted).contains("Expired"));
        assert!(fault(YEARS[0] + 1, &RootCertStore::empty()).contains("UnknownIssuer"));
        assert!(check(&[], &trusted, YEARS[0]).is_err());
        assert!(is_for(&chain[0], "a.example") && !is_for(&chain[0], "b.example"));
    }

    #[test]
    fn who_is_trusted_is_asked_of_the_system_where_the_variable_is_taken() {
        let ours = authorities(Some(Path::new("ours.pem")));

        let there = BUNDLES.iter().any(|bundle| Path::new(bundle).exists());
        assert_eq!(ours.is_empty(), !there);
    }
}
