//! `signaling-server`: the command line is [`signaling::cli`].

use std::process::ExitCode;

/// Where musl is linked, its own allocator would cost a tenth and more (docs/run/deployment.md, "One file").
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    signaling::cli::main()
}
