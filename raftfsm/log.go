package raftfsm

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLog passes the library's log lines on to slog. Once ctx has ended they are about
// connections that were closed on purpose, and only for debugging; so are those that quiet says
// nobody needs.
func raftLog(ctx context.Context, l *slog.Logger, quiet func(line string) bool) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Warn, DisableTime: true, Output: raftLines{l, ctx, quiet}})
}

type raftLines struct {
	log   *slog.Logger
	ctx   context.Context
	quiet func(line string) bool
}

var _ io.Writer = raftLines{}

func (r raftLines) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	level := slog.LevelWarn
	if rest, ok := strings.CutPrefix(line, "[ERROR]"); ok {
		level, line = slog.LevelError, rest
	} else if rest, ok := strings.CutPrefix(line, "[WARN]"); ok {
		line = rest
	}
	if r.ctx.Err() != nil || r.quiet(line) {
		level = slog.LevelDebug
	}
	r.log.Log(context.Background(), level, strings.TrimSpace(line))
	return len(b), nil
}

// quiet tells whether a line of the library is only for debugging: all are on a node that was removed, and
// on the others those about a member that leaves, which may be gone for good before its replicas are
// replaced. Raft complains of it several times a second and group; this says it once.
func (h *Host) quiet(line string) bool {
	if h.removed.Load() {
		return true
	}
	for id, m := range h.roster.Load().members {
		if m.Leaving && strings.Contains(line, id) {
			h.notices.say("leaves "+id, func() {
				h.log.Info("a member that leaves does not answer; the region goes on replacing its replicas", "member", id, "raft", line)
			})
			return true
		}
	}
	return strings.Contains(line, noMember) // it has left since
}

// pebbleLog passes Pebble's log lines on to slog; its infos are about every flush.
type pebbleLog struct{ log *slog.Logger }

func (p pebbleLog) Infof(f string, a ...any)  { p.log.Debug("pebble: " + fmt.Sprintf(f, a...)) }
func (p pebbleLog) Errorf(f string, a ...any) { p.log.Error("pebble: " + fmt.Sprintf(f, a...)) }

// Fatalf is called by Pebble when it cannot go on; it must not return.
func (p pebbleLog) Fatalf(f string, a ...any) {
	p.log.Error("pebble: " + fmt.Sprintf(f, a...))
	log.Fatalf("pebble: "+f, a...)
}
