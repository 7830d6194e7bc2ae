package index

import (
	"errors"
	"fmt"
)

// Mode says what the index of a region takes and answers: the flag index.write.
type Mode uint32

const (
	// ModeReadWrite takes documents and answers searches. It is what holds unless something else is set.
	ModeReadWrite Mode = iota
	// ModeReadOnly answers searches and refuses documents.
	ModeReadOnly
	// ModeOff refuses both.
	ModeOff
)

// Modes are their names, in the order of their numbers.
var Modes = [...]string{"read-write", "read-only", "off"}

// What a mode refuses; test with errors.Is.
var (
	// ErrReadOnly means that the region's index takes no documents.
	ErrReadOnly = errors.New("the index is read-only")
	// ErrOff means that the region's index is switched off.
	ErrOff = errors.New("the index is switched off")
)

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

// Admit says whether documents may be stored (write) or searched, with ErrReadOnly or ErrOff.
func (m Mode) Admit(write bool) error {
	switch {
	case m == ModeReadWrite || m == ModeReadOnly && !write:
		return nil
	case m == ModeReadOnly:
		return ErrReadOnly
	}
	return ErrOff
}
