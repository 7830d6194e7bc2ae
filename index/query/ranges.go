package query

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// span is the integers that a literal stands for, [from, to]: a date is a whole day, an
// instant or an amount is one value.
type span struct{ from, to int64 }

// interval is a closed range of integers.
type interval struct{ min, max int64 }

// ranged reads what follows "time:" or "cost:".
func (p *parser) ranged(field Field, start int) (Node, error) {
	read := timeLiteral
	if field == Cost {
		read = costLiteral
	}
	r, err := p.interval(field, read)
	if err != nil {
		return nil, err
	}
	if field == Cost {
		return &CostRange{Min: r.min, Max: r.max, Position: start}, nil
	}
	to := r.max
	if to != math.MaxInt64 {
		to++
	}
	return &TimeRange{From: r.min, To: to, Position: start}, nil
}

type literal func(text string) (span, *Error)

func (p *parser) interval(field Field, read literal) (interval, error) {
	all := interval{math.MinInt64, math.MaxInt64}
	if p.peek() == '[' {
		return p.bracketed(field, read)
	}
	op := ""
	for _, o := range []string{">=", "<=", ">", "<"} {
		if strings.HasPrefix(string(p.text[p.at:min(p.at+2, len(p.text))]), o) {
			op = o
			p.at += len(o)
			break
		}
	}
	at := p.at
	text, star, err := p.value(string(field))
	if err != nil {
		return all, err
	}
	if text == "" {
		if star && op == "" {
			return all, nil
		}
		return all, p.fail(at, fmt.Sprintf("the value of %s is missing", field), "write it right behind, without a space")
	}
	if star {
		return all, p.fail(at, fmt.Sprintf("%s takes no prefix", field), fmt.Sprintf("write %s:[a TO b]", field))
	}
	s, bad := read(text)
	if bad != nil {
		bad.Position = at
		return all, bad
	}
	switch op {
	case ">=":
		all.min = s.from
	case ">":
		if s.to == math.MaxInt64 {
			return all, p.fail(at, "nothing is greater than this", "")
		}
		all.min = s.to + 1
	case "<=":
		all.max = s.to
	case "<":
		if s.from == math.MinInt64 {
			return all, p.fail(at, "nothing is less than this", "")
		}
		all.max = s.from - 1
	default:
		return interval{s.from, s.to}, nil
	}
	return all, nil
}

// bracketed reads [a TO b].
func (p *parser) bracketed(field Field, read literal) (interval, error) {
	start := p.at
	end := start
	for end < len(p.text) && p.text[end] != ']' {
		end++
	}
	form := fmt.Sprintf("write %s:[a TO b]", field)
	if end == len(p.text) {
		return interval{}, p.fail(start, "this bracket is not closed", form)
	}
	inside := string(p.text[start+1 : end])
	ends := strings.Fields(inside)
	if len(ends) != 3 || ends[1] != "TO" {
		return interval{}, p.fail(start, "a range has two ends with TO between", form)
	}
	p.at = end + 1
	if !p.end() && !breaksWord(p.peek()) {
		return interval{}, p.fail(p.at, "text follows the closing bracket", "put a space between")
	}
	r := interval{math.MinInt64, math.MaxInt64}
	if ends[0] != "*" {
		s, bad := read(ends[0])
		if bad != nil {
			bad.Position = start + 1
			return r, bad
		}
		r.min = s.from
	}
	if ends[2] != "*" {
		s, bad := read(ends[2])
		if bad != nil {
			bad.Position = start + 1
			return r, bad
		}
		if r.max = s.from; field == Time { // the end of a range of time is not part of it
			if s.from == math.MinInt64 {
				return r, p.fail(start, "nothing is before this", "")
			}
			r.max = s.from - 1
		}
	}
	if r.min > r.max && (field != Time || r.min-1 != r.max) {
		return r, p.fail(start, "the range ends before it begins", "exchange its ends")
	}
	return r, nil
}

// timeLiteral reads a date, which is a whole day, or an instant.
func timeLiteral(text string) (span, *Error) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		if from, to := t.UnixNano(), t.AddDate(0, 0, 1).UnixNano()-1; representable(t) && from < to {
			return span{from, to}, nil
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, text); err == nil && representable(t) {
			return span{t.UnixNano(), t.UnixNano()}, nil
		}
	}
	return span{}, &Error{
		Message:    fmt.Sprintf("%q is not a time between 1678 and 2262", text),
		Suggestion: "write 2023-07-10 or 2023-07-10T12:00:00Z",
	}
}

// representable tells whether nanoseconds since 1970 can express t.
func representable(t time.Time) bool {
	return !t.Before(time.Unix(0, math.MinInt64)) && !t.After(time.Unix(0, math.MaxInt64))
}

// costLiteral reads a decimal number with at most six decimals as exact millionths.
func costLiteral(text string) (span, *Error) {
	bad := &Error{Message: fmt.Sprintf("%q is not an amount", text), Suggestion: "write a number with at most six decimals, such as 0.25"}
	unsigned, negative := strings.CutPrefix(text, "-")
	whole, frac, dot := strings.Cut(unsigned, ".")
	if !digits(whole) || dot && !digits(frac) || len(frac) > 6 {
		return span{}, bad
	}
	sign := ""
	if negative {
		sign = "-"
	}
	v, err := strconv.ParseInt(sign+whole+(frac + "000000")[:6], 10, 64)
	if err != nil {
		bad.Message = fmt.Sprintf("%q is too large an amount", text)
		return span{}, bad
	}
	return span{v, v}, nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
