-- The client of a member is on another node, which wants the seat. ARGV: room, client, node.conn that it will be on, key
-- of the membership, what is to come back with it, the connection there that is to end for it. Returns: the connection that it is on, or nothing.
local room, client, to = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('HGET', P .. 'room:' .. room, client)
if not held then return '' end
local from = conn_of(held)
if node_of(from) ~= node_of(to) then
  post(node_of(from), 'k', 'want', 'r', room, 'c', client, 'v', from, 't', to, 'm', ARGV[4], 'd', ARGV[5],
    's', ARGV[6])
end
return from
