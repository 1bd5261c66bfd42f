package main

import (
	"context"
	"errors"
	"fmt"

	"nhooyr.io/websocket"
)

func main() {
	ctx := context.Background()
	socket, _, err := websocket.Dial(ctx, roomURL, nil)
	if err != nil {
		fmt.Println("refused", err)
		return
	}
	socket.SetReadLimit(1 << 17)
	for err == nil {
		var text []byte
		if _, text, err = socket.Read(ctx); err != nil {
			break
		}
		if answer := reply(text); answer != nil {
			err = socket.Write(ctx, websocket.MessageText, answer)
		}
	}
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		fmt.Println("closed", int(closed.Code), closed.Reason)
	} else {
		fmt.Println("closed", err)
	}
}
