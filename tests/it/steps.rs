//! Mistakes in the steps of the documents: each is answered alike by the start, by `--check-config` and by `doctor`.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::env_file::{folder_with, run, start_until, write};
use crate::harness::{process::text, users_file};

/// A mistake: the folder in which it was made, what is said about it, what mends it, whether it stops the start, and whether it is a
/// fault for `--check-config`.
struct Mistake {
    name: &'static str,
    folder: fn() -> TempDir,
    problem: &'static str,
    fix: &'static str,
    stops: bool,
    is_fault: bool,
}

const MISTAKES: [Mistake; 12] = [
    Mistake {
        name: "the server is started in another folder than the one with .env",
        folder: || tempfile::tempdir().unwrap(),
        problem: "no .env in /",
        fix: "openssl rand -hex 32",
        stops: true,
        is_fault: true,
    },
    Mistake {
        name: "env.example is copied, and nothing is filled in",
        folder: || {
            let folder = folder_with("");
            write(&folder, ".env", include_str!("../../env.example"));
            folder
        },
        problem: "SECRET_KEY: is still the published placeholder",
        fix: "openssl rand -hex 32",
        stops: true,
        is_fault: true,
    },
    Mistake {
        name: "manage_users add was left out, or run in another folder",
        folder: || {
            let folder = folder_with("");
            fs::remove_file(folder.path().join("users.csv")).unwrap();
            folder
        },
        problem: "there is no file users.csv",
        fix: "manage_users add",
        stops: true,
        is_fault: true,
    },
    Mistake {
        name: "a spreadsheet saved the users file with semicolons",
        folder: || with_users(&users_file(&["alice"], 4).replace(',', ";")),
        problem: "users.csv, line 1: this file has ; between its cells",
        fix: "`manage_users add` makes such a file",
        stops: true,
        is_fault: true,
    },
    Mistake {
        name: "the users file has passwords in place of hashes",
        folder: || with_users("username,email,hashed_password,is_active\nalice,,wonderland,True\n"),
        problem: "hashed_password is no bcrypt hash",
        fix: "correct that row, or `manage_users remove` it",
        stops: false,
        is_fault: true,
    },
    Mistake {
        name: "the accounts of development are taken along",
        folder: || {
            let hash = bcrypt::hash("admin123", 4).unwrap();
            with_users(&format!("username,email,hashed_password,is_active\nadmin,,{hash},True\n"))
        },
        problem: "still has the published default password",
        fix: "manage_users passwd admin",
        stops: false,
        is_fault: true,
    },
    Mistake {
        name: "the TURN secret is copied from the page as it stands there",
        folder: || {
            folder_with("TURNSERVER_SECRET=<the secret>\nTURNSERVER_URLS=[\"turn:127.0.0.1:9\"]")
        },
        problem: "TURNSERVER_SECRET: is still what a document or a file has in place of the secret",
        fix: "openssl rand -hex 32",
        stops: false,
        is_fault: false,
    },
    Mistake {
        name: "chmod 600 .env is left out",
        folder: || {
            let folder = folder_with("");
            let path = folder.path().join(".env");
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            folder
        },
        problem: "other users of this machine may read or change it (mode 644)",
        fix: "chmod 600",
        stops: false,
        is_fault: false,
    },
    Mistake {
        name: "the certificate is named before certbot has made it",
        folder: || {
            folder_with("SSL_CERT_FILE=/no/live/fullchain.pem\nSSL_KEY_FILE=/no/live/privkey.pem")
        },
        problem: "/no/live/fullchain.pem: I/O error: No such file",
        fix: "name a PEM file with the chain",
        stops: true,
        is_fault: true,
    },
    Mistake {
        name: "certificate and key belong to two domains",
        folder: || {
            let folder = folder_with("SSL_CERT_FILE=a.pem\nSSL_KEY_FILE=b.key");
            let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            write(&folder, "a.pem", &pair().cert.pem());
            write(&folder, "b.key", &pair().signing_key.serialize_pem());
            folder
        },
        problem: "b.key: it is not the key of the certificate in a.pem",
        fix: "and one with its key",
        stops: true,
        is_fault: true,
    },
    Mistake {
        name: "the private key of the issuer is installed, and not the public one",
        folder: || {
            let folder = folder_with("JWT_PUBLIC_KEY_FILE=issuer.pem\nJWT_ALGORITHMS=HS256,ES256");
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            write(&folder, "issuer.pem", &pair.signing_key.serialize_pem());
            folder
        },
        problem: "issuer.pem: it has no public key",
        fix: "a readable file that holds public keys",
        stops: true,
        is_fault: true,
    },
    Mistake {
        name: "a backup of something else is restored",
        folder: || {
            let folder = folder_with("");
            write(&folder, "users.csv.orders", "username,email\n");
            folder
        },
        problem: "users.csv.orders: line 1",
        fix: "correct that line, or remove the file",
        stops: true,
        is_fault: true,
    },
];

fn with_users(users: &str) -> TempDir {
    let folder = folder_with("");
    write(&folder, "users.csv", users);
    folder
}

#[tokio::test]
async fn each_mistake_in_a_step_is_answered_alike_with_what_mends_it() {
    for Mistake { name, folder, problem, fix, stops, is_fault } in MISTAKES {
        let folder = folder();

        let (started, is_listening) = start_until(&folder, problem).await;
        let checked = run(&folder, &["--check-config"]).await;
        let diagnosed = run(&folder, &["doctor"]).await;

        for (program, said) in
            [("start", started), ("check", text(&checked)), ("doctor", text(&diagnosed))]
        {
            assert!(said.contains(problem) && said.contains(fix), "{name}, {program}: {said}");
        }
        assert_eq!(is_listening, !stops, "{name}");
        assert_eq!(checked.status.success(), !is_fault, "{name}: {}", text(&checked));
    }
}
