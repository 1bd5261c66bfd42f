//! A node with a network of its own, whose cable to the engine is pulled. It takes root; where that is not to be had, or
//! no namespaces are, the proxy of `faults.rs` stands for it.

use std::process::{Command, Stdio};

use serde_json::json;

use super::{SHORT_LEASE, TestCluster, faults::join_six};
use crate::harness::{
    eventually,
    process::{IN_NAMESPACE, IP},
    redis_server::RedisServer,
};

/// A namespace with two cables out of it: one to clients, one to the engine.
struct Namespace {
    name: String,
    /// What is the same in all of its addresses.
    net: String,
    /// The ends of the cables here.
    clients: String,
    engine: String,
}

impl Namespace {
    fn new() -> Option<Self> {
        let pid = std::process::id();
        let namespace = Self {
            name: format!("sig{pid}"),
            net: format!("10.213.{}", pid % 250),
            clients: format!("sc{pid}"),
            engine: format!("se{pid}"),
        };
        let Self { name, net, clients, engine } = &namespace;
        let laid = ip(&format!("netns add {name}"))
            && [(clients, "c0", 1, 2), (engine, "e0", 5, 6)].iter().all(
                |(here, there, ours, its)| {
                    ip(&format!("link add {here} type veth peer name {there} netns {name}"))
                        && ip(&format!("addr add {net}.{ours}/30 dev {here}"))
                        && ip(&format!("link set {here} up"))
                        && ip(&format!("-n {name} addr add {net}.{its}/30 dev {there}"))
                        && ip(&format!("-n {name} link set {there} up"))
                },
            )
            && ip(&format!("-n {name} link set lo up"));
        laid.then_some(namespace)
    }

    fn cable_is(&self, state: &str) {
        assert!(ip(&format!("link set {} {state}", self.engine)));
    }
}

/// The cables go with it.
impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> bool {
    let mut command = Command::new(IP);
    command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_node_without_network_serves_its_own_members_and_resynchronises_afterwards() {
    let Some(namespace) = Namespace::new() else {
        return eprintln!("skipped: no root, or no network namespaces");
    };
    let (here, there) = (format!("{}.5", namespace.net), format!("{}.2", namespace.net));
    let reachable = ["--bind", "127.0.0.1", &here, "--protected-mode", "no"];
    let engine = RedisServer::start_with_settings(&reachable).await;
    let port = engine.address().port();
    let cluster =
        TestCluster::start_with(engine, &[("WEBSOCKET_TIMEOUT", "60"), SHORT_LEASE], |node| {
            if node > 0 {
                return vec![("REDIS_URL", format!("redis://127.0.0.1:{port}"))];
            }
            vec![
                ("REDIS_URL", format!("redis://{here}:{port}")),
                ("HOST", there.clone()),
                (IN_NAMESPACE, namespace.name.clone()),
            ]
        })
        .await;
    let mut all = join_six(&cluster).await;

    namespace.cable_is("down");
    for member in [1, 2, 4, 5] {
        eventually("both have left", async || all[member].peers().len() == 3).await;
    }
    assert_eq!((all[0].peers().len(), all[3].peers().len()), (5, 5));
    all[0].send(json!({"type":"message","data":"here","to":"m3"})).await;
    all[3].wait_for_message("m0", json!("here")).await;
    namespace.cable_is("up");

    for member in &all {
        eventually("all are back", async || member.peers().len() == 5).await;
    }
    cluster.assert_consistent(&all).await;
    // Delivered or answered: the connection to Redis may be lost once more on a busy machine, and then the sender repeats.
    let again = ("m0".to_owned(), json!("again"));
    for id in 1..=20 {
        let message = json!({"type":"message","data":"again","to":"m1","id":id});
        all[0].send(message).await;
        eventually("delivered or answered", async || {
            all[1].messages().contains(&again) || all[0].unreachable_ids().contains(&id)
        })
        .await;
        if all[1].messages().contains(&again) {
            return;
        }
    }
    panic!("twenty messages in a row were answered");
}
