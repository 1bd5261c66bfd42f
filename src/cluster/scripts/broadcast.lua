-- Something that every other node is to hear. ARGV: node, kind, what it is.
for _, node in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do
  if node ~= ARGV[1] then post(node, 'k', ARGV[2], 'd', ARGV[3]) end
end
return 1
