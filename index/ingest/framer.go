package ingest

import (
	"bytes"
	"errors"
	"io"

	"github.com/maestro-conductor/maestro/index"
)

// record is the bytes of one JSON object or array, or what is wrong where one should be.
type record struct {
	// content is valid until the next call of next.
	content []byte
	line    int
	fault   *index.DocumentError
}

// framer cuts a stream into records without knowing their meaning. It follows the structure
// of JSON closely enough to notice, at the first byte that does not fit, that a record is
// broken; then it goes on with the next line, so that a broken line of JSON lines costs that
// line only. When the broken record spans lines it goes on with the next line that begins
// with a bracket, so that the inside of broken pretty-printed JSON is not taken for records.
type framer struct {
	r    io.Reader
	most int
	// buf[pos:] is read but not consumed; line is the line of buf[pos].
	buf  []byte
	pos  int
	line int
	// ended is set once r has nothing more; failed is its error if it was not io.EOF.
	ended  bool
	failed error
	begun  bool
}

func newFramer(r io.Reader, most int) *framer {
	return &framer{r: r, most: most, line: 1}
}

// next returns the next record; the error is io.EOF after the last, or one of the reader.
func (f *framer) next() (record, error) {
	if !f.begun {
		f.begun = true
		if fault := f.begin(); fault != nil {
			return record{line: 1, fault: fault}, nil
		}
	}
	f.skipSpace()
	if _, ok := f.at(f.pos); !ok {
		return record{}, f.end()
	}
	start, line := f.pos, f.line
	var s structure
	for i := start; ; i++ {
		c, ok := f.at(i)
		// Making room in at moves the bytes from pos on to the front.
		i -= start - f.pos
		start = f.pos
		if !ok && f.failed != nil {
			return record{}, f.end()
		}
		if i-start >= f.most {
			f.resume(i)
			return record{line: line, fault: refusal(ReasonRecordTooLarge, "", "the record is larger than the %d bytes allowed; split it, one document to a line", f.most)}, nil
		}
		verdict := broken
		if ok {
			verdict = s.step(c)
		}
		switch verdict {
		case complete:
			content := f.buf[start : i+1]
			f.line += bytes.Count(content, []byte{'\n'})
			f.pos = i + 1
			return record{content: content, line: line}, nil
		case broken:
			fault := f.fault(&s, i, ok)
			f.resume(i)
			return record{line: line, fault: fault}, nil
		}
	}
}

// begin refuses what is not text at all and skips a byte order mark.
func (f *framer) begin() *index.DocumentError {
	f.at(511)
	head := f.buf[:min(len(f.buf), 512)]
	if bytes.IndexByte(head, 0) >= 0 || bytes.HasPrefix(head, []byte{0x1f, 0x8b}) || bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		f.buf, f.pos, f.ended = nil, 0, true
		return refusal(ReasonRecordMalformed, "", "the content is binary, not JSON in UTF-8; decompress or convert it first")
	}
	if bytes.HasPrefix(head, []byte("\xef\xbb\xbf")) {
		f.pos = 3
	}
	return nil
}

// at returns byte i of the buffer, reading on where needed. Before it grows the buffer it
// drops what was consumed; i then means another byte, which callers correct for by pos.
func (f *framer) at(i int) (byte, bool) {
	for i >= len(f.buf) && !f.ended {
		if f.pos > 0 {
			i -= f.pos
			f.buf = f.buf[:copy(f.buf, f.buf[f.pos:])]
			f.pos = 0
		}
		f.fill()
	}
	if i < len(f.buf) {
		return f.buf[i], true
	}
	return 0, false
}

func (f *framer) fill() {
	const chunk = 64 << 10
	if cap(f.buf)-len(f.buf) < chunk {
		f.buf = append(make([]byte, 0, 2*cap(f.buf)+chunk), f.buf...)
	}
	n, err := f.r.Read(f.buf[len(f.buf) : len(f.buf)+chunk])
	f.buf = f.buf[:len(f.buf)+n]
	if err != nil {
		f.ended = true
		if !errors.Is(err, io.EOF) {
			f.failed = err
		}
	}
}

func (f *framer) end() error {
	if f.failed != nil {
		return f.failed
	}
	return io.EOF
}

func (f *framer) skipSpace() {
	for {
		c, ok := f.at(f.pos)
		if !ok || c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return
		}
		f.consume(c)
	}
}

func (f *framer) consume(c byte) {
	if c == '\n' {
		f.line++
	}
	f.pos++
}

// fault says what is wrong with the record that broke at byte i.
func (f *framer) fault(s *structure, i int, more bool) *index.DocumentError {
	offset := i - f.pos
	switch {
	case !more:
		return refusal(ReasonRecordMalformed, "", "the JSON value is cut off: the content ends inside it, after %d bytes", offset)
	case s.idle():
		return refusal(ReasonRecordMalformed, "", "a record is a JSON object or an array of objects; this begins with %q", shorten(string(firstLine(f.buf[i:]))))
	case s.inString && f.buf[i] == '\n':
		return refusal(ReasonRecordMalformed, "", "the JSON value is cut off: the line ends inside a string, after %d bytes", offset)
	case s.depth() >= maxDepth:
		return refusal(ReasonRecordMalformed, "", "the JSON value is nested more than %d deep", maxDepth)
	}
	return refusal(ReasonRecordMalformed, "", "not valid JSON: unexpected %q after %d bytes", f.buf[i], offset)
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b[:min(len(b), 100)], []byte{'\n'})
	return bytes.TrimRight(line, "\r")
}

// resume consumes the broken record's first line and, if it broke on a later line, further
// lines up to one that begins with a bracket.
func (f *framer) resume(at int) {
	spans := bytes.IndexByte(f.buf[f.pos:min(at, len(f.buf))], '\n') >= 0
	f.skipLine()
	for spans {
		c, ok := f.at(f.pos)
		if !ok || c == '{' || c == '[' {
			return
		}
		f.skipLine()
	}
}

func (f *framer) skipLine() {
	for {
		c, ok := f.at(f.pos)
		if !ok {
			return
		}
		f.consume(c)
		if c == '\n' {
			return
		}
	}
}
