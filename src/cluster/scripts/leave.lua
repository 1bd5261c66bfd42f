-- A member leaves, if it is still on that connection. ARGV: room, client, connection, reason. Returns the webhook records.
begin_essential()
local room, client, connection, reason = unpack(ARGV)
local current = redis.call('HGET', PREFIX .. 'room:' .. room, client)
end_for_good(connection)
if current and connection_of(current) == connection then
  leave(room, client, current, node_of(connection), reason)
  close_if_empty(room)
end
return encode_webhook_records()
