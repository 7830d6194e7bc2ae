package limiter

import (
	"fmt"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// Mode is how all limits of a region act. The node tells the service of it; decisions of the
// groups depend on what the command says alone.
type Mode uint32

const (
	// ModeEnforce lets limits decide.
	ModeEnforce Mode = iota
	// ModeShadow makes every limit a shadow: it counts, reports what it would deny, and denies
	// nothing.
	ModeShadow
	// ModeOff lets every check pass at once, and counts nothing.
	ModeOff
)

// Modes are their names, in the order of their numbers.
var Modes = [...]string{"enforce", "shadow", "off"}

// String is the name.
func (m Mode) String() string {
	if int(m) < len(Modes) {
		return Modes[m]
	}
	return fmt.Sprintf("mode %d", uint32(m))
}

// ParseMode finds a mode by its name.
func ParseMode(name string) (Mode, bool) {
	for i, n := range Modes {
		if n == name {
			return Mode(i), true
		}
	}
	return 0, false
}

// FollowMode makes the service ask for the mode with every check. It is called before the first
// one; without it, limits are enforced.
func (s *Service) FollowMode(mode func() Mode) { s.mode = mode }

// watchable are the operations that can be decided with every limit as a shadow.
func watchable(op byte) bool {
	switch op {
	case opCheck, opBatch, opPeek, opTogether, opReserve, opAcquire:
		return true
	}
	return false
}

// inMode is a command or query as a mode wants it decided.
func inMode(mode Mode, data []byte) []byte {
	if mode == ModeEnforce {
		return data
	}
	return append([]byte{codecLeases, opWatched}, data...)
}

// decodeWatched reads what is behind opWatched.
func decodeWatched(r *wire.Reader) (command, error) {
	inner := r.Rest()
	if len(inner) > 1 && inner[1] == opWatched {
		return command{}, fmt.Errorf("%w: operation %d within itself", errCodec, opWatched)
	}
	c, err := decodeCommand(inner)
	if err != nil {
		return command{}, err
	}
	if !watchable(c.op) {
		return command{}, fmt.Errorf("%w: operation %d cannot be watched", errCodec, c.op)
	}
	c.watched = true
	return c, nil
}
