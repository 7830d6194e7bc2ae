package devregion

import (
	"os"
	"strings"
	"sync"
)

// outputKept is how much of what a node said last is kept in memory.
const outputKept = 4 << 10

// output writes what a node says to its log, and remembers the end of it: on a full disk a log cannot
// be written, and then most of all somebody wants to know why the node ended.
type output struct {
	mu   sync.Mutex
	log  *os.File
	last []byte
	err  error // of the first write that failed
}

// Write always succeeds, as the node would be ended by a pipe that nobody reads.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.log.Write(b); err != nil && o.err == nil {
		o.err = err
	}
	o.last = append(o.last, b...)
	o.last = o.last[max(0, len(o.last)-outputKept):]
	return len(b), nil
}

// end is the last lines, and why the log lacks some if it does.
func (o *output) end(lines int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := strings.Split(strings.TrimRight(string(o.last), "\n"), "\n")
	if o.err != nil {
		all = append(all, "not all of it is in the log: "+o.err.Error())
	}
	return strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
