-- Moderation rules. ARGV: the node that sends them, and a number that the others are to confirm to it, or nothing; then each as a
-- JSON object, with its "key", which rules about the same thing share, and its "rank", a text that is greater for a newer rule:
-- Rust decides which is newer, this only compares. The newest rule of each key is stored, and every node gets it. Returns: how
-- many nodes beside that one get the last one.
begin_essential()
local sender, number, others = ARGV[1], ARGV[2], 0
for i = 3, #ARGV do
  local line = ARGV[i]
  local rule = cjson.decode(line)
  local known = redis.call('HGET', PREFIX .. 'orders', rule.key)
  if not known or (cjson.decode(known).rank or '') < rule.rank then
    redis.call('HSET', PREFIX .. 'orders', rule.key, line)
    others = post_to_all('kind', 'rule', 'body', line, 'node', sender, 'number', number) - 1
  end
end
return math.max(others, 0)
