//! The cost of reaping: the removal of the members of a failed node.

use serde_json::json;

use super::{
    Outcome, Plan,
    engine::Engine,
    nodes::{Cost, Member, SimulatedNodes, leave_notifications},
};
use crate::report::{Row, median};

/// The failed node, and two nodes with which it shared rooms.
const NODES: usize = 3;
/// The members of the failed node.
const MEMBERS: usize = 10_000;
/// Members of a room.
const ROOM: usize = 10;

/// A node that shared no rooms, and one that shared a third of its rooms.
pub fn measure(plan: &Plan) -> Outcome<Vec<Row>> {
    let members = MEMBERS.min(plan.members);
    let mut rows = of_layout(plan, members, "rooms its own", |_| false)?;
    rows.extend(of_layout(plan, members, "a third of its rooms shared", |room| room % 3 == 0)?);
    Ok(rows)
}

fn of_layout(
    plan: &Plan,
    failed: usize,
    name: &str,
    is_shared: impl Fn(usize) -> bool,
) -> Outcome<Vec<Row>> {
    let (mut members, mut on_node) = (Vec::new(), 0);
    for number in 0.. {
        let (room, place) = (number / ROOM, number % ROOM);
        let node = if is_shared(room) { place % NODES } else { 0 };
        on_node += usize::from(node == 0);
        if on_node > failed {
            break;
        }
        members.push(Member { room, place, node });
    }
    let mut failures = Vec::new();
    for _ in 0..plan.rounds {
        let engine = Engine::start(plan.engine_core)?;
        let mut nodes = SimulatedNodes::register(&engine, NODES)?;
        nodes.join(&members, ROOM)?;
        failures.push(fail_node(&mut nodes, 0, NODES, &members)?);
        let others: Vec<_> = members.iter().filter(|member| member.node != 0).copied().collect();
        nodes.leave(&others)?;
        engine.expect_empty()?;
    }
    Ok(rows(&format!("reaping {failed} members, {name}"), &failures))
}

/// Lets a node fail that shares rooms with others of `count` nodes; an error unless exactly its members leave.
pub fn fail_node(
    nodes: &mut SimulatedNodes,
    node: usize,
    count: usize,
    members: &[Member],
) -> Outcome<Cost> {
    let others = || (0..count).filter(move |other| *other != node);
    let failed = members.iter().filter(|member| member.node == node).count();
    let (members_before, entries) = (nodes.members()?, nodes.inbox_entries(others())?);
    let cost = nodes.reap(node)?;
    let (rooms, remaining) = nodes.members_of(node, members)?.count();
    if remaining != 0 || nodes.members()? != members_before - failed {
        return Err(format!("{remaining} members of {rooms} rooms have not left").into());
    }
    let entries = nodes.inbox_entries(others())? - entries;
    if entries != leave_notifications(members, node) as u64 {
        return Err(format!("{entries} notifications of leaves").into());
    }
    Ok(cost)
}

/// The cost of some failures.
pub fn rows(scenario: &str, failures: &[Cost]) -> Vec<Row> {
    let row = |measure, unit, value: fn(&Cost) -> f64| Row {
        details: json!({ "failures": failures.iter().map(value).collect::<Vec<_>>() }),
        ..Row::alone(scenario, measure, unit, median(failures.iter().map(value)))
    };
    let longest: fn(&Cost) -> f64 = |cost| 1e3 * cost.longest;
    vec![
        row("calls", "failure", |cost| cost.calls as f64),
        row("ms", "failure", |cost| 1e3 * cost.seconds),
        row("ms CPU of the engine", "failure", |cost| cost.cpu / 1e3),
        Row {
            // The maximum over all failures: how long all other commands may have to wait.
            server: failures.iter().map(longest).fold(0.0, f64::max),
            ..row("ms", "longest call", longest)
        },
    ]
}
