package raftfsm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// CommandBytesMax bounds one command. Raft's advice is to keep entries below 512 KiB, so
	// that one slow write does not delay heartbeats.
	CommandBytesMax = 384 << 10
	// EntryBytesMax bounds the commands that share one entry.
	EntryBytesMax = 512 << 10
	// EntryCommandsMax bounds how many commands share one entry.
	EntryCommandsMax = 512
	// RequestMemory is how long, in group time, a request id is remembered.
	RequestMemory = 10 * time.Minute

	entryVersion = 1
	entryHeader  = 1 + 8 + 8 + 8 // version, term, group time, wall clock
)

// Kinds of commands in an entry.
const (
	commandPlain  = 0
	commandWithID = 1
	commandHost   = 2 // from LevelBackups on
)

var errEntryMalformed = errors.New("raftfsm: malformed log entry")

// NewRequestID derives a request id from everything that names the request: who asks, what
// operation, and the id that the caller chose.
func NewRequestID(parts ...string) RequestID {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	var id RequestID
	copy(id[:], h.Sum(nil))
	return id
}

// EncodeEntry lays out a log entry; docs/FORMAT.md has the bytes. term is the term whose
// leader made the stamp: should the entry land in another term, its stamp does not count.
func EncodeEntry(term uint64, groupTime, wall int64, cmds []Command) []byte {
	size := entryHeader + binary.MaxVarintLen64
	for _, c := range cmds {
		size += 1 + len(c.RequestID) + binary.MaxVarintLen64 + len(c.Data)
	}
	b := make([]byte, 0, size)
	b = append(b, entryVersion)
	b = binary.BigEndian.AppendUint64(b, term)
	b = binary.BigEndian.AppendUint64(b, uint64(groupTime))
	b = binary.BigEndian.AppendUint64(b, uint64(wall))
	b = binary.AppendUvarint(b, uint64(len(cmds)))
	for _, c := range cmds {
		switch {
		case c.host:
			b = append(b, commandHost)
		case c.RequestID == (RequestID{}):
			b = append(b, commandPlain)
		default:
			b = append(b, commandWithID)
			b = append(b, c.RequestID[:]...)
		}
		b = binary.AppendUvarint(b, uint64(len(c.Data)))
		b = append(b, c.Data...)
	}
	return b
}

// entryStamp reads only the group time of an encoded entry that was logged in term.
func entryStamp(b []byte, term uint64) (groupTime int64, ok bool) {
	if len(b) < entryHeader || b[0] != entryVersion || binary.BigEndian.Uint64(b[1:]) != term {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b[9:])), true
}

// decodeEntry is the inverse of EncodeEntry; the commands alias b.
func decodeEntry(b []byte) (wall int64, cmds []Command, err error) {
	if len(b) < entryHeader {
		return 0, nil, errEntryMalformed
	}
	if b[0] != entryVersion {
		return 0, nil, fmt.Errorf("%w: version %d, this build knows %d", errEntryMalformed, b[0], entryVersion)
	}
	wall = int64(binary.BigEndian.Uint64(b[17:]))
	b = b[entryHeader:]
	n, w := binary.Uvarint(b)
	if w <= 0 || n > EntryCommandsMax {
		return 0, nil, errEntryMalformed
	}
	b = b[w:]
	cmds = make([]Command, n)
	for i := range cmds {
		// A command of the host is alone in its entry.
		if len(b) < 1 || b[0] > commandHost || b[0] == commandHost && n != 1 {
			return 0, nil, errEntryMalformed
		}
		withID := b[0] == commandWithID
		cmds[i].host = b[0] == commandHost
		b = b[1:]
		if withID {
			if len(b) < len(RequestID{}) {
				return 0, nil, errEntryMalformed
			}
			copy(cmds[i].RequestID[:], b)
			b = b[len(RequestID{}):]
		}
		size, w := binary.Uvarint(b)
		if w <= 0 || size > uint64(len(b)-w) {
			return 0, nil, errEntryMalformed
		}
		cmds[i].Data = b[w : w+int(size) : w+int(size)]
		b = b[w+int(size):]
	}
	if len(b) != 0 {
		return 0, nil, errEntryMalformed
	}
	return wall, cmds, nil
}
