// Package script runs golden tests that read like a session: files of commands, each followed
// by the answer that is expected.
//
//	# A comment.
//	check acme t k 1
//	more input of the same command
//	----
//	allow
//
// Run the tests with -rewrite to put the actual answers in.
package script

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "put the actual answers into the golden files")

// Run executes every file that matches glob as a subtest. start makes what one file talks to:
// a function that gets a command's words and the lines below it, and returns the answer.
func Run(t *testing.T, glob string, start func(t *testing.T) func(words []string, input string) string) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files match %s (%v)", glob, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runFile(t, file, start(t)) })
	}
}

func runFile(t *testing.T, file string, execute func(words []string, input string) string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		command, want, found := strings.Cut(strings.TrimSpace(block), "\n----")
		comments, command := splitComments(command)
		out.WriteString(comments)
		if command == "" {
			out.WriteString("\n")
			continue
		}
		line, input, _ := strings.Cut(command, "\n")
		got := strings.TrimSpace(execute(strings.Fields(line), input))
		if want = strings.TrimSpace(want); !*rewrite && (got != want || !found) {
			t.Errorf("%s: %s\ngot:\n%s\nwant:\n%s", file, line, got, want)
		}
		out.WriteString(command + "\n----\n" + got + "\n\n")
	}
	if *rewrite {
		if err := os.WriteFile(file, append(bytes.TrimSpace(out.Bytes()), '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func splitComments(block string) (comments, rest string) {
	for strings.HasPrefix(block, "#") {
		line, after, _ := strings.Cut(block, "\n")
		comments += line + "\n"
		block = after
	}
	return comments, block
}
