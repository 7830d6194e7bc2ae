package mwpkg

import (
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

var (
	namePart  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	versionRe = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-[0-9a-z]([0-9a-z.-]{0,30}[0-9a-z])?)?$`)
)

// maxName bounds a package name, so that its file name fits everywhere.
const maxName = 80

// CheckName refuses what is not [publisher/]name: lower-case ASCII letters, digits and hyphens.
func CheckName(name string) error {
	parts := strings.Split(name, "/")
	if len(parts) > 2 || len(name) > maxName {
		return refuse(CodeName, "", "%s is not [publisher/]name with at most %d characters", quoted(name), maxName)
	}
	for _, part := range parts {
		if !namePart.MatchString(part) || strings.Contains(part, "--") {
			return refuse(CodeName, "", "%s is no package name: publisher and name are lower-case letters, digits and single hyphens between them", quoted(name))
		}
		if slices.Contains(devices, part) {
			return refuse(CodeName, "", "%s is reserved: some systems take it for a device", quoted(part))
		}
	}
	return nil
}

// CheckVersion refuses what is not MAJOR.MINOR.PATCH[-PRERELEASE] of Semantic Versioning 2.0.0, in lower
// case, without "v" and without build metadata, which order of versions ignores.
func CheckVersion(version string) error {
	if !versionRe.MatchString(version) || !semver.IsValid("v"+version) {
		return refuse(CodeVersion, "", "%s is no version such as 0.1.0 or 1.0.0-rc.1, without v and build metadata", quoted(version))
	}
	return nil
}

// CompareVersions orders versions by their precedence: negative when a is before b.
func CompareVersions(a, b string) int { return semver.Compare("v"+a, "v"+b) }

// ParseRef reads NAME@VERSION.
func ParseRef(text string) (Ref, error) {
	name, version, ok := strings.Cut(text, "@")
	if !ok {
		return Ref{}, refuse(CodeName, "", "%s is not NAME@VERSION", quoted(text))
	}
	if err := CheckName(name); err != nil {
		return Ref{}, err
	}
	return Ref{name, version}, CheckVersion(version)
}

// bound is one comparison of a range.
type bound struct{ op, version string }

var boundRe = regexp.MustCompile(`^(>=|<=|>|<|=)(.+)$`)

// parseRange reads comparisons that must all hold, such as ">=0.4.0 <1.0.0".
func parseRange(text string) ([]bound, error) {
	var bounds []bound
	var low, high *bound
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > 8 {
		return nil, refuse(CodeEngine, "", "%s is not a range such as \">=0.4.0 <1.0.0\"", quoted(text))
	}
	for _, word := range words {
		m := boundRe.FindStringSubmatch(word)
		if m == nil || CheckVersion(m[2]) != nil {
			return nil, refuse(CodeEngine, "", "%s is not one of >=, >, <=, <, = and a version", quoted(word))
		}
		b := bound{m[1], m[2]}
		bounds = append(bounds, b)
		if b.op != "<" && b.op != "<=" && (low == nil || tighter(b, *low, 1)) {
			low = &b
		}
		if b.op != ">" && b.op != ">=" && (high == nil || tighter(b, *high, -1)) {
			high = &b
		}
	}
	if low != nil && high != nil {
		c := CompareVersions(low.version, high.version)
		if c > 0 || c == 0 && (low.op == ">" || high.op == "<") {
			return nil, refuse(CodeEngine, "", "no version is in the range %s", quoted(text))
		}
	}
	return bounds, nil
}

// tighter says whether b leaves less than other, as the lower bound (sign 1) or the upper one (-1).
func tighter(b, other bound, sign int) bool {
	c := sign * CompareVersions(b.version, other.version)
	return c > 0 || c == 0 && (b.op == ">" || b.op == "<")
}

// RunsOn says whether a version of Maestro is in the manifest's engine range.
func (m *Manifest) RunsOn(version string) bool {
	bounds, err := parseRange(m.Engine)
	for _, b := range bounds {
		c := CompareVersions(version, b.version)
		switch b.op {
		case ">=":
			c = min(c, 0) + 1
		case ">":
		case "<=":
			c = 1 - max(c, 0)
		case "<":
			c = -c
		case "=":
			c = 1 - c*c
		}
		if c <= 0 {
			return false
		}
	}
	return err == nil
}
