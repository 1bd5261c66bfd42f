//! What SIGHUP changes: the reloadable settings, all or none of them.

use secrecy::{ExposeSecret, SecretString};

use super::{
    Config, ConfigErrors, Declaration, ReloadableSettings, Sensitivity, StartupSettings,
    declarations, error::on_one_line, parse::Reader,
};

/// What a reload found changed, for the log.
#[derive(Debug)]
pub struct SettingChanges {
    /// Each reloadable setting that has changed: `NAME: old → new`, or `NAME` alone where the value may not be shown.
    pub changed: Vec<String>,
    /// The names of the settings that have changed since the start and keep their old value until the next, sorted.
    pub need_restart: Vec<String>,
}

/// Reads the settings again for a process that was started with `startup` and now runs with `current`.
///
/// # Errors
///
/// As [`Config::read`], also about settings that need a restart: the next start would stop at them.
pub fn reload(
    startup: &StartupSettings,
    current: &ReloadableSettings,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(ReloadableSettings, SettingChanges), ConfigErrors> {
    let next = Config::read(&variable)?;
    // Once more, because the default of a reloadable setting may depend on `DEBUG`, which needs a restart.
    let mut reader = Reader::new(&variable);
    let settings = ReloadableSettings::read(&mut reader, startup.process.debug);

    let mut changes = SettingChanges { changed: Vec::new(), need_restart: Vec::new() };
    for declaration in declarations() {
        let name = declaration.name;
        if declaration.is_reloadable() {
            let (old, new) = (current.raw.get(name), settings.raw.get(name));
            changes.changed.extend(change(declaration, old, new));
        } else if is_other(startup.raw.get(name), next.startup.raw.get(name)) {
            changes.need_restart.push(name.to_owned());
        }
    }
    changes.need_restart.sort_unstable();
    Ok((settings, changes))
}

fn change(
    declaration: &Declaration,
    old: Option<&SecretString>,
    new: Option<&SecretString>,
) -> Option<String> {
    if !is_other(old, new) {
        return None;
    }
    let shown = |text: Option<&SecretString>| {
        text.map_or("(default)".to_owned(), |text| on_one_line(text.expose_secret()))
    };
    Some(match declaration.sensitivity {
        Sensitivity::Public => format!("{}: {} → {}", declaration.name, shown(old), shown(new)),
        Sensitivity::HoldsCredentials | Sensitivity::Secret => declaration.name.to_owned(),
    })
}

fn is_other(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(SecretString::expose_secret) != other.map(SecretString::expose_secret)
}
