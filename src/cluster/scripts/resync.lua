-- A node states who of a room is on it, exactly. ARGV: room, node, epoch that it knows, number of what was told outside
-- that it knows, whether this engine has known of it before ("known") or is another one, client, seat, client, seat … The
-- node hears by its inbox who else is there, and which of its own have lost their id meanwhile.
-- Returns: 0 where the node is not known (any more), for what it states nobody would take back; and what is told outside.
-- Of those nothing is told whom only this engine has not known.
local room, node = ARGV[1], ARGV[2]
if not redis.call('ZSCORE', P .. 'nodes', node) then return { 0, told } end
local stated, latest, is_news = {}, tonumber(ARGV[3]), ARGV[5] == 'known'
for i = 6, #ARGV, 2 do stated[ARGV[i]] = ARGV[i + 1] end
local engine = redis.call('HGETALL', P .. 'room:' .. room)
for i = 1, #engine, 2 do
  local client, seat = engine[i], engine[i + 1]
  if node_of(seat) == node and stated[client] ~= seat then left(room, client, seat, node, 'lost') end
end
if not is_news and #ARGV > 5 then at_least(room, ARGV[4]) end
for i = 6, #ARGV, 2 do
  local client, seat = ARGV[i], ARGV[i + 1]
  local held = redis.call('HGET', P .. 'room:' .. room, client)
  if not held then
    if is_news and not is_open(room) then note(room, 'opened') end
    local number = is_news and note(room, 'joined', client, seat) or 0
    tell(room, node, 'k', 'join', 'r', room, 'c', client, 'v', seat, 'q', number)
    add(room, client, seat)
  elseif held ~= seat then
    post(node, 'k', 'left', 'r', room, 'c', client, 'v', seat)
  end
end
-- Whoever comes from now on has come later.
if latest > tonumber(redis.call('GET', P .. 'arrivals') or 0) then redis.call('SET', P .. 'arrivals', string.format('%d', latest)) end
if #ARGV > 5 then
  post(node, 'k', 'sync', 'r', room, 'e', redis.call('GET', P .. 'arrivals') or 0, 'm', picture(room))
end
closes(room)
return { 1, told }
