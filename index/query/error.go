package query

import (
	"errors"
	"fmt"
	"slices"
)

// ErrInvalid is what every Error of this package is; test with errors.Is.
var ErrInvalid = errors.New("query is not valid")

// Error is a mistake in a query.
type Error struct {
	// Position is where in the text it is, in runes from 0.
	Position int
	// Message says what is wrong; Suggestion, which may be empty, how to mend it.
	Message    string
	Suggestion string
}

func (e *Error) Error() string {
	if e.Suggestion == "" {
		return fmt.Sprintf("query, character %d: %s", e.Position+1, e.Message)
	}
	return fmt.Sprintf("query, character %d: %s; %s", e.Position+1, e.Message, e.Suggestion)
}

// Unwrap makes every Error an ErrInvalid.
func (e *Error) Unwrap() error { return ErrInvalid }

// nearestField is the field name closest to a misspelt one, or "" when none is close.
func nearestField(name string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, f := range append(slices.Clone(Fields), "attr.") {
		if d := editDistance(name, string(f)); d < least {
			best, least = string(f), d
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and exchanges of neighbours
// between two words (optimal string alignment, after Damerau 1964), byte by byte.
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replace := d[i-1][j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
