package mwpkg

import (
	"errors"
	"fmt"
	"strconv"
)

// Code says in one stable word why a package, manifest, signature or key was refused. Codes are
// part of the format: they are listed in docs/packages.md and never change their meaning.
type Code string

// Error is a refusal.
type Error struct {
	Code Code
	// Subject is what was refused: a path in the package, a key id, a place in the manifest. It may be empty.
	Subject string
	// Detail says what is wrong, and Hint, where there is one, what to do.
	Detail string
	Hint   string
	// Problems are all that is wrong with a manifest, when it is more than one thing; Code and
	// Detail are those of the first.
	Problems []*Error
}

func (e *Error) Error() string {
	text := e.Detail
	if e.Subject != "" {
		text = e.Subject + ": " + text
	}
	if n := len(e.Problems); n > 1 {
		text = fmt.Sprintf("%s (and %d more)", text, n-1)
	}
	return fmt.Sprintf("mwpkg: %s (%s)", text, e.Code)
}

// Is makes errors.Is(err, &Error{Code: c}) true for every refusal with that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Subject == "" && t.Detail == ""
}

func refuse(code Code, subject, format string, args ...any) *Error {
	return &Error{Code: code, Subject: subject, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// maxQuoted bounds what is shown of hostile text, in bytes.
const maxQuoted = 80

// quoted shows text that may be anything.
func quoted(text string) string {
	if len(text) > maxQuoted {
		return strconv.QuoteToASCII(text[:maxQuoted]) + "..."
	}
	return strconv.QuoteToASCII(text)
}

func isCode(err error, code Code) bool { return errors.Is(err, &Error{Code: code}) }

// problems collects all that is wrong with a text.
type problems []*Error

func (p *problems) add(code Code, subject, format string, args ...any) {
	*p = append(*p, refuse(code, subject, format, args...))
}

// take adds err, which is nil or an *Error, as a problem of subject.
func (p *problems) take(subject string, err error) {
	var e *Error
	if errors.As(err, &e) {
		if e.Subject == "" {
			e.Subject = subject
		}
		*p = append(*p, e)
	}
}

// err is nil without a problem, and otherwise the first one, which names them all.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	first := *p[0]
	first.Problems = p
	return &first
}
