//! `signaling-server init`: writes what an installation for a domain needs, and says what remains to be done. What exists is
//! not changed.

mod files;
mod installation;
mod steps;

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use aws_lc_rs::rand;
use secrecy::{ExposeSecret, SecretString};

pub(super) use self::installation::InitArguments;
use self::{files::NewFile, installation::Installation};
use super::terminal;
use crate::{
    auth::{password, users},
    config::Environment,
};

/// Where the Debian package has its unit.
const PACKAGED_UNIT: &str = "/usr/lib/systemd/system/signaling-server.service";

/// The file with what remains to be done.
const STEPS: &str = "NEXT-STEPS.md";

/// The secrets of a new installation.
struct Secrets {
    secret_key: SecretString,
    jwt_secret_key: SecretString,
    admin_token: SecretString,
    turn_secret: SecretString,
}

/// Writes the files that are missing in the working folder, an account, and the list of what remains.
pub(super) fn run(
    arguments: InitArguments,
    environment: &Environment,
) -> Result<(), Box<dyn Error>> {
    let installation = Installation::new(arguments, Path::new(PACKAGED_UNIT).exists())?;
    let secrets = Secrets::generate(environment)?;
    let mut said = Vec::new();
    for file in files::all(&installation, &secrets) {
        let path = if file.path == files::ENV { environment.file() } else { Path::new(file.path) };
        let created =
            create(path, &file).map_err(|error| format!("{}: {error}", path.display()))?;
        if file.path == files::ENV && created != Created::New {
            // Its secrets differ in any case.
            said.push(Created::Same.line(path));
            said.extend(missing_settings(&file.text, environment));
        } else {
            said.push(created.line(path));
        }
    }
    if installation.has_users_file() {
        said.push(create_account(&installation.user)?);
    }
    let steps = NewFile { path: STEPS, mode: 0o644, text: steps::text(&installation) };
    let created = create(Path::new(STEPS), &steps)?;
    said.push(created.line(Path::new(STEPS)));
    terminal::print(said.join("\n"))?;
    Ok(terminal::print(format!("\n{}", steps.text.trim_end()))?)
}

impl Secrets {
    /// Fresh ones; only the TURN secret of an existing `.env` counts, because coturn has to know the same.
    fn generate(environment: &Environment) -> io::Result<Self> {
        let known = environment.variable("TURNSERVER_SECRET").filter(|secret| !secret.is_empty());
        Ok(Self {
            secret_key: random_secret()?,
            jwt_secret_key: random_secret()?,
            admin_token: random_secret()?,
            turn_secret: known.map_or_else(random_secret, |known| Ok(known.into()))?,
        })
    }
}

/// 32 random bytes in hexadecimal.
fn random_secret() -> io::Result<SecretString> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

/// What has become of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Created {
    /// It is written.
    New,
    /// It was there, with the same content.
    Same,
    /// It was there, with other content, such as that for another domain.
    Different,
}

impl Created {
    fn line(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::New => format!("written {path}"),
            Self::Same => format!("kept    {path}"),
            Self::Different => format!(
                "kept    {path}, which differs from what would be written now: move it away to get that"
            ),
        }
    }
}

/// Writes a file that is not there yet.
fn create(path: &Path, NewFile { mode, text, .. }: &NewFile) -> io::Result<Created> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    match File::options().create_new(true).write(true).mode(*mode).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map(|()| Created::New),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_same = fs::read_to_string(path).is_ok_and(|there| there == *text);
            Ok(if is_same { Created::Same } else { Created::Different })
        }
        Err(error) => Err(error),
    }
}

/// The settings that `wanted` has and an existing `.env` has not; those with a secret by their names.
fn missing_settings(wanted: &str, environment: &Environment) -> Vec<String> {
    let lines = wanted.lines().filter_map(|line| line.split_once('='));
    let missing =
        lines.filter(|(name, _)| environment.variable(name).is_none_or(|it| it.is_empty()));
    let shown = missing.map(|(name, value)| match name {
        "TURNSERVER_SECRET" => {
            "        add TURNSERVER_SECRET, the static-auth-secret of turnserver.conf".to_owned()
        }
        _ if name.contains("SECRET") || name.contains("TOKEN") => {
            format!("        add {name}, made with `openssl rand -hex 32`")
        }
        _ => format!("        add {name}={value}"),
    });
    shown.collect()
}

/// Adds an account to a users file that is not there yet. Its password is printed here and kept nowhere.
fn create_account(user: &str) -> Result<String, Box<dyn Error>> {
    let path = Path::new(files::USERS);
    if path.exists() {
        return Ok(format!("kept    {}", path.display()));
    }
    let secret = random_secret()?;
    let password: SecretString = secret.expose_secret().chars().take(20).collect::<String>().into();
    let hash = password::hash(&password)?;
    users::edit(path, |table| table.add(user, "", &hash))?;
    let shown = password.expose_secret();
    Ok(format!(
        "written {}\n        account {user} with the password {shown}, which is shown only now",
        path.display()
    ))
}
