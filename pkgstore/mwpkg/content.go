package mwpkg

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const examplesFolder = "examples/"

// active are parts of a README that browsers run or load when it is shown as HTML.
var active = regexp.MustCompile(`(?i)</?(script|iframe|object|embed|style|link|meta|base|form|svg|math)\b|<[^>]*\bon[a-z]+\s*=|\b(javascript|vbscript)\s*:|data:\s*text/html`)

// checkContent checks the files by what the manifest says of them.
func (p *Package) checkContent() error {
	readme, ok := p.File(ReadmePath)
	if !ok {
		return refuse(CodeFileMissing, ReadmePath, "the file is missing; every package has it")
	}
	if err := checkReadme(readme); err != nil {
		return err
	}
	for _, f := range p.Files {
		if strings.HasPrefix(f.Path, examplesFolder) && !slices.Contains(p.Manifest.Examples, f.Path) {
			return refuse(CodeFileUnlisted, quoted(f.Path), "the manifest's examples do not name the file")
		}
		if bytes.Contains(f.Data, []byte("PRIVATE KEY-----")) {
			return refuse(CodeSecret, quoted(f.Path), "the file holds a private key").hint("keep keys out of the folder of the package")
		}
	}
	for _, path := range p.Manifest.Examples {
		data, ok := p.File(path)
		if !ok {
			return refuse(CodeFileMissing, quoted(path), "the manifest's examples name the file, which is not there")
		}
		e, err := p.Manifest.parseExample(path, data)
		if err != nil {
			return err
		}
		p.Examples = append(p.Examples, *e)
	}
	return nil
}

func checkReadme(data []byte) error {
	switch {
	case len(data) > MaxReadme:
		return refuse(CodeReadme, ReadmePath, "the file has %d bytes; at most %d are allowed", len(data), MaxReadme)
	case len(bytes.TrimSpace(data)) == 0:
		return refuse(CodeReadme, ReadmePath, "the file is empty")
	case !isText(data):
		return refuse(CodeReadme, ReadmePath, "the file is not UTF-8 text")
	}
	if found := active.Find(data); found != nil {
		return refuse(CodeReadme, ReadmePath, "the file holds %s, which may run in a browser", quoted(string(found))).
			hint("write it in Markdown without such HTML")
	}
	return nil
}

// isText is true for UTF-8 without control characters but tab and ends of lines, and without
// characters that turn the order of others round.
func isText(data []byte) bool {
	if !utf8.Valid(data) {
		return false
	}
	return !bytes.ContainsFunc(data, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || 0x7f <= r && r < 0xa0 ||
			0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069
	})
}
