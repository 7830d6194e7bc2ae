package mwpkg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Every manifest that is wrong is refused, for the reason that is documented.
func TestBadManifests(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct {
		id, what         string
		old, replacement string // in goodManifest
		code             Code
	}{
		{"M02", "a key twice", "kind: WorkflowPackage", "kind: WorkflowPackage\nkind: WorkflowPackage", CodeManifest},
		{"M02", "an input twice", "  minutes:", "  dsn: {type: secretRef}\n  minutes:", CodeManifest},
		{"M03", "an anchor", "title: Restores", "title: &a Restores", CodeManifest},
		{"M03", "an alias", "description: A drill.", "description: *a", CodeManifest},
		{
			"M03", "aliases that multiply", "tables: {type: array, items: {type: string}, default: [users]}",
			"tables: {type: array, items: {type: string}, default: [&a [x, x], &b [*a, *a], &c [*b, *b], [*c, *c]]}", CodeManifest,
		},
		{"M04", "two documents", "examples: [examples/minimal.yaml]\n", "examples: [examples/minimal.yaml]\n---\nkind: other\n", CodeManifest},
		{"M04", "nothing", goodManifest, "", CodeManifest},
		{"M05", "a binary", "title: Restores a backup and looks at it", "title: !!binary aGVsbG8=", CodeManifest},
		{"M05", "a tag on a number", "minimum: 1", "minimum: !!float 1", CodeManifest},
		{"M05", "a tag of somebody", "default: 30", "default: !python/object 30", CodeManifest},
		{"M05", "a merge key", "inputs:\n", "inputs:\n  <<: {more: {type: string}}\n", CodeManifest},
		{"M06", "an unknown field", "license:", "licence:", CodeManifest},
		{"M06", "an unknown field of a step", "      needs: [check]", "      neds: [check]", CodeManifest},
		{"M06", "another version of the format", "pkg/v1", "pkg/v2", CodeManifest},
		{"M06", "another kind", "WorkflowPackage", "Workflow", CodeManifest},
		{"M06", "a list where a text belongs", "title: Restores a backup and looks at it", "title: [a]", CodeManifest},
		{"M07", "a version with v", "version: 0.1.0", "version: v0.1.0", CodeVersion},
		{"M07", "a version of two numbers", "version: 0.1.0", "version: '0.1'", CodeVersion},
		{"M07", "build metadata", "version: 0.1.0", "version: 0.1.0+build", CodeVersion},
		{"M07", "a zero in front", "version: 0.1.0", "version: 0.01.0", CodeVersion},
		{"M07", "a zero in front of a pre-release", "version: 0.1.0", "version: 0.1.0-01", CodeVersion},
		{"M07", "a huge number", "version: 0.1.0", "version: 0.1.99999999999999999999", CodeVersion},
		{"M07", "no version", "version: 0.1.0", "version: ''", CodeVersion},
		{"M08", "a letter that looks like another", "name: acme/restore-drill", "name: acme/rest\u043ere-drill", CodeName},
		{"M08", "a reserved name", "name: acme/restore-drill", "name: acme/con", CodeName},
		{"M08", "upper case", "name: acme/restore-drill", "name: Acme/restore-drill", CodeName},
		{"M08", "two publishers", "name: acme/restore-drill", "name: acme/team/restore-drill", CodeName},
		{"M08", "a way up", "name: acme/restore-drill", "name: acme/..", CodeName},
		{"M08", "an endless name", "name: acme/restore-drill", "name: acme/" + strings.Repeat("x", 77), CodeName},
		{"M08", "a hyphen in front", "name: acme/restore-drill", "name: acme/-drill", CodeName},
		{"M09", "an image by tag", "      outputs: [rows]", "      outputs: [rows]\n      image: ghcr.io/acme/tool:latest", CodeDigest},
		{"M09", "an image by tag and digest of another kind", "      outputs: [rows]", "      outputs: [rows]\n      image: ghcr.io/acme/tool@sha512:00", CodeDigest},
		{"M09", "a dependency without digest", "examples:", "dependencies: [{name: acme/notify, version: 1.2.0}]\nexamples:", CodeDigest},
		{"M09", "a dependency by range", "examples:", "dependencies: [{name: acme/notify, version: ^1.2.0, digest: '" + digest + "'}]\nexamples:", CodeVersion},
		{"M09", "a dependency on itself", "examples:", "dependencies: [{name: acme/restore-drill, version: 0.0.9, digest: '" + digest + "'}]\nexamples:", CodeManifest},
		{"M10", "a network that is not declared", `network: {egress: ["db.example.com:5432"]}`, "network: {}", CodeUndeclared},
		{"M10", "another port than declared", `network: {egress: ["db.example.com:5432"]}`, `network: {egress: ["db.example.com:5433"]}`, CodeUndeclared},
		{"M10", "a secret that is not declared", "secrets: [dsn]", "secrets: []", CodeUndeclared},
		{"M10", "a program that is not declared", "commands: [sh]", "commands: []", CodeUndeclared},
		{"M10", "a network that nothing uses", `network: {egress: ["db.example.com:5432"]}`, `network: {egress: ["db.example.com:5432", "*:443"]}`, CodeUnused},
		{"M10", "a secret that nothing uses", "secrets: [dsn]", "secrets: [dsn, database]", CodeUnused},
		{"M10", "a program that nothing runs", "commands: [sh]", "commands: [sh, psql]", CodeUnused},
		{"M10", "egress without a port", "db.example.com:5432", "db.example.com", CodeManifest},
		{"M11", "a key of AWS", "description: A drill.", "description: AKIAIOSFODNN7EXAMPLE", CodeSecret},
		{"M11", "a token of GitHub", "description: A drill.", "description: ghp_" + strings.Repeat("a1", 18), CodeSecret},
		{"M11", "a URL with a password", `DSN: "${inputs.dsn}"`, `DSN: "postgres://app:hunter2@db/shop"`, CodeSecret},
		{"M11", "a private key", "description: A drill.", "description: |\n    -----BEGIN PRIVATE KEY-----\n    AAAA", CodeSecret},
		{"M11", "a password as a variable", `TABLES: "${inputs.tables}"`, "DB_PASSWORD: hunter2", CodeSecret},
		{"M11", "a secret with a default", "dsn: {type: secretRef, required: true}", "dsn: {type: secretRef, default: drills/shop}", CodeSecret},
		{"M12", "a placeholder as a default", "required: true, pattern", "default: '${inputs.dsn}', pattern", CodeExpression},
		{"M12", "a foreign placeholder as a default", "required: true, pattern", "default: '${{ secrets.X }}', pattern", CodeExpression},
		{"M12", "a placeholder in a default list", "default: [users]", "default: ['${steps.restore.rows}']", CodeExpression},
		{"M12", "a placeholder within a text", `"${inputs.database}"]`, `"db=${inputs.database}"]`, CodeExpression},
		{"M12", "a value as a program", `run: [sh, restore.sh, "${inputs.database}"]`, `run: ["${inputs.database}", restore.sh]`, CodeManifest},
		{"M12", "a value as a script", `run: [sh, restore.sh, "${inputs.database}"]`, `run: [sh, -ec, "${inputs.database}"]`, CodeExpression},
		{"M12", "a value as SQL", `run: [sh, restore.sh, "${inputs.database}"]`, `run: [sh, --command, "${inputs.database}"]`, CodeExpression},
		{"M12", "a secret as an argument", `"${inputs.database}"]`, `"${inputs.dsn}"]`, CodeExpression},
		{"M12", "a secret in a condition", "steps.restore.ok", `inputs.dsn == "x"`, CodeExpression},
		{"M12", "a program in a condition", "steps.restore.ok", "system(1)", CodeExpression},
		{"M13", "a description of a megabyte", "description: A drill.", "description: " + strings.Repeat("x ", 512<<10), CodeManifest},
		{"M13", "a description above its bound", "description: A drill.", "description: " + strings.Repeat("x ", 3000), CodeManifest},
		{"M13", "a title of two lines", "title: Restores", "title: |\n    a\n    b\n  x: Restores", CodeManifest},
		{"M13", "lists in lists without end", "default: [users]", "default: " + strings.Repeat("[", 20000) + strings.Repeat("]", 20000), CodeManifest},
		{"M14", "a range that nothing is in", ">=0.4.0 <1.0.0", ">=1.0.0 <0.4.0", CodeEngine},
		{"M14", "a range between one version", ">=0.4.0 <1.0.0", ">1.0.0 <=1.0.0", CodeEngine},
		{"M14", "two versions at once", ">=0.4.0 <1.0.0", "=1.0.0 =1.0.1", CodeEngine},
		{"M14", "another kind of range", ">=0.4.0 <1.0.0", "^1.0.0", CodeEngine},
		{"M14", "no range", `">=0.4.0 <1.0.0"`, "''", CodeEngine},
	} {
		t.Run(c.id+" "+c.what, func(t *testing.T) {
			if !strings.Contains(goodManifest, c.old) {
				t.Fatalf("the good manifest has no %s", c.old)
			}
			text := strings.Replace(goodManifest, c.old, c.replacement, 1)
			began := cpuTime(t)
			_, err := ParseManifest([]byte(text))
			if took := cpuTime(t) - began; took.Seconds() > 1 {
				t.Errorf("it took %v of processor time", took)
			}
			wantOneOf(t, err, c.code)
			files := goodFiles()
			files[ManifestPath] = text
			_, err = Build(folder(files))
			wantOneOf(t, err, c.code)
		})
	}
}

