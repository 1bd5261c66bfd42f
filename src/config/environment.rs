//! Where settings come from: the environment of the process, and one `.env`.

use std::{
    borrow::Cow,
    env, fs,
    io::ErrorKind,
    path::{self, Path, PathBuf},
};

use secrecy::ExposeSecret;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    dotenv::{Assignment, parse_file},
    error::{ConfigError, ConfigErrors, ConfigWarning},
    names,
};

/// The file that is read where no other is named.
const DEFAULT_FILE: &str = ".env";

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The environment of the process.
    Environment,
    /// `.env`, or the file that `--env-file` names.
    EnvFile,
    /// Neither: the default counts.
    Default,
}

/// The variables of the process, and those of `.env`, which the process's own override.
#[derive(Debug)]
pub struct Environment {
    path: PathBuf,
    /// `None`: there is no such file.
    assignments: Option<Vec<Assignment>>,
}

impl Environment {
    /// Reads `env_file`, or else `.env` in the working folder, which may be missing.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] if the file cannot be read or `env_file` does not exist, or for each line that is no assignment.
    pub fn read(env_file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let path = env_file.unwrap_or(Path::new(DEFAULT_FILE)).to_owned();
        let name = path.display().to_string();
        let assignments = match fs::read_to_string(&path) {
            Ok(text) => Some(parse_file(&name, &Zeroizing::new(text))?),
            Err(error) if error.kind() == ErrorKind::NotFound && env_file.is_none() => None,
            Err(error) => {
                let fix = if error.kind() == ErrorKind::NotFound {
                    "name an existing file with --env-file, or leave the option out"
                } else if error.kind() == ErrorKind::PermissionDenied {
                    "let the user of the server read it, such as with `chown`, and run commands as that user"
                } else {
                    "make it UTF-8 text that the server may read"
                };
                return Err(ConfigErrors(vec![ConfigError::new(name, error.to_string(), fix)]));
            }
        };
        Ok(Self { path, assignments })
    }

    /// The text of a variable. The process's environment wins over the file, and a later line of the file over an earlier
    /// one.
    pub fn variable(&self, name: &str) -> Option<String> {
        of_process(name).or_else(|| self.in_file(name))
    }

    /// Where the value of the setting `name` comes from. An empty value is as good as none.
    pub fn source(&self, name: &str) -> Source {
        match of_process(name) {
            Some(value) if value.trim().is_empty() => Source::Default,
            Some(_) => Source::Environment,
            None if self.in_file(name).is_none_or(|value| value.trim().is_empty()) => {
                Source::Default
            }
            None => Source::EnvFile,
        }
    }

    /// The file, whether it exists or not.
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// The file as an absolute path, or `None` where there is none.
    pub fn found_file(&self) -> Option<PathBuf> {
        self.assignments.as_ref()?;
        Some(path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()))
    }

    /// Says that there is no `.env`, and in which folder; nothing where there is one.
    pub fn missing_file(&self) -> Option<String> {
        match self.assignments {
            Some(_) => None,
            None => Some(format!(
                "no .env in {}: settings come from the environment and defaults",
                self.folder()
            )),
        }
    }

    /// The lines of the file that have no effect: names that are no settings, and all but the last line of a setting. The
    /// environment of the process is not judged, for other programs' variables are in it.
    pub fn ignored_lines(&self) -> Vec<ConfigWarning> {
        let assignments = self.assignments.as_deref().unwrap_or_default();
        let file = self.path.display().to_string();
        let ignored = assignments.iter().enumerate().filter_map(|(index, assignment)| {
            let Assignment { line, name, .. } = assignment;
            let later = assignments.iter().skip(index + 1).find(|it| it.name == *name);
            match later {
                Some(Assignment { line: later, .. }) if names::is_known(name) => {
                    Some(ConfigWarning::new(
                        Cow::Owned(name.clone()),
                        format!("line {line} of {file} has no effect, because line {later} sets it again"),
                        "remove one of the two lines",
                    ))
                }
                Some(_) => None,
                None => names::judge(name, &file, *line).or_else(|| self.half(assignment, &file)),
            }
        });
        ignored.collect()
    }

    /// A line of a setting that counts only together with one that is not set.
    fn half(&self, assignment: &Assignment, file: &str) -> Option<ConfigWarning> {
        let Assignment { line, name, value } = assignment;
        let other = names::needed_by(name)?;
        let is_set = |value: Option<String>| value.is_some_and(|it| !it.trim().is_empty());
        let is_half = !value.expose_secret().trim().is_empty() && !is_set(self.variable(other));
        is_half.then(|| {
            let problem = format!("line {line} of {file} has no effect while {other} is not set");
            let fix = format!("set {other}, too, or remove the line");
            ConfigWarning::new(name.clone(), problem, fix)
        })
    }

    /// The folder in which this process looks for files.
    pub fn folder(&self) -> String {
        let folder = env::current_dir();
        folder.map_or_else(|_| "this folder".to_owned(), |folder| folder.display().to_string())
    }

    fn in_file(&self, name: &str) -> Option<String> {
        let assignments = self.assignments.as_deref().unwrap_or_default();
        let last = assignments.iter().rev().find(|it| it.name == name)?;
        Some(last.value.expose_secret().to_owned())
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads variables")]
fn of_process(name: &str) -> Option<String> {
    env::var(name).ok()
}
