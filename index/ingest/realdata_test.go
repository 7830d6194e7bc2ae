package ingest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/maestro-conductor/maestro/index"
)

// realData returns the files of a folder of real provenance data, which lies beside the
// repository and not in it.
func realData(t *testing.T, folder string) []string {
	t.Helper()
	root, err := os.Getwd()
	for err == nil && root != filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		root = filepath.Dir(root)
	}
	files, err := filepath.Glob(filepath.Join(root, "../shared/data/provenance", folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no real data: ../shared/data/provenance/%s is not beside the repository", folder)
	}
	return files
}

func readFiles(t *testing.T, files []string, opts Options) (documents []index.Document, refused []string) {
	t.Helper()
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		err = Read(file, opts, func(item Item) error {
			if item.Err != nil {
				refused = append(refused, fmt.Sprintf("%s: %s: %s: %v", filepath.Base(name), item.Position(), item.Err.Reason, item.Err))
			} else {
				documents = append(documents, item.Document)
			}
			return nil
		})
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return documents, refused
}

// The counts were made by another program: 233 statements in 220 files, 213 of them
// distinct, 80 distinct digests of subjects, 46 of materials, and one statement whose digest
// is a text where an object of algorithm and value belongs.
func TestRealAttestations(t *testing.T) {
	files := realData(t, "attestations")
	if len(files) != 220 {
		t.Fatalf("%d files, not the 220 that were counted", len(files))
	}
	for _, format := range []string{FormatAuto, FormatInToto} {
		documents, refused := readFiles(t, files, Options{Format: format, Tenant: "acme"})
		if len(documents) != 232 || len(refused) != 1 {
			t.Errorf("%s: %d documents and %d refused, want 232 and 1", format, len(documents), len(refused))
		}
		want := `verifiers_internal_gha_testdata_npm-att-publish-invalid-signature.intoto.sigstore: line 1, attestations[1]: digest_malformed: subject[0].digest: "pkg:npm/%40laurentsimon/provenance-npm-test@1.0.0": expected an object of algorithm and value, this is a string`
		if !slices.Equal(refused, []string{want}) {
			t.Errorf("%s: refused %q", format, refused)
		}
		distinct := map[string][32]byte{}
		subjects, materials := map[string]bool{}, map[string]bool{}
		timed := 0
		for _, d := range documents {
			hash := index.ContentHash(&d)
			if before, known := distinct[d.ID]; known && before != hash {
				t.Errorf("two documents have the id %s", d.ID)
			}
			distinct[d.ID] = hash
			if !d.TimeStamped {
				timed++
			}
			for _, g := range d.Digests {
				set := subjects
				if g.Direction == index.DirectionInput {
					set = materials
				}
				set[index.FormatDigest(g.Algorithm, g.Value)] = true
			}
		}
		got := fmt.Sprintf("%d distinct, %d subject digests, %d material digests, %d with a time", len(distinct), len(subjects), len(materials), timed)
		if want := "212 distinct, 80 subject digests, 46 material digests, 1 with a time"; got != want {
			t.Errorf("%s: %s, want %s", format, got, want)
		}
	}
}

func TestRealCloudTrail(t *testing.T) {
	files := realData(t, "cloudtrail")
	content, err := os.ReadFile("../../docs/examples/cloudtrail.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := ParseMapping(content)
	if err != nil {
		t.Fatal(err)
	}
	documents, refused := readFiles(t, files, Options{Format: FormatJSON, Mapping: mapping})
	if len(refused) > 0 {
		t.Errorf("%d refused, the first: %s", len(refused), refused[0])
	}
	ids, names := map[string]bool{}, map[string]int{}
	for _, d := range documents {
		ids[d.ID] = true
		if d.Kind != index.KindEvent || d.Tenant != "123837392027" || d.Region == "" || d.TimeStamped {
			t.Fatalf("a document is not as mapped: %+v", d)
		}
		attributes := map[string]string{}
		for _, a := range d.Attributes {
			attributes[a.Name] = a.Value
		}
		names[attributes["eventName"]]++
		for _, taken := range []string{"eventID", "eventTime", "awsRegion", "recipientAccountId"} {
			if _, ok := attributes[taken]; ok {
				t.Fatalf("%s is mapped and an attribute too", taken)
			}
		}
	}
	if len(documents) != 2900 || len(ids) != 2900 || len(names) != 260 {
		t.Errorf("%d documents, %d ids, %d event names; want 2900, 2900, 260", len(documents), len(ids), len(names))
	}
	if names["CreateUser"] == 0 {
		t.Errorf("no CreateUser among %v", slices.Sorted(maps.Keys(names)))
	}
}
