//! The program `manage_users`; see [`signaling::cli::manage_users`].

use std::process::ExitCode;

fn main() -> ExitCode {
    signaling::cli::manage_users::main()
}
