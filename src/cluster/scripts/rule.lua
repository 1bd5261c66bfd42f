-- Orders of administrators. ARGV: each as JSON. The newest about the same counts, also here, and every node hears of it.
for _, line in ipairs(ARGV) do
  local order = cjson.decode(line)
  -- What it is about: all that is not about when.
  local who, name = order.who or '', ''
  if type(who) == 'table' then who, name = next(who) end
  local about = cjson.encode({ order.order or '', order.room or '', who, name })
  local known = redis.call('HGET', P .. 'orders', about)
  if not known or cjson.decode(known).at < order.at then
    redis.call('HSET', P .. 'orders', about, line)
    for _, node in ipairs(redis.call('ZRANGE', P .. 'nodes', 0, -1)) do post(node, 'k', 'order', 'd', line) end
  end
end
return 1
