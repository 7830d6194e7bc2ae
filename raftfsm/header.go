package raftfsm

import (
	"encoding/binary"
	"errors"
	"io"
)

var headerMagic = [4]byte{'m', 'c', 'n', 'd'}

// header opens a connection; docs/FORMAT.md has the bytes.
type header struct {
	version, class byte
	group          GroupID
	cluster        ClusterID
	// process identifies the sender's process among those that may have its name.
	process uint64
	// From headerIDs on: the levels that the sender speaks, who it is, and whom it means.
	levelMin, levelMax byte
	sender, target     string
}

// encode gives all bytes of the header at once: a peer of level 1 that does not know the
// version must have taken them off the wire before it answers and closes.
func (h header) encode() []byte {
	b := append(make([]byte, 0, headerLen+4+len(h.sender)+len(h.target)), headerMagic[:]...)
	b = append(b, h.version, h.class)
	b = binary.BigEndian.AppendUint32(b, uint32(h.group))
	b = append(b, h.cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, h.process)
	if h.version == headerFirst {
		return b
	}
	b = append(b, LevelFirst, LevelCurrent)
	b = append(append(b, byte(len(h.sender))), h.sender...)
	return append(append(b, byte(len(h.target))), h.target...)
}

func readHeader(r io.Reader) (header, error) {
	var f [headerLen]byte
	if _, err := io.ReadFull(r, f[:]); err != nil {
		return header{}, err
	}
	if [4]byte(f[:4]) != headerMagic {
		return header{}, errors.New("not the cluster protocol")
	}
	h := header{
		version: f[4], class: f[5], group: GroupID(binary.BigEndian.Uint32(f[6:])), cluster: ClusterID(f[10:26]),
		process: binary.BigEndian.Uint64(f[26:]), levelMin: LevelFirst, levelMax: LevelFirst,
	}
	if h.version != headerIDs {
		return h, nil
	}
	var levels [2]byte
	if _, err := io.ReadFull(r, levels[:]); err != nil {
		return header{}, err
	}
	h.levelMin, h.levelMax = levels[0], levels[1]
	var err error
	if h.sender, err = readShort(r); err != nil {
		return header{}, err
	}
	h.target, err = readShort(r)
	return h, err
}

// readShort reads a string with its length in one byte.
func readShort(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

// answer is what the acceptor says to this header: one byte to builds of level 1, and the levels
// that it speaks to later ones.
func (h header) answer(a byte) []byte {
	if h.version != headerIDs {
		return []byte{a}
	}
	return []byte{a, LevelFirst, LevelCurrent}
}

// readAnswer returns the peer's answer and the highest level that both speak.
func (h header) readAnswer(r io.Reader) (answer byte, level int, err error) {
	var a [3]byte
	if _, err := io.ReadFull(r, a[:1]); err != nil {
		return 0, 0, err
	}
	// A peer of level 1 answers the later header with this byte alone.
	if h.version == headerFirst || a[0] == answerVersion {
		return a[0], LevelFirst, nil
	}
	if _, err := io.ReadFull(r, a[1:]); err != nil {
		return 0, 0, err
	}
	return a[0], min(int(a[2]), LevelCurrent), nil
}
