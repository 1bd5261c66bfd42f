//! What both programs accept, and where they print.

use std::process::Stdio;

use tokio::time::timeout;

use super::doctor::{SOUND, home};
use crate::harness::{
    TEST_TIMEOUT,
    process::{MANAGE_USERS, SERVER, command, text},
};

#[tokio::test]
async fn a_reader_that_closes_the_pipe_is_no_failure() {
    let folder = home();
    for (program, arguments) in [
        (SERVER, &["doctor"][..]),
        (SERVER, &["doctor", "--json"]),
        (SERVER, &["webhook-secret"]),
        (SERVER, &["--version"]),
        (SERVER, &["--help"]),
        (SERVER, &["admin", "--help"]),
        (MANAGE_USERS, &["list"]),
        (MANAGE_USERS, &["--help"]),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(program, &folder);
        command.args(arguments).envs(SOUND).stdout(writer).stderr(Stdio::piped());

        let output = command.spawn().unwrap().wait_with_output();
        let output = timeout(TEST_TIMEOUT, output).await.unwrap().unwrap();

        assert_eq!((output.status.code(), &*text(&output)), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn help_and_version_go_to_standard_output_and_usage_errors_to_standard_error() {
    let folder = home();
    for (arguments, expected) in [
        (&["--version"][..], "signaling-server 0."),
        (&["-V"], "signaling-server 0."),
        (&["--help"], "webhook-secret"),
        (&["-h"], "webhook-secret"),
        (&["admin", "--help"], "Usage: signaling-server admin"),
        (&["admin", "kick", "--help"], "--client <ID>"),
        (&["doctor", "--help"], "--date <URL>"),
        (&["healthcheck", "--help"], "Usage: signaling-server healthcheck"),
        (&["help", "doctor"], "--date <URL>"),
    ] {
        let output = command(SERVER, &folder).args(arguments).output().await.unwrap();

        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}");
    }
    for (arguments, usage) in [
        (&["dance"][..], "Usage: signaling-server [OPTIONS]"),
        (&["healthcheck", "now"], "Usage: signaling-server healthcheck"),
        (&["--check-config", "doctor"], "Usage: signaling-server [OPTIONS]"),
        (&["admin"], "Usage: signaling-server admin"),
        (&["admin", "kick", "den"], "Usage: signaling-server admin kick"),
        (&["admin", "kick", "den", "--user"], "Usage: signaling-server admin kick"),
        (&["admin", "rooms", "--url", "nonsense"], "Usage: signaling-server admin rooms"),
    ] {
        let output = command(SERVER, &folder).args(arguments).output().await.unwrap();

        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(usage), "{arguments:?}: {said}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}");
    }
}
