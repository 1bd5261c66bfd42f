//! What the scripts cost by which members come and leave.

use serde_json::json;

use super::{
    Outcome, Plan,
    engine::Engine,
    town::{Cost, Member, Town, neighbours},
};
use crate::report::{Row, median};

/// Nodes that the members of each room are spread over.
const NODES: usize = 3;
/// Members that come and leave in a turn.
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
    // One comes to each room before a second one comes to any, as in life, and not room by room.
    let mut members = Vec::new();
    for place in 0..capacity {
        let rooms = (0..rooms.max(1)).filter(|room| size(*room) > place);
        members.extend(rooms.map(|room| Member { room, place, node: (room + place) % NODES }));
    }
    let heard: usize = neighbours(&members).into_iter().sum();
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for _ in 0..plan.starts {
        let engine = Engine::start(plan.engine_core)?;
        let mut town = Town::open(&engine, NODES)?;
        for _ in 0..plan.rounds {
            let before = town.told(0..NODES)?;
            joins.push(town.join(&members, capacity)?);
            if town.members()? != members.len() {
                return Err("who was let in is not counted".into());
            }
            leaves.push(town.leave(&members)?);
            engine.becomes_empty()?;
            // Each heard of its seat, and all other nodes in the room of it and of its leaving.
            let told = town.told(0..NODES)? - before;
            if told != (members.len() + 2 * heard) as u64 {
                return Err(format!("{told} entries in all inboxes").into());
            }
        }
    }
    let row = |what: &str, measure, unit, turns: &[Cost], figure: fn(&Cost) -> f64| Row {
        details: json!({ "turns": turns.iter().map(figure).collect::<Vec<_>>() }),
        ..Row::alone(format!("{scenario}: {what}"), measure, unit, median(turns.iter().map(figure)))
    };
    let cpu = |cost: &Cost| cost.cpu / cost.calls as f64;
    let rate = |cost: &Cost| cost.calls as f64 / cost.seconds;
    Ok(vec![
        row("joining", "us CPU of the engine", "join", &joins, cpu),
        row("joining", "joins", "second", &joins, rate),
        row("leaving", "us CPU of the engine", "leave", &leaves, cpu),
    ])
}
