package mwpkg

import (
	"bytes"
	"crypto/sha256"
	"regexp"
	"slices"
	"strings"
)

// digestOf is the SHA-256 of data.
func digestOf(data []byte) Digest { return sha256.Sum256(data) }

// writeSums is SHA256SUMS of files, which are sorted by path.
func writeSums(files []File) []byte {
	var out bytes.Buffer
	for _, f := range files {
		out.WriteString(digestOf(f.Data).String())
		out.WriteString("  ")
		out.WriteString(f.Path)
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// maxSums bounds SHA256SUMS: a line for each of the most files with the longest paths.
const maxSums = MaxFiles * (64 + 2 + MaxPath + 1)

var sumsLine = regexp.MustCompile(`^[0-9a-f]{64}  [!-~]+$`)

// checkSums refuses a SHA256SUMS that is not the one of files, and says why.
func checkSums(sums []byte, files []File) error {
	if bytes.Equal(sums, writeSums(files)) {
		return nil
	}
	if len(sums) > maxSums {
		return refuse(CodeSums, SumsPath, "the file has %d bytes; at most %d are read", len(sums), maxSums)
	}
	text, ok := strings.CutSuffix(string(sums), "\n")
	if !ok {
		return refuse(CodeSums, SumsPath, "the file does not end with a line")
	}
	listed := map[string]string{}
	last := ""
	for i, line := range strings.Split(text, "\n") {
		if !sumsLine.MatchString(line) {
			return refuse(CodeSums, SumsPath, "line %d is not 64 hexadecimal digits, two spaces and a path", i+1)
		}
		sum, path, _ := strings.Cut(line, "  ")
		switch {
		case path <= last:
			return refuse(CodeSums, SumsPath, "line %d is a repetition or not in order", i+1)
		case strings.HasPrefix(path, signaturesFolder):
			return refuse(CodeSums, SumsPath, "line %d lists %s; the files of signatures are not listed", i+1, quoted(path))
		}
		listed[path], last = sum, path
		if !slices.ContainsFunc(files, func(f File) bool { return f.Path == path }) {
			return refuse(CodeFileMissing, quoted(path), "%s lists the file, which is not there", SumsPath)
		}
	}
	for _, f := range files {
		switch sum, ok := listed[f.Path]; {
		case !ok:
			return refuse(CodeFileUnlisted, quoted(f.Path), "%s does not list the file", SumsPath)
		case sum != digestOf(f.Data).String():
			return refuse(CodeSumsMismatch, quoted(f.Path), "the file is not the one that %s lists", SumsPath)
		}
	}
	return refuse(CodeSums, SumsPath, "the file is not written as it must be")
}
