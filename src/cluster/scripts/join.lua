-- Somebody wants in. ARGV: room, client, node.conn, username, capacity. Returns: seated, taken, full, or stranger
-- where the node itself is not known (any more).
local room, client, conn, user, capacity = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local node = node_of(conn)
if not redis.call('ZSCORE', P .. 'nodes', node) then return 'stranger' end
local held = redis.call('HGET', P .. 'room:' .. room, client)
if held and user_of(held) ~= user then return 'taken' end
if not held and redis.call('HLEN', P .. 'room:' .. room) >= capacity then return 'full' end
if TOLD and not is_open(room) then note(room, 'opened') end
if held then left(room, client, held, '', 'replaced') end
local seat = conn .. ' ' .. redis.call('INCR', P .. 'arrivals') .. ' ' .. user
local number = note(room, 'joined', client, seat)
tell(room, node, 'k', 'join', 'r', room, 'c', client, 'v', seat, 'q', number)
add(room, client, seat)
local outside = TOLD and cjson.encode(told) or '[]'
post(node, 'k', 'seat', 'r', room, 'c', client, 'v', seat, 'm', picture(room), 'w', outside)
return 'seated'
