local websocket = require "http.websocket"

io.stdout:setvbuf "line"
local socket = websocket.new_from_uri(os.getenv "ROOM_URL")
local connected, why = socket:connect()
if not connected then
  print("refused", why)
  os.exit(1)
end
for text in socket:each() do
  print(text)
  if text:find('"type":"auth_required"', 1, true) then
    socket:send('{"type":"auth_token","token":"' .. os.getenv "TOKEN" .. '"}')
  elseif text:find '^{"type":"offer"' then
    socket:send('{"type":"answer","answer":{},"to":' .. text:match '"from":("[^"]*")' .. "}")
  end
end
print("closed " .. tostring(socket.got_close_code) .. " " .. tostring(socket.got_close_message))
