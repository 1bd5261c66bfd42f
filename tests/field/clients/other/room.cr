require "http/web_socket"
require "json"

begin
  socket = HTTP::WebSocket.new(URI.parse(ENV["ROOM_URL"]))
rescue error
  puts "refused #{error.message}"
  exit 1
end
socket.on_message do |text|
  puts text
  message = JSON.parse(text)
  case message["type"]
  when "auth_required" then socket.send({type: "auth_token", token: ENV["TOKEN"]}.to_json)
  when "offer"         then socket.send({type: "answer", answer: {} of String => String, to: message["from"]}.to_json)
  end
end
socket.on_close { |code, reason| puts "closed #{code.value} #{reason}" }
socket.run
