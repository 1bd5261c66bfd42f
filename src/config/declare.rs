//! What a setting is. Each setting is declared once, in the file of its section; the parser, `--check-config`, `env.example`,
//! the reference table, the list of settings that SIGHUP reads again, and `doctor` follow from that declaration.
//!
//! To add a setting: in the file of its section write its constant, list it in `SECTION`, and read it into a field of the
//! section's struct. Then `cargo test --lib config::generated -- --ignored` writes `env.example` and the reference table.

use super::parse::Parsed;

/// One setting: its declaration, and how its text becomes a `T`.
#[derive(Clone, Copy)]
pub struct Setting<T> {
    /// Everything but the type of the value.
    pub declaration: Declaration,
    /// Reads the text of the variable, or the default.
    pub(super) parse: fn(&str) -> Parsed<T>,
}

/// What is to be known of a setting without its type.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// The variable.
    pub name: &'static str,
    /// The text that counts while the variable is unset or empty.
    pub default: &'static str,
    /// What `env.example` shows instead of the default: what a new installation should have, and an old one must ask for.
    pub example: Option<&'static str>,
    /// What is accepted, as an object of "use".
    pub accepted: &'static str,
    /// What a new value applies to after SIGHUP, as an object of "for"; `None` where a new value needs a restart.
    pub reload: Option<&'static str>,
    /// How much of the value may be shown.
    pub sensitivity: Sensitivity,
    /// What the setting is for, with its unit: whole sentences in Markdown.
    pub help: &'static str,
    /// The page that says more, from the root of the repository, perhaps with the anchor of a heading.
    pub page: Option<&'static str>,
}

/// How much of a value may be shown in errors, logs and on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensitivity {
    /// All of it.
    Public,
    /// Nothing, because a part of it may be a password or a key.
    HoldsCredentials,
    /// Nothing: all of it is a secret, which is taken exactly as it stands, blanks included.
    Secret,
}

/// Settings that belong together, in the order in which `env.example` and the reference table have them.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// Its settings.
    pub settings: &'static [Declaration],
}

impl<T> Setting<T> {
    /// A setting that is public and needs a restart.
    pub(super) const fn new(
        name: &'static str,
        default: &'static str,
        parse: fn(&str) -> Parsed<T>,
    ) -> Self {
        let declaration = Declaration {
            name,
            default,
            example: None,
            accepted: "",
            reload: None,
            sensitivity: Sensitivity::Public,
            help: "",
            page: None,
        };
        Self { declaration, parse }
    }

    /// Says which texts are accepted: "a port from 0 to 65535".
    pub(super) const fn accepts(mut self, accepted: &'static str) -> Self {
        self.declaration.accepted = accepted;
        self
    }

    /// Says what `env.example` shows instead of the default.
    pub(super) const fn example(mut self, example: &'static str) -> Self {
        self.declaration.example = Some(example);
        self
    }

    /// SIGHUP reads it again; `reach` says what a new value applies to, as an object of "for".
    pub(super) const fn reloadable(mut self, reach: &'static str) -> Self {
        self.declaration.reload = Some(reach);
        self
    }

    /// See [`Sensitivity::Secret`].
    pub(super) const fn secret(mut self) -> Self {
        self.declaration.sensitivity = Sensitivity::Secret;
        self
    }

    /// See [`Sensitivity::HoldsCredentials`].
    pub(super) const fn holds_credentials(mut self) -> Self {
        self.declaration.sensitivity = Sensitivity::HoldsCredentials;
        self
    }

    /// Says what the setting is for.
    pub(super) const fn help(mut self, help: &'static str) -> Self {
        self.declaration.help = help;
        self
    }

    /// Names the page that says more.
    pub(super) const fn page(mut self, page: &'static str) -> Self {
        self.declaration.page = Some(page);
        self
    }

    /// The variable.
    pub(super) const fn name(&self) -> &'static str {
        self.declaration.name
    }
}

impl Declaration {
    /// Whether SIGHUP reads it again.
    pub const fn is_reloadable(&self) -> bool {
        self.reload.is_some()
    }

    /// Whether the whole value is a secret.
    pub fn is_secret(&self) -> bool {
        self.sensitivity == Sensitivity::Secret
    }
}
