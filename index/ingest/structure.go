package ingest

// maxDepth bounds how deep a record nests.
const maxDepth = 100

// verdict is what a byte means for the record it is in.
type verdict int

const (
	unfinished verdict = iota
	complete
	broken
)

// expectation is what may come next in a record.
type expectation int

const (
	expectValue expectation = iota
	expectValueOrEnd
	expectKey
	expectKeyOrEnd
	expectColon
	expectCommaOrEnd
)

// structure follows the nesting of one JSON object or array, byte by byte. It checks
// brackets, commas, colons and where strings end; what numbers, words and escapes look like
// is left to the parser that reads the complete record.
type structure struct {
	open     []byte
	expect   expectation
	inString bool
	inEscape bool
	inKey    bool
	inWord   bool
}

func (s *structure) depth() int { return len(s.open) }

// idle reports that no record has begun.
func (s *structure) idle() bool { return len(s.open) == 0 }

func (s *structure) step(c byte) verdict {
	if s.inString {
		return s.stepString(c)
	}
	if s.inWord && isWord(c) {
		return unfinished
	}
	s.inWord = false
	switch {
	case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		return unfinished
	case c == '{' || c == '[':
		return s.begin(c)
	case s.idle():
		return broken
	case c == '}' || c == ']':
		return s.end(c)
	case c == '"':
		return s.beginString()
	case c == ':' && s.expect == expectColon:
		s.expect = expectValue
	case c == ',' && s.expect == expectCommaOrEnd:
		s.expect = expectValue
		if s.open[len(s.open)-1] == '{' {
			s.expect = expectKey
		}
	case isWord(c) && s.wantsValue():
		s.inWord = true
		s.expect = expectCommaOrEnd
	default:
		return broken
	}
	return unfinished
}

func (s *structure) wantsValue() bool {
	return s.expect == expectValue || s.expect == expectValueOrEnd
}

func (s *structure) begin(c byte) verdict {
	if !s.wantsValue() || len(s.open) >= maxDepth {
		return broken
	}
	s.open = append(s.open, c)
	s.expect = expectValueOrEnd
	if c == '{' {
		s.expect = expectKeyOrEnd
	}
	return unfinished
}

func (s *structure) end(c byte) verdict {
	begun := s.open[len(s.open)-1]
	fits := s.expect == expectCommaOrEnd || s.expect == expectValueOrEnd || s.expect == expectKeyOrEnd
	if !fits || (begun == '{') != (c == '}') {
		return broken
	}
	s.open = s.open[:len(s.open)-1]
	s.expect = expectCommaOrEnd
	if len(s.open) == 0 {
		return complete
	}
	return unfinished
}

func (s *structure) beginString() verdict {
	s.inKey = s.expect == expectKey || s.expect == expectKeyOrEnd
	if !s.inKey && !s.wantsValue() {
		return broken
	}
	s.inString = true
	return unfinished
}

func (s *structure) stepString(c byte) verdict {
	switch {
	case c == '\n': // a string must escape it, so a line that ends here is cut off
		return broken
	case s.inEscape:
		s.inEscape = false
	case c == '\\':
		s.inEscape = true
	case c == '"':
		s.inString = false
		s.expect = expectCommaOrEnd
		if s.inKey {
			s.expect = expectColon
		}
	}
	return unfinished
}

// isWord reports a byte of a number or of true, false, null.
func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '+' || c == '.'
}
