-- Something for every other node. ARGV: node that sends it, kind, body.
begin_essential()
local sender, kind, body = unpack(ARGV)
for _, node in ipairs(redis.call('ZRANGE', PREFIX .. 'nodes', 0, -1)) do
  if node ~= sender then post(node, 'kind', kind, 'body', body) end
end
return 1
