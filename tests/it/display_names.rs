//! Display names: a token gives its user one, and the members of its room see it.

use reqwest::Method;
use serde_json::{Value, json};
use signaling::clock::unix_now;

use crate::{
    harness::{
        http,
        process::{KEY, RestartableServer},
        resumable::{RESUME, ResumableClient},
    },
    tokens::hs256,
};

const ADMIN: &str = "admin-token-of-this-test-0123456789abcdef";

/// A token for `user` with this display name.
pub fn token_named(user: &str, name: Option<&str>) -> String {
    let mut claims = json!({"sub":user,"exp":unix_now() + 3_600});
    if let Some(name) = name {
        claims["signaling"] = json!({"name":name});
    }
    hs256(KEY, &claims)
}

/// The members of the room as an administrator sees them.
async fn shown(server: &RestartableServer) -> Value {
    let url = format!("http://{}/admin/api/rooms/den", server.address());
    let request = http().build().unwrap().request(Method::GET, url).bearer_auth(ADMIN);
    let mut body: Value = request.send().await.unwrap().json().await.unwrap();
    body["members"].take()
}

#[tokio::test]
async fn members_see_the_display_name_also_after_a_resume_and_a_restart() {
    let settings = [("USERS_REQUIRED", "false"), ("ADMIN_TOKEN", ADMIN), ("STATE_FILE", "state")];
    let mut server = RestartableServer::start(&settings).await;
    let (ada, bob) = (token_named("u1", Some("Ada Ω")), token_named("u2", None));
    let mut bob = ResumableClient::join(server.address(), "den", "b", &bob, RESUME).await;
    let mut ada = ResumableClient::join(server.address(), "den", "a", &ada, RESUME).await;

    let joined = bob.receive_type("user_joined").await;
    assert_eq!((&joined["name"], &joined["username"]), (&json!("Ada Ω"), &json!("u1")));
    let renamed = token_named("u1", Some("Eve"));
    ada.send(json!({"type":"auth_token","token":renamed})).await;
    let refreshed = ada.receive_type("token_refreshed").await;
    ada.keep_resume_token(&refreshed);
    for client in [&mut ada, &mut bob] {
        client.drop_connection().await;
    }
    let told = bob.resume(server.address()).await;
    let others = |told: &Value| told["users"].clone();
    assert_eq!(
        others(&told),
        json!([{"client_id":"a","username":"u1","name":"Ada Ω","polite":false}])
    );
    let told = ada.resume(server.address()).await;
    assert_eq!(others(&told), json!([{"client_id":"b","username":"u2","polite":true}]));
    let members = shown(&server).await;
    assert_eq!((&members[0]["name"], &members[1]["name"]), (&json!("Ada Ω"), &Value::Null));

    let (errors, ..) =
        tokio::join!(server.stop(), ada.receive_until_closed(), bob.receive_until_closed());
    assert_eq!(errors, [] as [&str; 0]);
    server.restart().await;

    let told = bob.resume(server.address()).await;
    assert_eq!(told["users"][0]["name"], "Ada Ω", "the name of a membership does not change");
    assert_eq!(shown(&server).await[0]["name"], "Ada Ω");
    let newer = token_named("u1", Some("Eve"));
    ResumableClient::join(server.address(), "den", "a", &newer, RESUME).await;
    let heard = bob.receive_pending().await;
    let joined = heard.iter().find(|message| message["type"] == "user_joined").unwrap();
    assert_eq!(joined["name"], "Eve", "a membership that is new has the name of its token");
}
