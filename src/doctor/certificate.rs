//! The certificate of our own port.

use rustls::{
    CertificateError, Error,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::Finding;
use crate::{
    clock::unix_now,
    config::Config,
    tls::{self, verify},
};

/// A certificate is renewed before that many days are left.
const FEWEST_DAYS: u64 = 14;

const DAY: u64 = 24 * 60 * 60;

/// How the certificate stands with time that ends at `end`, both in whole seconds since the Unix epoch.
pub(super) fn lasts(subject: String, end: Option<u64>, now: u64, renew: &str) -> Finding {
    let Some(left) = end.map(|end| end.saturating_sub(now)) else {
        return Finding::ok(subject, "has no end");
    };
    let days = left / DAY;
    match days {
        0 if left == 0 => Finding::fault(subject, "has expired", renew),
        days if days < FEWEST_DAYS => {
            Finding::warning(subject, format!("expires in {days} days"), renew)
        }
        days => Finding::ok(subject, format!("good for {days} days")),
    }
}

pub(super) fn look(config: &Config) -> Vec<Finding> {
    const SUBJECT: &str = "certificate";
    const RENEW: &str = "renew it (`certbot renew`); a running server reads the new one by itself";
    let Some(files) = &config.tls else { return Vec::new() };
    let is_still_to_come = files.self_signed && !files.certificate.exists() && !files.key.exists();
    if is_still_to_come {
        let says = "a self-signed one will be made at the start, which browsers warn of";
        return vec![Finding::warning(SUBJECT, says, "give SSL_CERT_FILE and SSL_KEY_FILE")];
    }
    if let Err(error) = tls::load_certificate(files) {
        let mend =
            "name a PEM file with the chain, the own certificate first, and one with its key";
        return vec![Finding::fault(SUBJECT, error.to_string(), mend)];
    }
    let chain = CertificateDer::pem_file_iter(&files.certificate).into_iter().flatten().flatten();
    let chain: Vec<_> = chain.collect();
    let Some(own) = chain.first() else { return Vec::new() };
    let now = unix_now();
    let mut findings = vec![lasts(SUBJECT.to_owned(), verify::not_after(own), now, RENEW)];
    match verify::verify_chain(&chain, &verify::system_roots(true), now) {
        Ok(()) => findings.push(Finding::ok(SUBJECT, "its chain leads to an authority that this system trusts")),
        // Said already.
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => {}
        Err(error) => findings.push(Finding::warning(
            SUBJECT,
            format!("clients that trust whom this system trusts refuse it: {error}"),
            "fine for an authority of your own; else SSL_CERT_FILE holds the whole chain (certbot: fullchain.pem)",
        )),
    }
    let is_name =
        config.host.contains(|char: char| char.is_ascii_alphabetic()) && !config.host.contains(':');
    if is_name && !verify::is_valid_for(own, &config.host) {
        let says = format!("it is not made out to HOST={}", config.host);
        let mend = "have one for the name under which clients come, and listen on 0.0.0.0 where that is another one";
        findings.push(Finding::warning(SUBJECT, says, mend));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_certificate_is_to_be_renewed_two_weeks_before_its_end() {
        let verdict = |end| {
            let finding = lasts("certificate".into(), end, 1_700_000_000, "renew it");
            (finding.verdict, finding.says)
        };
        let after = |days: u64| verdict(Some(1_700_000_000 + days * DAY));

        assert_eq!(after(14), (Verdict::Ok, "good for 14 days".into()));
        assert_eq!(after(13), (Verdict::Warning, "expires in 13 days".into()));
        assert_eq!(verdict(Some(1_700_000_001)).0, Verdict::Warning);
        assert_eq!(after(0).0, Verdict::Fault);
        assert_eq!(verdict(Some(0)).0, Verdict::Fault);
        assert_eq!(verdict(None).0, Verdict::Ok);
    }
}
