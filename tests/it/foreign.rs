//! Clients that were written for the FastAPI server, by others and in other languages.

use std::process::Stdio;

use tokio::{process::Command, time::timeout};

use crate::harness::{PASSWORD, TEST_TIMEOUT, TestServer};

#[tokio::test]
async fn a_python_client_of_the_fastapi_server_runs_unchanged() {
    let server = TestServer::start(&[]).await;

    let mut python = Command::new("/usr/bin/python3");
    let python = python.args(["tests/it/python_client.py", &server.address.to_string(), PASSWORD]);
    let output = timeout(TEST_TIMEOUT, python.stdin(Stdio::null()).output())
        .await
        .expect("it hangs")
        .expect("no python3: run ./test.sh");

    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.ends_with("the call is set up\n"),
        "{said} (python3-websockets comes with ./test.sh)"
    );
}
