package index

import (
	"crypto/sha256"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/maestro-conductor/maestro/index/query"
)

// A term is a group, which names the field, followed by a value. Groups are one byte, or
// 'a', the name and NUL for an attribute, so that no group is the beginning of another.
// They are part of the segment format.
const (
	groupAttribute = "a"
	groupCurrency  = "c"
	groupDecision  = "d"
	groupExecution = "e"
	groupID        = "i"
	groupInput     = "1"
	groupKind      = "k"
	groupOutput    = "2"
	groupPack      = "p"
	groupReason    = "w" // lower-case words
	groupRegion    = "g"
	groupRule      = "r"
	groupRunner    = "n"
	groupSubject   = "3"
	groupTask      = "s"
	groupTenant    = "t"
)

// fieldGroups maps the fields that are compared as they are.
var fieldGroups = map[query.Field]string{
	query.ID: groupID, query.Kind: groupKind, query.Tenant: groupTenant, query.Region: groupRegion,
	query.Execution: groupExecution, query.Task: groupTask, query.Pack: groupPack, query.Rule: groupRule,
	query.Decision: groupDecision, query.Runner: groupRunner, query.Currency: groupCurrency,
}

func attributeGroup(name string) string { return groupAttribute + name + "\x00" }

// digestGroups are where a digest of a direction is found; a digest in any direction is in
// one of them.
func directionGroup(direction string) string {
	switch direction {
	case DirectionInput:
		return groupInput
	case DirectionOutput:
		return groupOutput
	}
	return groupSubject
}

// Values longer than valueBytesMax are indexed as their first valuePrefixBytes, the byte
// 0xFF, which no UTF-8 has, and their SHA-256.
const (
	valueBytesMax    = 256
	valuePrefixBytes = valueBytesMax + 1 - 1 - sha256.Size
)

// appendValue appends the indexed form of a value.
func appendValue(b []byte, value string) []byte {
	if len(value) <= valueBytesMax {
		return append(b, value...)
	}
	sum := sha256.Sum256([]byte(value))
	return append(append(append(b, value[:valuePrefixBytes]...), 0xFF), sum[:]...)
}

// appendDigestValue puts the algorithm last, so that a prefix of the hex finds the digest
// whatever its algorithm.
func appendDigestValue(b []byte, algorithm, hexValue string) []byte {
	return append(append(append(b, hexValue...), ':'), algorithm...)
}

// nextWord cuts the first word off a text: a run of letters, digits and _ - . that begins
// and ends with a letter or digit. It is "" when there is none left.
func nextWord(text string) (word, rest string) {
	start := strings.IndexFunc(text, letterOrDigit)
	if start < 0 {
		return "", ""
	}
	end := start
	for i, r := range text[start:] {
		if letterOrDigit(r) {
			end = start + i + utf8.RuneLen(r)
		} else if r != '_' && r != '-' && r != '.' {
			break
		}
	}
	return text[start:end], text[end:]
}

func letterOrDigit(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// words lists the words of a text in lower case.
func words(text string) []string {
	var out []string
	for word, rest := nextWord(text); word != ""; word, rest = nextWord(rest) {
		out = append(out, strings.ToLower(word))
	}
	return out
}
