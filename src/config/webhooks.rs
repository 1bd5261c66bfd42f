//! Where room events are posted.

use super::{
    declare::{Section, Setting},
    parse::{Reader, TRUE_OR_FALSE, flag, list},
};
use crate::webhooks::WebhookTarget;

/// The receivers of webhooks.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// `WEBHOOK_URLS`, as `WEBHOOK_ALLOW_PRIVATE` permits them.
    pub targets: Vec<WebhookTarget>,
}

const WEBHOOK_URLS: Setting<Vec<String>> = Setting::new("WEBHOOK_URLS", "[]", list)
    .accepts("a list of URLs such as [\"https://hooks.example.com/path\"]")
    .holds_credentials()
    .help("Receivers of room events: `https://` URLs and public addresses only.")
    .page("docs/build/webhooks.md");

const WEBHOOK_ALLOW_PRIVATE: Setting<bool> = Setting::new("WEBHOOK_ALLOW_PRIVATE", "false", flag)
    .accepts(TRUE_OR_FALSE)
    .help("`true`: `WEBHOOK_URLS` may also have `http://` URLs and addresses of your own network.");

pub(super) const SECTION: Section = Section {
    title: "Webhooks",
    settings: &[WEBHOOK_URLS.declaration, WEBHOOK_ALLOW_PRIVATE.declaration],
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
        Self { targets }
    }
}
