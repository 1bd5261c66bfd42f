//! Display names of members on other nodes.

use serde_json::{Value, json};

use super::TestCluster;
use crate::{
    display_names::token_named,
    harness::resumable::{RESUME, ResumableClient},
};

#[tokio::test]
async fn members_of_all_nodes_see_the_display_name_also_after_a_move() {
    let cluster = TestCluster::start(&[("USERS_REQUIRED", "false")]).await;
    let join = async |node: usize, id: &str, name: Option<&str>| {
        let (address, token) = (cluster.nodes[node].address(), token_named(id, name));
        ResumableClient::join(address, "den", id, &token, RESUME).await
    };
    let named = |message: &Value| message["users"][0]["name"].clone();
    let mut bob = join(1, "bob", None).await;
    let mut ada = join(0, "ada", Some("Ada L.")).await;

    assert_eq!(bob.receive_type("user_joined").await["name"], "Ada L.");
    ada.drop_connection().await;
    ada.resume(cluster.nodes[2].address()).await;
    bob.drop_connection().await;
    let told = bob.resume(cluster.nodes[0].address()).await;
    assert_eq!(named(&told), "Ada L.", "{told}");

    // A node whose picture of the room comes from Redis.
    let token = token_named("carol", None);
    let mut carol =
        ResumableClient::join(cluster.nodes[1].address(), "den", "carol", &token, RESUME).await;
    carol.drop_connection().await;
    let told = carol.resume(cluster.nodes[1].address()).await;
    assert_eq!(named(&told), "Ada L.", "{told}");
    assert_eq!(told["users"][1].get("name"), None, "{told}");
    // The same user takes its client id over, for its record has the username alone in its first line.
    let mut other = join(2, "ada", Some("Ada Lovelace")).await;
    other.assert_no_more_messages().await;
    for member in [&mut bob, &mut carol] {
        let joined = loop {
            let message = member.receive().await;
            if (&message["type"], &message["client_id"]) == (&json!("user_joined"), &json!("ada")) {
                break message;
            }
        };
        assert_eq!(joined["name"], "Ada Lovelace", "{joined}");
    }
}
