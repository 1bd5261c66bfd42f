//! What one engine holds: a million members on a hundred nodes.

use serde_json::json;

use super::{
    Outcome, Plan,
    engine::Engine,
    reap,
    town::{Cost, Member, Seats, Town, bereaved, neighbours},
};
use crate::report::Row;

const NODES: usize = 100;
/// Members of a room.
const ROOM: usize = 10;

/// Once with members of a room anywhere, and once with each room on one node, as a balancer that hashes by room has it.
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
    let mut town = Town::open(&engine, NODES)?;
    let empty = engine.figures()?.memory;

    let joins = town.join(&members, ROOM)?;
    // Inboxes are counted apart: nodes that beat have read all but the last entry of theirs.
    let with_inboxes = engine.figures()?.memory;
    town.beat()?;
    let memory = engine.figures()?.memory;
    let heard: usize = neighbours(&members).into_iter().sum();
    let told = town.told(0..NODES)?;
    // And the first entry of each was its own hello.
    if town.members()? != members.len() || told != (members.len() + heard + NODES) as u64 {
        return Err(format!("not everybody is in, or was told: {told} entries").into());
    }

    let seats = town.seats(0, &members)?;
    let retold = tells_again(&mut town, &seats, 0)?;
    let death = reap::dies(&mut town, 0, NODES, &members)?;
    town.enters(0)?;
    let back = tells_again(&mut town, &seats, bereaved(&members, 0))?;
    if town.members()? != members.len() {
        return Err("not everybody is back".into());
    }

    let scenario = format!("{} members, {name}", members.len());
    let bytes = |bytes: u64| bytes as f64 / members.len() as f64;
    let row = |what: &str, measure, unit, figure| {
        Row::alone(format!("{scenario}: {what}"), measure, unit, figure)
    };
    let each = |cost: &Cost, members: usize| cost.cpu / members as f64;
    let mut rows = vec![
        row("joining", "us CPU of the engine", "join", each(&joins, members.len())),
        row("joining", "joins", "second", members.len() as f64 / joins.seconds),
        row("memory, without inboxes", "bytes", "member", bytes(memory.saturating_sub(empty))),
    ];
    rows[2].details = json!({ "inboxes_since_the_last_beat": with_inboxes.saturating_sub(memory) });
    let (_, of_one) = seats.count();
    rows.extend(reap::rows(
        &format!("{scenario}: {of_one} of them leave with their node"),
        &[death],
    ));
    for (what, cost) in [("told again", &retold), ("told again after they were given up", &back)] {
        let what = format!("{of_one} are {what}");
        rows.push(row(&what, "us CPU of the engine", "member", each(cost, of_one.max(1))));
        rows.push(row(&what, "ms CPU of the engine", "node", cost.cpu / 1e3));
    }
    Ok(rows)
}

/// The first node states its seats; so often others are to hear that somebody came.
fn tells_again(town: &mut Town, seats: &Seats, heard: usize) -> Outcome<Cost> {
    let before = town.told(0..NODES)?;
    let cost = town.sync(0, seats)?;
    let (rooms, _) = seats.count();
    let told = town.told(0..NODES)? - before;
    // It is shown each room, beside what others hear.
    if told != (rooms + heard) as u64 {
        return Err(format!("{rooms} rooms were told again, by {told} entries").into());
    }
    Ok(cost)
}
