-- Something for every other node. ARGV: node that sends it, kind, body, and a number that they are to confirm to it, or nothing.
-- Returns: how many those are.
begin_essential()
local sender, kind, body, number = unpack(ARGV)
local others = 0
for _, node in ipairs(redis.call('ZRANGE', PREFIX .. 'nodes', 0, -1)) do
  if node ~= sender then
    post(node, 'kind', kind, 'body', body, 'node', sender, 'number', number)
    others = others + 1
  end
end
return others