// wantOneOf fails unless one of the problems has the code.
func wantOneOf(t *testing.T, err error, code Code) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !slices.ContainsFunc(e.Problems, func(p *Error) bool { return p.Code == code }) && e.Code != code {
		t.Fatalf("refused with %v, want the code %s", err, code)
	}
}

// M01: what a package is called is in what was signed; file names and requests have to agree with it.
func TestM01NamesMustAgree(t *testing.T) {
	p := build(t, goodFiles())
	for _, base := range []string{
		"acme-restore-drill-0.1.1.mwpkg.tgz", "restore-drill-0.1.0.mwpkg.tgz", "acme-restore-drill-0.1.0.tgz", "acme-restore-drill-0.1.0.mwpkg.tgz.1", "",
	} {
		wantCode(t, p.CheckFilename(base), CodeFilename)
	}
	if err := p.CheckRef(Ref{"acme/restore-drill", "0.1.0"}); err != nil {
		t.Error(err)
	}
	for _, ref := range []Ref{{"acme/restore-drill", "0.1.1"}, {"restore-drill", "0.1.0"}, {}} {
		wantCode(t, p.CheckRef(ref), CodeFilename)
	}
}

// M15: a README is shown to people, so nothing in it may run.
func TestM15Readme(t *testing.T) {
	for what, text := range map[string]string{
		"a script":              "# x\n<script>alert(1)</script>",
		"a script in capitals":  "# x\n<SCRIPT src=x>",
		"a handler":             `<img src=x onerror=alert(1)>`,
		"a frame":               "<iframe src=//x>",
		"a drawing":             "<svg/onload=x>",
		"a link that runs":      "[x](javascript:alert(1))",
		"a link to a page":      "[x](data:text/html,<b>)",
		"a style":               "<style>*{}</style>",
		"a control character":   "# x\x1b[2J",
		"text that turns round": "# x\u202e",
		"not UTF-8":             "# \xff",
		"nothing":               " \n",
		"half a megabyte":       strings.Repeat("word ", 100<<10),
	} {
		t.Run(what, func(t *testing.T) {
			files := goodFiles()
			files[ReadmePath] = text
			_, err := Build(folder(files))
			wantCode(t, err, CodeReadme)
		})
	}
	files := goodFiles()
	files[ReadmePath] = "# Good\n\nUse `<name>` and <https://example.com>; see [the form](form.md), x < script.\n"
	build(t, files)
	delete(files, ReadmePath)
	_, err := Build(folder(files))
	wantCode(t, err, CodeFileMissing)
}

