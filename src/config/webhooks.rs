//! Where room events are posted.

use super::{
    declare::{Section, Setting},
    parse::{Reader, TRUE_OR_FALSE, flag, list, number},
};
use crate::webhooks::WebhookTarget;

/// The receivers of webhooks.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// `WEBHOOK_URLS`, as `WEBHOOK_ALLOW_PRIVATE` permits them.
    pub targets: Vec<WebhookTarget>,
    /// `WEBHOOK_CONCURRENCY`: how many events are delivered to each at once.
    pub concurrency: usize,
}

const WEBHOOK_URLS: Setting<Vec<String>> = Setting::new("WEBHOOK_URLS", "[]", list)
    .accepts("a list of URLs such as [\"https://hooks.example.com/path\"]")
    .holds_credentials()
    .help("Receivers of room events: `https://` URLs and public addresses only.")
    .page("docs/build/webhooks.md");

const WEBHOOK_ALLOW_PRIVATE: Setting<bool> = Setting::new("WEBHOOK_ALLOW_PRIVATE", "false", flag)
    .accepts(TRUE_OR_FALSE)
    .help("`true`: `WEBHOOK_URLS` may also have `http://` URLs and addresses of your own network.");

const WEBHOOK_CONCURRENCY: Setting<usize> =
    Setting::new("WEBHOOK_CONCURRENCY", "1", |text| number(text, 1..=64))
        .accepts("a whole number from 1 to 64")
        .help(
            "Events that are posted to each URL at once, each of another room. The events of a room arrive in order.",
        )
        .page("docs/build/webhooks.md");

pub(super) const SECTION: Section = Section {
    title: "Webhooks",
    settings: &[
        WEBHOOK_URLS.declaration,
        WEBHOOK_ALLOW_PRIVATE.declaration,
        WEBHOOK_CONCURRENCY.declaration,
    ],
};

impl WebhookSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let (urls, may_be_private) =
            (reader.get(&WEBHOOK_URLS), reader.get(&WEBHOOK_ALLOW_PRIVATE));
        let mut targets = Vec::new();
        for (number, url) in urls.iter().enumerate() {
            match WebhookTarget::parse(url, may_be_private) {
                Ok(target) => targets.push(target),
                // By its place and not by its text, for many a URL of this kind is a secret.
                Err(problem) => reader
                    .reject(&WEBHOOK_URLS.declaration, format!("entry {} {problem}", number + 1)),
            }
        }
        Self { targets, concurrency: reader.get(&WEBHOOK_CONCURRENCY) }
    }
}
