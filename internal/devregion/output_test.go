package devregion

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a node says last is known also when its log cannot be written.
func TestLastWordsSurviveAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	o := &output{log: log}
	write := func(line string) {
		if n, err := o.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("%d of %d bytes, %v", n, len(line), err)
		}
	}
	write(strings.Repeat("many words\n", outputKept))
	write("before\n")
	if got := o.end(1); got != "before" {
		t.Errorf("%q", got)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(data), "before\n") {
		t.Errorf("the log has %d bytes, %v", len(data), err)
	}
	if err := log.Close(); err != nil { // as good as full
		t.Fatal(err)
	}
	write("no room\n")
	if got := o.end(2); !strings.HasPrefix(got, "no room\n") || !strings.Contains(got, "not all of it is in the log") {
		t.Errorf("%q", got)
	}
	if len(o.last) > outputKept {
		t.Errorf("%d bytes are kept", len(o.last))
	}
}
