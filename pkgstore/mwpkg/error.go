package mwpkg

import "fmt"

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
