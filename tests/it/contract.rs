//! What clients were promised holds with each setting for users from elsewhere: the tests of it run once more with that setting.

use std::{env, process::Stdio};

use rcgen::KeyPair;
use tokio::{process::Command, time::timeout};

use crate::harness::{MORE_SETTINGS, TEST_TIMEOUT, process::text};

/// The modules with those tests.
const MODULES: [&str; 5] = ["foreign::", "resume::", "rest::", "room_lists::", "signaling::"];

/// Runs them; `{folder}` stands for a folder with the key of an issuer in `issuer.pem`.
async fn contract_holds_with(settings: &str) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.path().join("issuer.pem"), key.public_key_pem()).unwrap();
    let settings = settings.replace("{folder}", folder.path().to_str().unwrap());

    let mut tests = Command::new(env::current_exe().unwrap());
    tests.args(MODULES).args(["--test-threads", "4"]).env(MORE_SETTINGS, &settings);
    tests.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(5 * TEST_TIMEOUT, tests.output()).await.expect("it hangs").unwrap();

    let said = text(&output);
    assert!(output.status.success() && !said.contains("running 0 tests"), "{settings}\n{said}");
}

#[tokio::test]
async fn the_contract_holds_where_users_need_no_account() {
    contract_holds_with("USERS_REQUIRED=false").await;
}

#[tokio::test]
async fn the_contract_holds_beside_an_issuer() {
    contract_holds_with(
        "JWT_PUBLIC_KEY_FILE={folder}/issuer.pem JWT_ALGORITHMS=HS256,ES256 JWT_ISSUER=https://id.example.com \
         JWT_AUDIENCE=calls JWT_USER_CLAIM=email",
    )
    .await;
}

#[tokio::test]
async fn the_contract_holds_with_all_of_it_and_a_longest_lifetime() {
    contract_holds_with(
        "MAX_TOKEN_LIFETIME=86400 USERS_REQUIRED=false JWT_ALGORITHMS=HS256,HS384,HS512,RS256,PS256,ES256,ES384,EdDSA \
         JWT_PUBLIC_KEY_FILE={folder}/issuer.pem JWT_ISSUER=https://id.example.com JWT_USER_CLAIM=preferred_username",
    )
    .await;
}
