-- The client of a member is on another node, which claims the membership. ARGV: room, client, the connection that it will be
-- on, key of the membership, what is to come back with it, the client's connection there that is to end for it (0 is none).
-- Returns: the connection that the membership is on, or nothing.
begin_essential()
local room, client, to, membership, context, ends = unpack(ARGV)
local current = redis.call('HGET', PREFIX .. 'room:' .. room, client)
if not current then return '' end
local from = connection_of(current)
if node_of(from) ~= node_of(to) then
  post(node_of(from), 'kind', 'claim', 'room', room, 'client', client, 'connection', from, 'to', to,
    'membership', membership, 'context', context, 'ends', ends)
end
return from
