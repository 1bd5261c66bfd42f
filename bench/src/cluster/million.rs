//! A million members on a hundred nodes, in one engine.

use serde_json::json;

use super::{
    Outcome, Plan,
    engine::Engine,
    nodes::{Cost, Member, NodeMembers, SimulatedNodes, join_notifications, leave_notifications},
    reap,
};
use crate::report::Row;

const NODES: usize = 100;
/// Members of a room.
const ROOM: usize = 10;

/// Once with the members of a room on any nodes, and once with each room on one node, as with a load balancer that hashes
/// by room.
pub fn measure(plan: &Plan) -> Outcome<Vec<Row>> {
    // 37 is coprime to the number of nodes: ten members are on ten of them, and all have as many.
    let mut rows = layout(plan, "anywhere", |room, place| (room + 37 * place) % NODES)?;
    rows.extend(layout(plan, "a room on one node", |room, _| room % NODES)?);
    Ok(rows)
}

fn layout(plan: &Plan, name: &str, node: impl Fn(usize, usize) -> usize) -> Outcome<Vec<Row>> {
    let rooms = (plan.members / ROOM).max(1);
    let places = (0..ROOM).flat_map(|place| (0..rooms).map(move |room| (room, place)));
    let member = |(room, place)| Member { room, place, node: node(room, place) };
    let members: Vec<Member> = places.map(member).collect();
    let engine = Engine::start(plan.engine_core)?;
    let mut nodes = SimulatedNodes::register(&engine, NODES)?;
    let empty = engine.stats()?.memory;

    let joins = nodes.join(&members, ROOM)?;
    // Inboxes are measured separately: with a heartbeat, a node trims all entries of its inbox but the last.
    let with_inboxes = engine.stats()?.memory;
    nodes.send_heartbeats()?;
    let memory = engine.stats()?.memory;
    let notifications: usize = join_notifications(&members).into_iter().sum();
    let entries = nodes.inbox_entries(0..NODES)?;
    // The first entry of each inbox comes from the registration of its node.
    let expected = members.len() + notifications + NODES;
    if nodes.members()? != members.len() || entries != expected as u64 {
        return Err(format!("members are missing, or {entries} inbox entries are wrong").into());
    }

    let node_members = nodes.members_of(0, &members)?;
    let resync = resync(&mut nodes, &node_members, 0)?;
    let failure = reap::fail_node(&mut nodes, 0, NODES, &members)?;
    nodes.register_node(0)?;
    let rejoin = self::resync(&mut nodes, &node_members, leave_notifications(&members, 0))?;
    if nodes.members()? != members.len() {
        return Err("members are missing after the resync".into());
    }

    let scenario = format!("{} members, {name}", members.len());
    let bytes = |bytes: u64| bytes as f64 / members.len() as f64;
    let row = |what: &str, measure, unit, value| {
        Row::alone(format!("{scenario}: {what}"), measure, unit, value)
    };
    let each = |cost: &Cost, members: usize| cost.cpu / members as f64;
    let mut rows = vec![
        row("joining", "us CPU of the engine", "join", each(&joins, members.len())),
        row("joining", "joins", "second", members.len() as f64 / joins.seconds),
        row("memory, without inboxes", "bytes", "member", bytes(memory.saturating_sub(empty))),
    ];
    rows[2].details = json!({ "inboxes_since_the_last_beat": with_inboxes.saturating_sub(memory) });
    let (_, count) = node_members.count();
    rows.extend(reap::rows(
        &format!("{scenario}: {count} of them leave with their node"),
        &[failure],
    ));
    for (what, cost) in
        [("resynchronised", &resync), ("resynchronised after they were reaped", &rejoin)]
    {
        let what = format!("{count} are {what}");
        rows.push(row(&what, "us CPU of the engine", "member", each(cost, count.max(1))));
        rows.push(row(&what, "ms CPU of the engine", "node", cost.cpu / 1e3));
    }
    Ok(rows)
}

/// The first node resynchronises its members, which must send `notifications` of joins to other nodes.
fn resync(
    nodes: &mut SimulatedNodes,
    node_members: &NodeMembers,
    notifications: usize,
) -> Outcome<Cost> {
    let before = nodes.inbox_entries(0..NODES)?;
    let cost = nodes.resync(0, node_members)?;
    let (rooms, _) = node_members.count();
    let entries = nodes.inbox_entries(0..NODES)? - before;
    // The node itself gets one entry for each room.
    if entries != (rooms + notifications) as u64 {
        return Err(format!("{entries} inbox entries for the resync of {rooms} rooms").into());
    }
    Ok(cost)
}
