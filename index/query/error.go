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

// editDistance counts the insertions, deletions and replacements of bytes between two words
// (Levenshtein 1966).
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
