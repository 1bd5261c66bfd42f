package main

import (
	"encoding/json"
	"fmt"
	"os"
)

var roomURL = os.Getenv("ROOM_URL")

// reply prints a message, and returns the answer to it, or nil.
func reply(text []byte) []byte {
	fmt.Println(string(text))
	var message struct{ Type, From string }
	if json.Unmarshal(text, &message) != nil {
		return nil
	}
	var answer []byte
	switch message.Type {
	case "auth_required":
		answer, _ = json.Marshal(map[string]string{"type": "auth_token", "token": os.Getenv("TOKEN")})
	case "offer":
		answer, _ = json.Marshal(map[string]interface{}{"type": "answer", "answer": struct{}{}, "to": message.From})
	}
	return answer
}
