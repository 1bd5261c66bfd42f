//! `signaling-server doctor`: looks whether everything is as it should be, here and where the settings point, and says of
//! each thing that is not how to mend it.

mod certificate;
mod clock;
mod machine;
mod redis;
mod settings;
mod turn;

use std::{fmt, time::Duration};

use serde::Serialize;

pub use self::settings::{default_passwords, settings};

/// Clocks may differ by so much: a logout is forgotten when its token ends, by whichever is ahead.
const CLOCK_OFF: Duration = Duration::from_secs(5);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It serves, and could be better.
    Warning,
    /// It does not serve, or is a danger.
    Fault,
    /// It could not be looked at.
    NotChecked,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What: a setting by its variable, a server by its URL, else a word.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub says: String,
    /// What to do; empty where it is as it should be.
    pub mend: String,
}

impl Finding {
    fn new(
        subject: impl Into<String>,
        verdict: Verdict,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { subject: subject.into(), verdict, says: says.into(), mend: mend.into() }
    }

    fn ok(subject: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Ok, says, "")
    }

    fn warning(
        subject: impl Into<String>,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(subject, Verdict::Warning, says, mend)
    }

    fn fault(subject: impl Into<String>, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Fault, says, mend)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, says, mend, verdict } = self;
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fault => "FAULT",
            Verdict::NotChecked => "not checked",
        };
        // Some sentences begin with the variable that they are about.
        let about = if says.starts_with(subject) { String::new() } else { format!("{subject}: ") };
        write!(f, "{word:<12}{about}{says}")?;
        if mend.is_empty() { Ok(()) } else { write!(f, "\n{:12}{mend}", "") }
    }
}

/// What a server of ours answers that nobody else does, and where. Figures may want a token, and say then which sentence
/// they are refused with.
const OUR_HEALTH: (&str, &[&str]) = ("/health", &["\"uptime_seconds\":"]);
const OUR_FIGURES: (&str, &[&str]) =
    ("/metrics", &["signaling_build_info", "{\"detail\":\"Not authenticated\"}"]);

/// Looks at everything that these variables name; `date` is a URL whose server's clock ours is held against.
pub async fn look(variable: impl Fn(&str) -> Option<String>, date: Option<&str>) -> Vec<Finding> {
    let (config, mut findings) = settings(&variable);
    // What could not be read names nothing that could be looked at.
    let at_fault: Vec<_> = findings.iter().map(|it| it.subject.clone()).collect();
    let is_sound = |names: &[&str]| !at_fault.iter().any(|it| names.contains(&it.as_str()));
    findings.extend(settings::more(&config, &findings));
    if is_sound(&["SSL_CERT_FILE", "SSL_KEY_FILE"]) {
        findings.extend(certificate::look(&config));
    }
    if is_sound(&["HOST", "PORT"]) {
        findings.push(machine::port("PORT", &config.host, config.port, OUR_HEALTH).await);
    }
    if let Some(address) = config.metrics_listen {
        let (host, port) = (address.ip().to_string(), address.port());
        findings.push(machine::port("METRICS_LISTEN", &host, port, OUR_FIGURES).await);
    }
    findings.push(machine::handles(&config));
    findings.extend(clock::look(date).await);
    if is_sound(&["REDIS_URL", "REDIS_CA_FILE"]) {
        findings.extend(redis::look(&config).await);
    }
    if is_sound(&["TURNSERVER_URL", "TURNSERVER_URLS", "STUNSERVER_URLS"]) {
        findings.extend(turn::look(&config).await);
    }
    findings
}
