package api

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"

	"connectrpc.com/connect"
)

// The readers below stand between the network and Connect. They bound what is read and put a
// fault of ours, as a *connect.Error that Connect passes on unchanged, where Connect would
// make an error without a reason. They stop at the bound; Connect would read on to the end.

// plainBody bounds a body that is one message.
type plainBody struct {
	io.ReadCloser
	most int
	left int
	// meter charges what arrives; nil charges nothing.
	meter *meter
	err   error
}

func newPlainBody(body io.ReadCloser, most int, m *meter) *plainBody {
	return &plainBody{ReadCloser: body, most: most, left: most, meter: m}
}

func (b *plainBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) > b.left+1 {
		p = p[:b.left+1] // one more byte tells whether the body ends at the bound
	}
	n, err := b.ReadCloser.Read(p)
	if n > b.left {
		b.err = bodyTooLarge(b.most)
		return 0, b.err
	}
	if f := b.meter.take(n); f != nil {
		b.err = f.wire()
		return 0, b.err
	}
	b.left -= n
	b.err = readError(err)
	return n, b.err
}

const envelopePrefixBytes = 5

// envelopeBody follows the messages of gRPC, gRPC-Web and Connect streams, each behind a
// prefix of one byte of flags and four of length, and bounds every one of them.
type envelopeBody struct {
	io.ReadCloser
	// single is true for a unary procedure: exactly one message.
	single bool
	// compressible is true when a header named the compression of messages.
	compressible bool
	// most bounds a message.
	most int
	// meter charges what arrives; nil charges nothing.
	meter *meter

	prefix   [envelopePrefixBytes]byte
	have     int // bytes of prefix seen
	left     int // bytes of payload to come
	messages int
	err      error
}

func (b *envelopeBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left > 0 {
		return b.readPayload(p)
	}
	if len(p) > envelopePrefixBytes-b.have {
		p = p[:envelopePrefixBytes-b.have]
	}
	n, err := b.ReadCloser.Read(p)
	copy(b.prefix[b.have:], p[:n])
	b.have += n
	switch {
	case b.have == envelopePrefixBytes:
		if f := b.openMessage(); f != nil {
			b.err = f.wire()
			return 0, b.err
		}
	case errors.Is(err, io.EOF) && b.have > 0:
		err = refuse(reasonMessageMalformed, "the body ends inside the prefix of a message").wire()
	case errors.Is(err, io.EOF) && b.single && b.messages == 0:
		err = refuse(reasonMessageMalformed, "the body holds no message").wire()
	}
	b.err = readError(err)
	return n, b.err
}

func (b *envelopeBody) openMessage() *fault {
	flags, size := b.prefix[0], binary.BigEndian.Uint32(b.prefix[1:])
	b.have = 0
	b.messages++
	switch {
	case flags&^1 != 0:
		return refuse(reasonMessageMalformed, "message %d has the unknown flags %#x", b.messages, flags)
	case flags == 1 && !b.compressible:
		return refuse(reasonMessageMalformed, "message %d is compressed, but no header says how", b.messages)
	case b.single && b.messages > 1:
		return refuse(reasonMessageMalformed, "the body holds more than one message; this procedure takes one")
	case int64(size) > int64(b.most):
		return refuse(reasonBodyTooLarge, "message %d has %d bytes, more than the %d allowed", b.messages, size, b.most)
	}
	b.left = int(size)
	return nil
}

func (b *envelopeBody) readPayload(p []byte) (int, error) {
	if len(p) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	if f := b.meter.take(n); f != nil {
		b.err = f.wire()
		return 0, b.err
	}
	b.left -= n
	if errors.Is(err, io.EOF) && b.left > 0 {
		err = refuse(reasonMessageMalformed, "the body ends %d bytes before the end of message %d", b.left, b.messages).wire()
	}
	b.err = readError(err)
	return n, b.err
}

// readError gives errors of the network a reason.
func readError(err error) error {
	var wired *connect.Error
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.As(err, &wired):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(reasonDeadline, "the body did not arrive in time").wire()
	default:
		return refuse(reasonCanceled, "the body ended early").wire()
	}
}

func bodyTooLarge(most int) error {
	return refuse(reasonBodyTooLarge, "the body has more than the %d bytes allowed", most).wire()
}

// boundedGzip is a connect.Decompressor that stops at most bytes, so that a small body
// cannot keep a core busy inflating. It reads the gzip header with the first Read: Connect
// gives an error of Reset no reason.
type boundedGzip struct {
	gzip   gzip.Reader
	source io.Reader
	opened bool
	most   int
	left   int
}

var _ connect.Decompressor = (*boundedGzip)(nil)

// Reset starts on another message.
func (g *boundedGzip) Reset(source io.Reader) error {
	g.source, g.opened, g.left = source, false, g.most
	return nil
}

func (g *boundedGzip) Read(p []byte) (int, error) {
	if !g.opened {
		if err := g.gzip.Reset(g.source); err != nil {
			return 0, gzipError(err)
		}
		g.opened = true
	}
	if len(p) > g.left+1 {
		p = p[:g.left+1]
	}
	n, err := g.gzip.Read(p)
	if n > g.left {
		return 0, bodyTooLarge(g.most)
	}
	g.left -= n
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, gzipError(err)
	}
	return n, err
}

// Close ends the message.
func (g *boundedGzip) Close() error {
	g.source = http.NoBody
	return nil
}

func gzipError(err error) error {
	return refuse(reasonMessageMalformed, "the body is not gzip: %v", err).wire()
}

func compression(most int) connect.HandlerOption {
	return connect.WithCompression("gzip",
		func() connect.Decompressor { return &boundedGzip{source: http.NoBody, most: most} },
		func() connect.Compressor {
			w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level exists
			return w
		})
}
