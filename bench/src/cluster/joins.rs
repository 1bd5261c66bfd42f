//! The cost of the scripts with which members join and leave.

use serde_json::json;

use super::{
    Outcome, Plan,
    engine::Engine,
    nodes::{Cost, Member, SimulatedNodes, join_notifications},
};
use crate::report::{Row, median};

/// The nodes over which the members of each room are spread.
const NODES: usize = 3;
/// The members that join and leave in a turn.
const MEMBERS: usize = 7_000;

/// Rooms of 4 to 10, and rooms of 100.
pub fn measure(plan: &Plan) -> Outcome<Vec<Row>> {
    let members = MEMBERS.min(plan.members);
    let mut rows =
        rooms(plan, "rooms of 4 to 10 on 3 nodes", members / 7, |room| 4 + room % 7, 10)?;
    rows.extend(rooms(plan, "rooms of 100 on 3 nodes", members / 100, |_| 100, 100)?);
    Ok(rows)
}

fn rooms(
    plan: &Plan,
    scenario: &str,
    rooms: usize,
    size: impl Fn(usize) -> usize,
    capacity: usize,
) -> Outcome<Vec<Row>> {
    // One member joins each room before a second one joins any, as in practice, and not room by room.
    let mut members = Vec::new();
    for place in 0..capacity {
        let rooms = (0..rooms.max(1)).filter(|room| size(*room) > place);
        members.extend(rooms.map(|room| Member { room, place, node: (room + place) % NODES }));
    }
    let notifications: usize = join_notifications(&members).into_iter().sum();
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..plan.starts {
        let engine = Engine::start(plan.engine_core)?;
        let mut nodes = SimulatedNodes::register(&engine, NODES)?;
        for _ in 0..plan.rounds {
            let before = nodes.inbox_entries(0..NODES)?;
            joins.push(nodes.join(&members, capacity)?);
            if nodes.members()? != members.len() {
                return Err("the engine does not count all members".into());
            }
            leaves.push(nodes.leave(&members)?);
            engine.expect_empty()?;
            // The node of a member gets the result of the join, and all other nodes in the room get the join and the leave.
            let entries = nodes.inbox_entries(0..NODES)? - before;
            let expected = members.len() + 2 * notifications;
            if entries != expected as u64 {
                return Err(format!("{entries} inbox entries instead of {expected}").into());
            }
        }
    }
    let row = |what: &str, measure, unit, turns: &[Cost], value: fn(&Cost) -> f64| Row {
        details: json!({ "turns": turns.iter().map(value).collect::<Vec<_>>() }),
        ..Row::alone(format!("{scenario}: {what}"), measure, unit, median(turns.iter().map(value)))
    };
    let cpu = |cost: &Cost| cost.cpu / cost.calls as f64;
    let rate = |cost: &Cost| cost.calls as f64 / cost.seconds;
    Ok(vec![
        row("joining", "us CPU of the engine", "join", &joins, cpu),
        row("joining", "joins", "second", &joins, rate),
        row("leaving", "us CPU of the engine", "leave", &leaves, cpu),
    ])
}
