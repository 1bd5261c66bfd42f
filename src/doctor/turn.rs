//! STUN and TURN servers, probed as a client would use them.

use secrecy::ExposeSecret;

use super::{Diagnostic, Verdict, certificate::judge_expiry};
use crate::{
    clock::unix_now,
    config::{Config, TurnSettings},
    turn::{
        IceServerUrl, LAST_EXPIRY, StunTransport,
        probe::{self, ProbeOutcome as Outcome, ProbeReport, Prober},
    },
};

/// Probes every STUN server, and every TURN server with credentials as clients get them.
pub(super) async fn check(config: &Config) -> Vec<Diagnostic> {
    let TurnSettings { secret, urls, ttl } = &config.reloadable.ice.turn;
    let has_secret = !secret.expose_secret().is_empty();
    let mut diagnostics = Vec::new();
    if !has_secret && urls.is_empty() {
        diagnostics.push(Diagnostic::warning(
            "TURN",
            "no TURN server: there are no calls in networks that block direct connections",
            "docs/run/deployment.md, \"A TURN relay\"",
        ));
    } else if has_secret && unix_now().saturating_add(ttl.as_secs()) > LAST_EXPIRY {
        diagnostics.push(Diagnostic::warning(
            "TURNSERVER_TTL",
            "credentials end on 2038-01-19, whatever the setting: coturn refuses every later expiry",
            "use a TURN server that counts further",
        ));
    }
    let turn_urls = if has_secret { urls.as_slice() } else { &[] };
    let urls: Vec<_> = config.reloadable.ice.stun_urls.iter().chain(turn_urls).collect();
    let reports =
        probe::probe_all(&urls, secret, *ttl, Prober::Doctor, config.startup.listen.tls.is_some())
            .await;
    for (url, report) in urls.into_iter().zip(reports) {
        if let Some(parsed) = IceServerUrl::parse(url) {
            diagnostics.extend(judge(url, &parsed, &report, unix_now()));
        }
    }
    diagnostics
}

fn judge(url: &str, parsed: &IceServerUrl, report: &ProbeReport, now: u64) -> Vec<Diagnostic> {
    let ProbeReport { outcome, latency, certificate_expires_at } = report;
    let mut message = if *outcome == Outcome::Up && parsed.is_turn {
        "relays".into()
    } else {
        outcome.to_string()
    };
    if let Some(latency) = latency.filter(|_| outcome.is_up()) {
        message += &format!(", within {:.1} ms", latency.as_secs_f64() * 1e3);
    }
    let mut diagnostics =
        vec![Diagnostic::new(url, verdict(outcome), message, fix(outcome, parsed))];
    if let Some(end) = certificate_expires_at {
        let subject = format!("{url} certificate");
        let fix = "renew it there (`certbot renew`), then `systemctl restart coturn`";
        diagnostics.push(judge_expiry(&subject, Some(*end), now, fix));
    }
    diagnostics
}

fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Up => Verdict::Ok,
        Outcome::ClockAhead | Outcome::Redirects | Outcome::IgnoresExpiry => Verdict::Warning,
        Outcome::OpenRelay
        | Outcome::StunOnly
        | Outcome::Expired
        | Outcome::WrongSecret
        | Outcome::NoLongTermCredentials
        | Outcome::Refused(..)
        | Outcome::UnknownHost(_)
        | Outcome::PortClosed
        | Outcome::Unreachable(_)
        | Outcome::Timeout
        | Outcome::AllocationTimeout
        | Outcome::NotStun
        | Outcome::ConnectionClosed
        | Outcome::BadCertificate(_)
        | Outcome::TlsFailed(_) => Verdict::Fault,
    }
}

fn fix(outcome: &Outcome, url: &IceServerUrl) -> String {
    let IceServerUrl { host, port, transport, .. } = url;
    let protocol = if *transport == StunTransport::Udp { "udp" } else { "tcp" };
    match outcome {
        Outcome::Up => String::new(),
        Outcome::ClockAhead | Outcome::Expired => {
            "synchronise both clocks with NTP: `timedatectl` here and on the TURN server".into()
        }
        Outcome::WrongSecret => "set the same value here in TURNSERVER_SECRET and there as static-auth-secret (/etc/turnserver.conf; all that follows `=` counts, comments and quotes, too), with use-auth-secret and without lt-cred-mech, then `systemctl restart coturn`".into(),
        Outcome::OpenRelay => "programs relay at your cost, and calls do not: set `use-auth-secret`, and not `no-auth`, in /etc/turnserver.conf".into(),
        Outcome::IgnoresExpiry => "a client that has had credentials relays until the secret is replaced: change TURNSERVER_SECRET regularly, or use a server that checks the expiry, such as coturn; where it is coturn, its clock is behind by more than a day: `timedatectl` there".into(),
        Outcome::StunOnly => "remove `stun-only` from /etc/turnserver.conf, or name another server: this one does not relay".into(),
        Outcome::Redirects => "name the server that it redirects to, so that it is probed".into(),
        Outcome::NoLongTermCredentials => "set `use-auth-secret`, `static-auth-secret=` and `realm=` in /etc/turnserver.conf (deploy/turnserver.conf)".into(),
        Outcome::Refused(486, _) => "raise user-quota or total-quota in /etc/turnserver.conf, or wait until calls end".into(),
        Outcome::Refused(508, _) | Outcome::AllocationTimeout => "behind NAT set external-ip=<public address>/<private address> and no relay-ip in /etc/turnserver.conf; otherwise raise the range from min-port to max-port".into(),
        Outcome::Refused(..) => "the TURN server's log says why: `journalctl -u coturn`".into(),
        Outcome::UnknownHost(_) => format!("check its spelling; `getent hosts {host}` asks the same name servers"),
        Outcome::PortClosed => format!("start it (`systemctl status coturn`) with {port} among its ports, or open the port: `ufw allow {port}/{protocol}`"),
        Outcome::Unreachable(_) => format!("check `ip route get` and the firewall of this machine: {host} port {port}, {protocol}"),
        Outcome::Timeout => format!("a firewall drops the packets, or no server runs there: open {port}/{protocol} on the TURN server (`ufw allow {port}/{protocol}`) and at its provider"),
        Outcome::NotStun => format!("`ss -lnp 'sport = :{port}'` on that machine shows what listens there; set a port of the TURN server"),
        Outcome::ConnectionClosed => "the port may need TLS (`turns:`), or a proxy is in front of it; the TURN server's log says more".into(),
        Outcome::BadCertificate(_) => format!("install one for {host} from an authority that browsers trust, with its chain (fullchain.pem) as `cert=`; `openssl s_client -connect {host}:{port}` shows it"),
        Outcome::TlsFailed(_) => "set `cert=` and `pkey=` in /etc/turnserver.conf to files that the TURN server's user can read; its log says more".into(),
    }
}
