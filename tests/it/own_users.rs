//! The examples of docs/build/your-own-users.md, as they stand there: each makes a token that the server takes, where the
//! language and its library are on this machine.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::harness::{
    TEST_TIMEOUT, http,
    process::{KEY, RestartableServer, SERVER, text},
};

const PAGE: &str = include_str!("../../docs/build/your-own-users.md");

const ADMIN: &str = "admin-token-of-this-test-0123456789abcdef";

/// The code of each block of a kind, in the order of the page.
fn blocks(kind: &str) -> Vec<&'static str> {
    let start = format!("```{kind}\n");
    PAGE.split(&start).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// Debian's package of golang-jwt has no module.
const RUN_GO: &str = "cat > main.go && GO111MODULE=off GOPATH=/usr/share/gocode go run main.go";

fn go_program(body: &str) -> String {
    format!(
        "package main\nimport (\n\"fmt\"\n\"os\"\n\"time\"\n\"github.com/golang-jwt/jwt\"\n)\n\
         var _, _, _ = fmt.Println, os.Getenv, time.Now\nfunc main() {{\n{body}\n}}\n"
    )
}

const RUN_JAVA: &str = "cat > Token.java && java Token.java";

fn java_program(body: &str) -> String {
    format!(
        "import java.time.Instant;\nimport java.util.Base64;\nimport javax.crypto.Mac;\n\
         import javax.crypto.spec.SecretKeySpec;\nimport static java.nio.charset.StandardCharsets.UTF_8;\n\
         public class Token {{\npublic static void main(String[] arguments) throws Exception {{\n{body}\n}}\n}}\n"
    )
}

/// How an example is run.
struct Example {
    program: &'static str,
    arguments: &'static [&'static str],
    /// Tells whether the language and the library are there.
    probe: String,
    code: String,
}

async fn run(folder: &TempDir, program: &str, arguments: &[&str], code: &str) -> Option<Output> {
    // Where npm has put the libraries of the tests.
    let modules = folder.path().join("node_modules");
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser/node_modules");
    if !modules.exists() {
        std::os::unix::fs::symlink(installed, &modules).unwrap();
    }
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder.path()).env("JWT_SECRET_KEY", KEY);
    command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().unwrap().write_all(code.as_bytes()).await.ok()?;
    // A compiler may take its time on a busy machine.
    Some(timeout(5 * TEST_TIMEOUT, child.wait_with_output()).await.expect("it hangs").unwrap())
}

#[tokio::test]
async fn the_examples_of_the_page_make_tokens_that_the_server_takes() {
    let server = RestartableServer::start(&[("USERS_REQUIRED", "false")]).await;
    let folder = tempfile::tempdir().unwrap();
    let node = |library: &str, code: &str| Example {
        program: "node",
        arguments: &["--input-type=module"],
        probe: format!("import '{library}';"),
        code: format!("const user = {{ id: 17 }};\n{code}\nconsole.log(token);"),
    };
    let [jose, jsonwebtoken] = blocks("js")[..] else { panic!("two examples of Node") };
    let [python, php, ruby] = ["python", "php", "ruby"].map(|kind| blocks(kind)[0]);
    let [go, java] = ["go", "java"].map(|kind| blocks(kind)[0]);
    let examples = [
        node("jose", jose),
        node("jsonwebtoken", jsonwebtoken),
        Example {
            program: "/usr/bin/python3",
            arguments: &["-"],
            probe: "import jwt".to_owned(),
            code: format!("user_id = 17\n{python}\nprint(token)"),
        },
        Example {
            program: "php",
            arguments: &[],
            probe: "<?php".to_owned(),
            code: format!("<?php $userId = 17;\n{php}\necho $token;"),
        },
        Example {
            program: "ruby",
            arguments: &["-rjwt"],
            probe: String::new(),
            code: format!("user_id = 17\n{ruby}\nputs token"),
        },
        Example {
            program: "sh",
            arguments: &["-c", RUN_GO],
            probe: go_program("_ = jwt.SigningMethodHS256"),
            code: go_program(&format!(
                "userID := \"17\"\n{go}\nif err != nil {{ panic(err) }}\nfmt.Println(token)"
            )),
        },
        Example {
            program: "sh",
            arguments: &["-c", RUN_JAVA],
            probe: java_program(""),
            code: java_program(&format!("var userId = 17;\n{java}\nSystem.out.println(token);")),
        },
    ];
    let mut tried = Vec::new();
    for Example { program, arguments, probe, code } in examples {
        let is_there = run(&folder, program, arguments, &probe).await;
        if !is_there.is_some_and(|output| output.status.success()) {
            continue;
        }
        let output = run(&folder, program, arguments, &code).await.unwrap();
        assert!(output.status.success(), "{code}: {}", text(&output));
        let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let url = format!("http://{}/auth/me", server.process.address);
        let answer = http().build().unwrap().get(url).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{code}");
        let me: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(me["username"], json!("17"), "{code}");
        tried.push(program);
    }
    assert!(tried.contains(&"/usr/bin/python3"), "no PyJWT: run ./test.sh; tried {tried:?}");
}

#[tokio::test]
async fn the_commands_of_the_page_work() {
    let settings = [("ADMIN_TOKEN", ADMIN), ("USERS_REQUIRED", "false")];
    let server = RestartableServer::start(&settings).await;
    let mut typed = 0;
    for block in blocks("bash") {
        run_commands(&server, block).await;
        typed += 1;
    }
    assert!(typed >= 3, "{typed} blocks");
}

/// Types a block in bash, in the folder of the server; a command that fails ends it.
async fn run_commands(server: &RestartableServer, block: &str) {
    let here = server.process.address.to_string();
    let block = block.replace("localhost:8080", &here).replace("curl -s", "curl -sf");
    let programs = Path::new(SERVER).parent().unwrap().display().to_string();
    let token = "PATH=\"$PROGRAMS:$PATH\"\nsignaling-server token --user u-17 > token.txt\n";
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &format!("{token}{block}")]);
    command.current_dir(server.folder.path()).env("ADMIN_TOKEN", ADMIN).env("DEBUG", "true");
    command.env("USERS_REQUIRED", "false").env("JWT_SECRET_KEY", KEY);
    command.env("PROGRAMS", programs);
    let output = timeout(TEST_TIMEOUT, command.output()).await.expect("it hangs").unwrap();
    assert!(output.status.success(), "{block}: {}", text(&output));
}