// References must resolve: to what is declared, and to what has ended before.
func TestBadReferences(t *testing.T) {
	for _, c := range []struct {
		what, old, replacement string
		code                   Code
	}{
		{"an input that is not there", "${inputs.database}", "${inputs.databse}", CodeReference},
		{"an output that is not declared", "${steps.restore.rows}", "${steps.restore.lines}", CodeReference},
		{"a status as a value", "${steps.restore.rows}", "${steps.restore.ok}", CodeReference},
		{"a step that is not needed", "      needs: [restore]\n", "", CodeReference},
		{"a step that comes later", "steps.restore.ok", "steps.drop.ok", CodeReference},
		{"a step that is not there", "needs: [restore]", "needs: [restor]", CodeReference},
		{"a circle", "    - id: restore\n", "    - id: restore\n      needs: [drop]\n", CodeReference},
		{"itself", "needs: [restore]", "needs: [check]", CodeReference},
		{"an output of no step", "from: steps.check.restored", "from: steps.check.rows", CodeReference},
		{"an output of an input", "from: steps.check.restored", "from: inputs.database", CodeReference},
		{"a step twice", "id: drop", "id: check", CodeManifest},
		{"an output called ok", "outputs: [rows]", "outputs: [rows, ok]", CodeManifest},
		{"a variable of the runner", "env: {DSN:", "env: {LD_PRELOAD: x.so, DSN:", CodeManifest},
		{"a program by path", "run: [sh, drop.sh]", "run: [./drop.sh]", CodeManifest},
		{"no program", "run: [sh, drop.sh]", "run: []", CodeManifest},
		{"a retry without end", "max: 2", "max: 1000", CodeManifest},
		{"a timeout above that of the run", "timeout: 10m", "timeout: 31m", CodeManifest},
		{"no timeout", ", timeout: 30m", "", CodeManifest},
		{"a pattern that is none", "'^[a-z]+$'", "'('", CodeInput},
		{"a default outside of its bounds", "default: 30", "default: 61", CodeInput},
		{"a default of another type", "default: 30", "default: many", CodeInput},
		{"a bound of another type", "minutes: {type: integer,", "minutes: {type: integer, minLength: 3,", CodeInput},
		{"a type that is none", "type: boolean, from", "type: bool, from", CodeInput},
		{"an array of nothing", "items: {type: string}, ", "", CodeInput},
		{"an example that is not there", "examples/minimal.yaml", "examples/other.yaml", CodeFileUnlisted},
		{"no example", "[examples/minimal.yaml]", "[]", CodeManifest},
		{"an example outside of its folder", "[examples/minimal.yaml]", "[examples/minimal.yaml, ../x.yaml]", CodeManifest},
	} {
		t.Run(c.what, func(t *testing.T) {
			if !strings.Contains(goodManifest, c.old) {
				t.Fatalf("the good manifest has no %s", c.old)
			}
			files := goodFiles()
			files[ManifestPath] = strings.Replace(goodManifest, c.old, c.replacement, 1)
			_, err := Build(folder(files))
			wantOneOf(t, err, c.code)
		})
	}
}

