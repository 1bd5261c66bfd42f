//! STUN and TURN servers, tried as clients would.

use secrecy::ExposeSecret;

use super::{Finding, Verdict, certificate};
use crate::{
    clock::unix_now,
    config::{Config, Turn},
    turn::{
        probe::{
            attempt::{Report, Verdict as Seen},
            health as relays,
        },
        url::{RelayUrl, Transport},
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
    let reports = relays::reports(&urls, secret, *ttl, "doctor", config.tls.is_some()).await;
    for (url, report) in urls.into_iter().zip(reports) {
        if let Some(read) = RelayUrl::read(url) {
            findings.extend(judge(url, &read, &report, unix_now()));
        }
    }
    findings
}

fn judge(url: &str, read: &RelayUrl, report: &Report, now: u64) -> Vec<Finding> {
    let Report { verdict: seen, latency, certificate_ends } = report;
    let mut says =
        if *seen == Seen::Up && read.relays { "relays".into() } else { seen.to_string() };
    if let Some(within) = latency.filter(|_| seen.is_up()) {
        says += &format!(", within {:.1} ms", within.as_secs_f64() * 1e3);
    }
    let verdict = match seen {
        Seen::Up => Verdict::Ok,
        Seen::ClockAhead | Seen::Redirects => Verdict::Warning,
        Seen::NotTried => Verdict::NotChecked,
        Seen::Open
        | Seen::Expired
        | Seen::WrongSecret
        | Seen::NoLongTerm
        | Seen::Refused(..)
        | Seen::UnknownHost(_)
        | Seen::Closed
        | Seen::Unreachable(_)
        | Seen::Silent
        | Seen::NoStun
        | Seen::HungUp
        | Seen::BadCertificate(_)
        | Seen::NoTls(_) => Verdict::Fault,
    };
    let mut findings = vec![Finding::new(url, verdict, says, mend(seen, read))];
    if let Some(end) = certificate_ends {
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

fn mend(seen: &Seen, url: &RelayUrl) -> String {
    let RelayUrl { host, port, transport, .. } = url;
    let protocol = if *transport == Transport::Udp { "udp" } else { "tcp" };
    match seen {
        Seen::Up => String::new(),
        Seen::ClockAhead | Seen::Expired => {
            "have both clocks set by NTP: `timedatectl` here and at the relay".into()
        }
        Seen::WrongSecret => "the same value here in TURNSERVER_SECRET and there as static-auth-secret (/etc/turnserver.conf), then `systemctl restart coturn`".into(),
        Seen::Open => "strangers relay at your cost: `use-auth-secret`, and no `no-auth`, in /etc/turnserver.conf".into(),
        Seen::Redirects => "name the server that it sends to, so that this one is tried".into(),
        Seen::NoLongTerm => "`use-auth-secret`, `static-auth-secret=` and `realm=` in /etc/turnserver.conf (deploy/turnserver.conf)".into(),
        Seen::Refused(486 | 508, _) => "raise user-quota, total-quota, or min-port to max-port in /etc/turnserver.conf, or wait until calls end".into(),
        Seen::Refused(..) => "the relay's log says why: `journalctl -u coturn`".into(),
        Seen::UnknownHost(_) => format!("look at its spelling; `getent hosts {host}` asks the same name servers"),
        Seen::Closed => format!("start it (`systemctl status coturn`) with {port} among its ports, or let {protocol} through: `ufw allow {port}/{protocol}`"),
        Seen::Unreachable(_) => format!("`ip route get` and the firewall of this machine: {host} port {port}, {protocol}"),
        Seen::Silent => format!("a firewall swallows it: open {port}/{protocol} at the relay (`ufw allow {port}/{protocol}`) and in its provider's"),
        Seen::NoStun => format!("`ss -lnp 'sport = :{port}'` at the relay says what listens there; name a port of the relay"),
        Seen::HungUp => "the port may want TLS (`turns:`), or a proxy stands before it; the relay's log says more".into(),
        Seen::BadCertificate(_) => format!("one for {host} of an authority that browsers know, with its chain (fullchain.pem) as `cert=`; `openssl s_client -connect {host}:{port}` shows it"),
        Seen::NoTls(_) => "`cert=` and `pkey=` in /etc/turnserver.conf that the relay's user can read; its log says more".into(),
        Seen::NotTried => "`turns:` with `?transport=tcp`, which every browser speaks".into(),
    }
}
