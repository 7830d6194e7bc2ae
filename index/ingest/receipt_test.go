package ingest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The fields of receipts are those of the published messages, in both spellings of
// protojson. The schema is read as text: this package knows no generated code.
func TestReceiptKnowsEveryFieldOfTheSchema(t *testing.T) {
	schema, err := os.ReadFile("../../api/proto/mc/provenance/v1/provenance.proto")
	if err != nil {
		t.Fatal(err)
	}
	for message, record := range map[string]string{
		"Document": `{"kind": "event", %q: null}`,
		"Digest":   `{"kind": "event", "digests": [{%q: null}]}`,
		"Cost":     `{"kind": "event", "cost": {%q: null}}`,
	} {
		_, body, found := strings.Cut(string(schema), "\nmessage "+message+" {")
		body, _, _ = strings.Cut(body, "\n}")
		fields := regexp.MustCompile(`(?m)^  [^/]*?(\w+) = \d+;`).FindAllStringSubmatch(body, -1)
		if !found || len(fields) < 2 {
			t.Fatalf("message %s is not in the schema", message)
		}
		for _, field := range fields {
			for _, name := range []string{field[1], camelCase(field[1])} {
				if strings.Contains(record, `"`+name+`"`) {
					continue
				}
				for _, item := range readAll(t, fmt.Sprintf(record, name), Options{Tenant: "acme"}) {
					if item.Err != nil && item.Err.Reason == ReasonFieldUnknown {
						t.Errorf("%s.%s: %v", message, name, item.Err)
					}
				}
			}
		}
	}
}

func camelCase(name string) string {
	words := strings.Split(name, "_")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}
