//! How the programs parse their command line and print, so that a closed pipe ends none of them with a panic.

use std::{
    env,
    ffi::OsString,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use clap::{
    Parser,
    builder::StyledStr,
    error::{ContextKind, ContextValue},
};

/// Parses the command line of this process; `check` says what clap cannot declare.
///
/// # Errors
///
/// The exit code, after the text is printed: 0 for `--help` and `--version` (standard output), 1 for a usage error
/// (standard error), which names the usage of the command.
pub fn parse<P: Parser>(check: impl Fn(&P) -> Result<(), clap::Error>) -> Result<P, ExitCode> {
    let parsed = P::try_parse().and_then(|parsed| check(&parsed).map(|()| parsed));
    parsed.map_err(|mut error| {
        if !error.use_stderr() {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        if error.get(ContextKind::Usage).is_none() {
            let usage = usage(P::command(), env::args_os().skip(1));
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
        }
        let _ = error.print();
        ExitCode::FAILURE
    })
}

/// The usage of the innermost command that `arguments` name.
fn usage(mut command: clap::Command, arguments: impl Iterator<Item = OsString>) -> StyledStr {
    command.build();
    for argument in arguments {
        if let Some(named) = command.find_subcommand(&argument).cloned() {
            command = named;
        }
    }
    command.render_usage()
}

/// Prints `text` and a newline to standard output. A reader that has closed the pipe (`doctor | head`) is no error.
///
/// # Errors
///
/// When standard output cannot be written for another reason, such as a full disk.
pub fn print(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {error}");
            Err(io::Error::new(error.kind(), message))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints `text` and a newline to standard error, as far as that can be written.
pub fn print_error(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