// Examples fit the manifest that they are examples of.
func TestBadExamples(t *testing.T) {
	for _, c := range [][3]string{
		{"an input that is not there", "database: shop", "databse: shop"},
		{"a required input that is absent", "database: shop, ", ""},
		{"a value that does not fit", "database: shop", "database: SHOP"},
		{"a secret without a value", "secrets: {dsn: invented}\n", ""},
		{"a value for no secret", "dsn: invented", "database: invented"},
		{"a status that is none", "status: succeeded", "status: green"},
		{"a step that is not there", "restore: succeeded,", "restor: succeeded,"},
		{"a status of a step that is none", "restore: succeeded,", "restore: yes,"},
		{"an output that is not there", "restored: true", "restord: true"},
		{"an output of another type", "restored: true", "restored: maybe"},
		{"no title", "title: A small database\n", ""},
		{"an unknown field", "title:", "tilte:"},
	} {
		t.Run(c[0], func(t *testing.T) {
			files := goodFiles()
			files["examples/minimal.yaml"] = strings.Replace(goodExample, c[1], c[2], 1)
			_, err := Build(folder(files))
			wantOneOf(t, err, CodeExample)
		})
	}
	p := build(t, goodFiles())
	if e := p.Examples[0]; e.Title != "A small database" || e.Expect.Status != StatusSucceeded || e.Secrets["dsn"] != "invented" {
		t.Errorf("the example is %+v", e)
	}
}

// All that is wrong is told at once, each with its place.
func TestEveryProblemIsTold(t *testing.T) {
	text := strings.NewReplacer("version: 0.1.0", "version: 1", "secrets: [dsn]", "secrets: []", "needs: [restore]", "needs: [x]").Replace(goodManifest)
	_, err := ParseManifest([]byte(text))
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) < 3 {
		t.Fatalf("problems %v of %v", e.Problems, err)
	}
	all := fmt.Sprint(e.Problems)
	for _, place := range []string{"metadata.version", "steps.check.needs", "capabilities.secrets"} {
		if !strings.Contains(all, place) {
			t.Errorf("%s is not among %s", place, all)
		}
	}
}
