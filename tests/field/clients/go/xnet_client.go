package main

import (
	"fmt"

	"golang.org/x/net/websocket"
)

func main() {
	socket, err := websocket.Dial(roomURL, "", "https://app.example") // it does not go without an Origin
	for err == nil {
		var text []byte
		if err = websocket.Message.Receive(socket, &text); err != nil {
			break
		}
		if answer := reply(text); answer != nil {
			err = websocket.Message.Send(socket, string(answer))
		}
	}
	fmt.Println("closed", err)
}
