//! The certificate of this server's own port.

use rustls::{
    CertificateError, Error,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{Diagnostic, start};
use crate::{
    clock::unix_now,
    config::ListenSettings,
    tls::{self, verify},
};

const SUBJECT: &str = "certificate";

/// A certificate with fewer days left should be renewed.
const MIN_DAYS: u64 = 14;

const DAY: u64 = 24 * 60 * 60;

/// How long a certificate that ends at `end` is still valid; `end` and `now` in whole seconds since the Unix epoch.
pub(super) fn judge_expiry(subject: &str, end: Option<u64>, now: u64, fix: &str) -> Diagnostic {
    let Some(left) = end.map(|end| end.saturating_sub(now)) else {
        return Diagnostic::ok(subject, "never expires");
    };
    match left / DAY {
        0 if left == 0 => Diagnostic::fault(subject, "has expired", fix),
        days if days < MIN_DAYS => {
            Diagnostic::warning(subject, format!("expires in {days} days"), fix)
        }
        days => Diagnostic::ok(subject, format!("valid for {days} days")),
    }
}

/// Checks certificate and key, where the server has them: whether they fit each other, until when, and for whom the
/// certificate is issued.
pub(super) fn check(listen: &ListenSettings) -> Vec<Diagnostic> {
    let Some(files) = &listen.tls else { return Vec::new() };
    if files.will_be_created() {
        if let Some(fault) = start::self_signed_fault(files) {
            return vec![fault];
        }
        let message = "a self-signed certificate will be created at the start; browsers warn of it";
        return vec![Diagnostic::warning(SUBJECT, message, "set SSL_CERT_FILE and SSL_KEY_FILE")];
    }
    if let Err(error) = tls::load_certificate(files, None) {
        return vec![Diagnostic::fault(SUBJECT, error.to_string(), tls::PAIR_FIX)];
    }
    let chain = CertificateDer::pem_file_iter(&files.certificate).into_iter().flatten().flatten();
    let chain: Vec<_> = chain.collect();
    let Some(own) = chain.first() else { return Vec::new() };
    let now = unix_now();
    let fix = "renew it (`certbot renew`); a running server loads the new one by itself";
    let mut diagnostics = vec![judge_expiry(SUBJECT, verify::not_after(own), now, fix)];
    diagnostics.extend(judge_chain(&chain, now));
    diagnostics.extend(judge_name(own, &listen.host));
    diagnostics
}

/// Whether clients accept the chain; nothing where it has expired, which is another diagnostic.
fn judge_chain(chain: &[CertificateDer<'_>], now: u64) -> Option<Diagnostic> {
    match verify::verify_chain(chain, &verify::system_roots(true), now) {
        Ok(()) => {
            Some(Diagnostic::ok(SUBJECT, "its chain leads to an authority that this system trusts"))
        }
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => None,
        Err(error) => Some(Diagnostic::warning(
            SUBJECT,
            format!("clients that trust the authorities of this system refuse it: {error}"),
            "no fault with an authority of your own; else SSL_CERT_FILE needs the whole chain (certbot: fullchain.pem)",
        )),
    }
}

/// Whether the certificate is issued for `host`, where that is a name.
fn judge_name(certificate: &CertificateDer<'_>, host: &str) -> Option<Diagnostic> {
    let is_name = host.contains(|char: char| char.is_ascii_alphabetic()) && !host.contains(':');
    (is_name && !verify::is_valid_for(certificate, host)).then(|| {
        Diagnostic::warning(
            SUBJECT,
            format!("it is not issued for HOST={host}"),
            "have it issued for the name that clients connect to, and set HOST=0.0.0.0 if that is another name",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_certificate_should_be_renewed_two_weeks_before_it_expires() {
        let verdict = |end| {
            let diagnostic = judge_expiry("certificate", end, 1_700_000_000, "renew it");
            (diagnostic.verdict, diagnostic.message)
        };
        let after = |days: u64| verdict(Some(1_700_000_000 + days * DAY));

        assert_eq!(after(14), (Verdict::Ok, "valid for 14 days".into()));
        assert_eq!(after(13), (Verdict::Warning, "expires in 13 days".into()));
        assert_eq!(verdict(Some(1_700_000_001)).0, Verdict::Warning);
        assert_eq!(after(0).0, Verdict::Fault);
        assert_eq!(verdict(Some(0)).0, Verdict::Fault);
        assert_eq!(verdict(None).0, Verdict::Ok);
    }
}
