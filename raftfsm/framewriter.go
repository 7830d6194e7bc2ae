package raftfsm

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// directBytesMax is how long a frame may be that is written at once: what fits into a record of TLS and
// is small beside the buffers of a connection.
const directBytesMax = 4 << 10

// frameWriter sends frames over one side of a link. Most wait for the goroutine that runs, which writes
// those that wait together at once. Small ones that somebody waits for are written by their sender, while
// nobody else writes: a search waits for four of them in a row, and waking a goroutine for each costs more than the rest.
type frameWriter struct {
	conn   net.Conn
	frames chan []byte
	stop   <-chan struct{}

	writing sync.Mutex
}

func newFrameWriter(conn net.Conn, stop <-chan struct{}) *frameWriter {
	return &frameWriter{conn: conn, frames: make(chan []byte, linkQueue), stop: stop}
}

// now writes a frame before it returns, or false if it has to be queued. A write that fails ends the
// connection.
func (w *frameWriter) now(frame []byte) bool {
	if len(frame) > directBytesMax || len(w.frames) > 0 || !w.writing.TryLock() {
		return false
	}
	defer w.writing.Unlock()
	err := w.conn.SetWriteDeadline(time.Now().Add(linkWriteTimeout))
	if err == nil {
		_, err = w.conn.Write(frame)
	}
	if err != nil {
		w.conn.Close()
	}
	return true
}

// queue leaves a frame to the goroutine; false if there is no room.
func (w *frameWriter) queue(frame []byte) bool {
	select {
	case w.frames <- frame:
		return true
	default:
		return false
	}
}

// send leaves a frame to the goroutine, and waits for room until ctx ends.
func (w *frameWriter) send(ctx context.Context, frame []byte) {
	select {
	case w.frames <- frame:
	case <-ctx.Done():
	}
}

// run sends frames until stop closes or a write fails; frames that wait together go out in one write.
func (w *frameWriter) run() error {
	b := bufio.NewWriterSize(w.conn, 64<<10)
	for {
		select {
		case <-w.stop:
			return nil
		case f := <-w.frames:
			if err := w.flush(b, f); err != nil {
				return err
			}
		}
	}
}

func (w *frameWriter) flush(b *bufio.Writer, f []byte) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := w.conn.SetWriteDeadline(time.Now().Add(linkWriteTimeout)); err != nil {
		return err
	}
	for {
		if _, err := b.Write(f); err != nil {
			return err
		}
		select {
		case f = <-w.frames:
		default:
			return b.Flush()
		}
	}
}
