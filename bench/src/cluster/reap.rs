//! What it takes until the members of a dead node have left.

use serde_json::json;

use super::{
    Outcome, Plan,
    engine::Engine,
    town::{Cost, Member, Town, bereaved},
};
use crate::report::{Row, median};

/// The dead one, and two that its members shared rooms with.
const NODES: usize = 3;
/// Members that were on it.
const MEMBERS: usize = 10_000;
/// Members of a room.
const ROOM: usize = 10;

/// A node all whose rooms were its own, and one that shared a third of them.
pub fn measure(plan: &Plan) -> Outcome<Vec<Row>> {
    let members = MEMBERS.min(plan.members);
    let mut rows = of_layout(plan, members, "rooms its own", |_| false)?;
    rows.extend(of_layout(plan, members, "a third of its rooms shared", |room| room % 3 == 0)?);
    Ok(rows)
}

fn of_layout(
    plan: &Plan,
    dead: usize,
    name: &str,
    is_shared: impl Fn(usize) -> bool,
) -> Outcome<Vec<Row>> {
    let (mut members, mut on_node) = (Vec::new(), 0);
    for number in 0.. {
        let (room, place) = (number / ROOM, number % ROOM);
        let node = if is_shared(room) { place % NODES } else { 0 };
        on_node += usize::from(node == 0);
        if on_node > dead {
            break;
        }
        members.push(Member { room, place, node });
    }
    let mut deaths = Vec::new();
    for _ in 0..plan.rounds {
        let engine = Engine::start(plan.engine_core)?;
        let mut town = Town::open(&engine, NODES)?;
        town.join(&members, ROOM)?;
        deaths.push(dies(&mut town, 0, NODES, &members)?);
        let others: Vec<_> = members.iter().filter(|member| member.node != 0).copied().collect();
        town.leave(&others)?;
        engine.becomes_empty()?;
    }
    Ok(rows(&format!("reaping {dead} members, {name}"), &deaths))
}

/// A node dies that shares its rooms with others of `nodes`; an error where not exactly its members leave.
pub fn dies(town: &mut Town, node: usize, nodes: usize, members: &[Member]) -> Outcome<Cost> {
    let others = || (0..nodes).filter(move |other| *other != node);
    let dead = members.iter().filter(|member| member.node == node).count();
    let (there, told) = (town.members()?, town.told(others())?);
    let cost = town.reap(node)?;
    let (rooms, seats) = town.seats(node, members)?.count();
    if seats != 0 || town.members()? != there - dead {
        return Err(format!("{seats} members of {rooms} rooms have not left").into());
    }
    let told = town.told(others())? - told;
    if told != bereaved(members, node) as u64 {
        return Err(format!("{told} times, a node heard that somebody left").into());
    }
    Ok(cost)
}

/// What some deaths cost.
pub fn rows(scenario: &str, deaths: &[Cost]) -> Vec<Row> {
    let row = |measure, unit, figure: fn(&Cost) -> f64| Row {
        details: json!({ "deaths": deaths.iter().map(figure).collect::<Vec<_>>() }),
        ..Row::alone(scenario, measure, unit, median(deaths.iter().map(figure)))
    };
    let longest: fn(&Cost) -> f64 = |cost| 1e3 * cost.longest;
    vec![
        row("calls", "death", |cost| cost.calls as f64),
        row("ms", "death", |cost| 1e3 * cost.seconds),
        row("ms CPU of the engine", "death", |cost| cost.cpu / 1e3),
        Row {
            // Of all deaths: how long everybody else may have to wait.
            server: deaths.iter().map(longest).fold(0.0, f64::max),
            ..row("ms", "longest call", longest)
        },
    ]
}
