//! Reads variables: the texts that are set, and the typed values that they mean.

use std::{
    collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration,
};

use secrecy::{ExposeSecret, SecretString};

use super::{
    declare::{Declaration, Sensitivity, Setting},
    error::ConfigError,
};

/// Why a text is no value of a setting.
#[derive(Debug)]
pub enum Rejected {
    /// The text as a whole is none.
    Value,
    /// These entries of a list are none.
    Entries(Vec<String>),
}

/// A value, or why there is none.
pub type Parsed<T> = Result<T, Rejected>;

/// What [`flag`] accepts.
pub const TRUE_OR_FALSE: &str = "true or false";

/// What a count or a time in its unit may be; a million seconds are eleven days.
pub const UP_TO_A_MILLION: RangeInclusive<u64> = 1..=1_000_000;

/// What [`UP_TO_A_MILLION`] accepts.
pub const FROM_ONE: &str = "a whole number from 1 to 1000000";

/// What [`list`] accepts.
pub const LIST: &str = "a list such as [\"a\",\"b\"] or a,b";

/// The texts of the variables that are set.
#[derive(Clone, Default)]
pub struct RawValues(BTreeMap<&'static str, SecretString>);

/// Hides the values, for there are secrets among them.
impl fmt::Debug for RawValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawValues")
    }
}

impl RawValues {
    /// The text of a setting, unless its default counts.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.get(name)
    }
}

/// Reads settings one after the other, and collects what is wrong with them.
pub struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    /// The texts of the settings that were read since this was last taken.
    pub raw: RawValues,
    /// What is wrong with the settings that were read.
    pub errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    /// Reads from `variable`, which returns the text of a variable.
    pub fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { variable, raw: RawValues::default(), errors: Vec::new() }
    }

    /// The value of a setting: its default where the variable is unset, is empty, or is not accepted, which is an error.
    pub fn get<T>(&mut self, setting: &Setting<T>) -> T {
        let declaration = &setting.declaration;
        if let Some(text) = self.text(declaration) {
            match (setting.parse)(text.expose_secret()) {
                Ok(value) => return value,
                Err(Rejected::Value) => self.reject_text(declaration, text.expose_secret()),
                Err(Rejected::Entries(entries)) => {
                    entries.iter().for_each(|entry| self.reject_text(declaration, entry));
                }
            }
        }
        #[expect(clippy::expect_used, reason = "a test parses the default of every setting")]
        (setting.parse)(declaration.default).expect("a default that is accepted")
    }

    /// Whether the variable is set, so that its default does not count.
    pub fn is_set<T>(&self, setting: &Setting<T>) -> bool {
        self.raw.get(setting.name()).is_some()
    }

    /// Notes a problem of a setting, in a text that repeats nothing of a value that is not public.
    pub fn reject(&mut self, declaration: &Declaration, problem: impl AsRef<str>) {
        let fix = format!("use {}", declaration.accepted);
        self.errors.push(ConfigError::new(declaration.name, problem, fix));
    }

    fn reject_text(&mut self, declaration: &Declaration, text: &str) {
        match declaration.sensitivity {
            Sensitivity::Public => self.reject(declaration, format!("\"{text}\" is not accepted")),
            Sensitivity::HoldsCredentials | Sensitivity::Secret => {
                self.reject(declaration, "the value is not accepted");
            }
        }
    }

    fn text(&mut self, declaration: &Declaration) -> Option<SecretString> {
        let text = (self.variable)(declaration.name)?;
        let text = match declaration.sensitivity {
            Sensitivity::Public | Sensitivity::HoldsCredentials => text.trim(),
            Sensitivity::Secret => text.as_str(),
        };
        let text = Some(text).filter(|text| !text.is_empty()).map(SecretString::from)?;
        self.raw.0.insert(declaration.name, text.clone());
        Some(text)
    }
}

/// The value that was found, if one was.
pub fn found<T>(value: Option<T>) -> Parsed<T> {
    value.ok_or(Rejected::Value)
}

/// A number in a range.
pub fn number<T: FromStr + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Parsed<T> {
    found(text.parse().ok().filter(|number| range.contains(number)))
}

/// A number of seconds in a range.
pub fn seconds(text: &str, range: RangeInclusive<u64>) -> Parsed<Duration> {
    number(text, range).map(Duration::from_secs)
}

/// A yes or a no.
pub fn flag(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Rejected::Value),
    }
}

/// A value, or none where the text is empty.
pub fn optional<T>(text: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Option<T>> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// The path of a file, or none where the text is empty.
pub fn path(text: &str) -> Parsed<Option<PathBuf>> {
    optional(text, |path| Ok(path.into()))
}

/// A secret of any kind, or none where the text is empty.
pub fn secret(text: &str) -> Parsed<Option<SecretString>> {
    optional(text, |secret| Ok(secret.into()))
}

/// A token that an `Authorization` header can hold (RFC 9110 section 5.5), or none where the text is empty.
pub fn bearer_token(text: &str) -> Parsed<Option<SecretString>> {
    optional(text, |token| {
        found(token.bytes().all(|byte| byte.is_ascii_graphic()).then(|| token.into()))
    })
}

/// A list: JSON, JSON whose quotes a shell has removed or that has single quotes, or entries with commas between them.
pub fn list(text: &str) -> Parsed<Vec<String>> {
    if let Ok(list) = serde_json::from_str(text) {
        return Ok(list);
    }
    let inner = match text.strip_prefix('[') {
        Some(rest) => found(rest.strip_suffix(']'))?,
        None => text,
    };
    let entries = inner.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let entries = entries.map(|entry| found(unquoted(entry)));
    let entries = entries.collect::<Parsed<Vec<_>>>()?;
    let are_plain =
        !inner.contains(['"', '{', '}']) && entries.iter().all(|entry| has_paired_brackets(entry));
    found(are_plain.then(|| entries.into_iter().map(str::to_owned).collect()))
}

/// An entry without the single quotes around it, as Python writes them. `None` where a quotation mark is at one end only, or
/// is of a kind that a word processor makes.
fn unquoted(entry: &str) -> Option<&str> {
    const MARKS: [char; 6] = ['\'', '`', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}'];
    let quoted = entry.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let plain = quoted.map_or(entry, str::trim);
    let is_quoted_inside = quoted.is_some() && plain.contains('\'');
    (!plain.starts_with(MARKS) && !plain.ends_with(MARKS) && !is_quoted_inside && !plain.is_empty())
        .then_some(plain)
}

/// Whether each `[` of an entry has its `]`, as those around an IPv6 address in a URL have.
fn has_paired_brackets(entry: &str) -> bool {
    let mut is_open = false;
    entry
        .matches(['[', ']'])
        .all(|bracket| std::mem::replace(&mut is_open, bracket == "[") != (bracket == "["))
        && !is_open
}

/// A list whose entries are each of a kind; all entries that are not are rejected by themselves.
pub fn list_of<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Parsed<Vec<T>> {
    let (mut values, mut others) = (Vec::new(), Vec::new());
    for entry in list(text)? {
        match parse(&entry) {
            Some(value) => values.push(value),
            None => others.push(entry),
        }
    }
    if others.is_empty() { Ok(values) } else { Err(Rejected::Entries(others)) }
}
