//! STUN and TURN servers, tried as clients would.

use secrecy::ExposeSecret;

use super::{Finding, Verdict, certificate};
use crate::{
    clock::unix_now,
    config::{Config, Turn},
    turn::{
        IceServerUrl, StunTransport,
        probe::{self, ProbeOutcome, ProbeReport},
    },
};

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let Turn { secret, urls, ttl } = &config.ice.turn;
    let mut findings = Vec::new();
    if secret.expose_secret().is_empty() {
        findings.push(if urls.is_empty() {
            Finding::warning(
                "TURN",
                "no relay: in networks that let nothing direct through there are no calls",
                "README, \"A TURN relay\"",
            )
        } else {
            Finding::fault(
                "TURNSERVER_SECRET",
                "TURNSERVER_URLS is set but TURNSERVER_SECRET is empty: nobody gets TURN credentials",
                "set it to the relay's static-auth-secret",
            )
        });
    }
    let relays = if secret.expose_secret().is_empty() { &[] } else { urls.as_slice() };
    let urls: Vec<_> = config.ice.stun_urls.iter().chain(relays).collect();
    let reports = probe::probe_all(&urls, secret, *ttl, "doctor", config.tls.is_some()).await;
    for (url, report) in urls.into_iter().zip(reports) {
        if let Some(read) = IceServerUrl::parse(url) {
            findings.extend(judge(url, &read, &report, unix_now()));
        }
    }
    findings
}

fn judge(url: &str, read: &IceServerUrl, report: &ProbeReport, now: u64) -> Vec<Finding> {
    let ProbeReport { outcome, latency, certificate_expires_at } = report;
    let mut says = if *outcome == ProbeOutcome::Up && read.is_turn {
        "relays".into()
    } else {
        outcome.to_string()
    };
    if let Some(within) = latency.filter(|_| outcome.is_up()) {
        says += &format!(", within {:.1} ms", within.as_secs_f64() * 1e3);
    }
    let verdict = match outcome {
        ProbeOutcome::Up => Verdict::Ok,
        ProbeOutcome::ClockAhead | ProbeOutcome::Redirects => Verdict::Warning,
        ProbeOutcome::NotProbed => Verdict::NotChecked,
        ProbeOutcome::OpenRelay
        | ProbeOutcome::Expired
        | ProbeOutcome::WrongSecret
        | ProbeOutcome::NoLongTermCredentials
        | ProbeOutcome::Refused(..)
        | ProbeOutcome::UnknownHost(_)
        | ProbeOutcome::PortClosed
        | ProbeOutcome::Unreachable(_)
        | ProbeOutcome::Timeout
        | ProbeOutcome::NotStun
        | ProbeOutcome::ConnectionClosed
        | ProbeOutcome::BadCertificate(_)
        | ProbeOutcome::TlsFailed(_) => Verdict::Fault,
    };
    let mut findings = vec![Finding::new(url, verdict, says, mend(outcome, read))];
    if let Some(end) = certificate_expires_at {
        let lasts = certificate::lasts(
            format!("{url} certificate"),
            Some(*end),
            now,
            "renew it there (`certbot renew`), then `systemctl restart coturn`",
        );
        findings.push(lasts);
    }
    findings
}

fn mend(outcome: &ProbeOutcome, url: &IceServerUrl) -> String {
    let IceServerUrl { host, port, transport, .. } = url;
    let protocol = if *transport == StunTransport::Udp { "udp" } else { "tcp" };
    match outcome {
        ProbeOutcome::Up => String::new(),
        ProbeOutcome::ClockAhead | ProbeOutcome::Expired => {
            "have both clocks set by NTP: `timedatectl` here and at the relay".into()
        }
        ProbeOutcome::WrongSecret => "the same value here in TURNSERVER_SECRET and there as static-auth-secret (/etc/turnserver.conf), then `systemctl restart coturn`".into(),
        ProbeOutcome::OpenRelay => "strangers relay at your cost: `use-auth-secret`, and no `no-auth`, in /etc/turnserver.conf".into(),
        ProbeOutcome::Redirects => "name the server that it sends to, so that this one is tried".into(),
        ProbeOutcome::NoLongTermCredentials => "`use-auth-secret`, `static-auth-secret=` and `realm=` in /etc/turnserver.conf (deploy/turnserver.conf)".into(),
        ProbeOutcome::Refused(486 | 508, _) => "raise user-quota, total-quota, or min-port to max-port in /etc/turnserver.conf, or wait until calls end".into(),
        ProbeOutcome::Refused(..) => "the relay's log says why: `journalctl -u coturn`".into(),
        ProbeOutcome::UnknownHost(_) => format!("look at its spelling; `getent hosts {host}` asks the same name servers"),
        ProbeOutcome::PortClosed => format!("start it (`systemctl status coturn`) with {port} among its ports, or let {protocol} through: `ufw allow {port}/{protocol}`"),
        ProbeOutcome::Unreachable(_) => format!("`ip route get` and the firewall of this machine: {host} port {port}, {protocol}"),
        ProbeOutcome::Timeout => format!("a firewall swallows it: open {port}/{protocol} at the relay (`ufw allow {port}/{protocol}`) and in its provider's"),
        ProbeOutcome::NotStun => format!("`ss -lnp 'sport = :{port}'` at the relay says what listens there; name a port of the relay"),
        ProbeOutcome::ConnectionClosed => "the port may want TLS (`turns:`), or a proxy stands before it; the relay's log says more".into(),
        ProbeOutcome::BadCertificate(_) => format!("one for {host} of an authority that browsers know, with its chain (fullchain.pem) as `cert=`; `openssl s_client -connect {host}:{port}` shows it"),
        ProbeOutcome::TlsFailed(_) => "`cert=` and `pkey=` in /etc/turnserver.conf that the relay's user can read; its log says more".into(),
        ProbeOutcome::NotProbed => "`turns:` with `?transport=tcp`, which every browser speaks".into(),
    }
}
