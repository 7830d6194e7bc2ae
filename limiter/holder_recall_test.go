package limiter

import (
	"testing"
	"unsafe"
)

// What is remembered of a recall does not change with the message that the request came in.
func TestRecallsKeepNoTextOfARequest(t *testing.T) {
	var log recallLog
	message := []byte("acme")
	all := []Recall{{Limit: 1, Holders: []Holder{1}}}
	log.begin(unsafe.String(&message[0], len(message)), all, 1)
	copy(message, "none")
	if mine, _, others := log.begin("acme", all, 2); len(mine) != 0 || len(others) != 1 {
		t.Errorf("after the message has gone: %d recalls to begin, %d under way", len(mine), len(others))
	}
}
