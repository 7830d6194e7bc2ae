package workflows

import (
	"strings"
	"testing"
)

const run = `{"name":"w","createdAt":"2020-04-07T19:33:48Z","runtimeSystem":{"name":"Pegasus","version":"4.9.3"},"workflow":{
"specification":{"tasks":[{"name":"cut","id":"cut_1","inputFiles":["a"],"outputFiles":["b","c"]}],
"files":[{"id":"a","sizeInBytes":1},{"id":"b","sizeInBytes":2},{"id":"c","sizeInBytes":2}]},
"execution":{"tasks":[{"id":"cut_1","runtimeInSeconds":3.5,"machines":["m-1"]}]}}}`

func TestATaskBecomesAReceipt(t *testing.T) {
	in, err := Parse([]byte(run))
	if err != nil {
		t.Fatal(err)
	}
	docs, err := in.Receipts("lab", "run-1")
	if err != nil || len(docs) != 1 {
		t.Fatalf("%v, err %v", docs, err)
	}
	d := docs[0]
	if d.GetId() != "run-1/cut_1" || d.GetTenant() != "lab" || d.GetDurationMs() != 3500 || d.GetRunner() != "m-1" || d.GetPack() != "Pegasus@4.9.3" || len(d.GetDigests()) != 3 {
		t.Errorf("%v", d)
	}
	if g := d.GetDigests(); g[0].GetDirection() != "input" || g[1].GetDirection() != "output" || g[1].GetDigest() == g[2].GetDigest() {
		t.Errorf("%v", g)
	}
}

func TestATimeWithoutAZoneIsOfUTC(t *testing.T) {
	with, err := Parse([]byte(run))
	if err != nil {
		t.Fatal(err)
	}
	without, err := Parse([]byte(strings.Replace(run, "19:33:48Z", "19:33:48", 1)))
	if err != nil || !without.CreatedAt.Equal(with.CreatedAt.Time) {
		t.Errorf("%v and %v, err %v", without.CreatedAt, with.CreatedAt, err)
	}
}

func TestWhatIsNoRunIsRefused(t *testing.T) {
	for _, text := range []string{`{`, `{"name":"w","workflow":{"jobs":[]}}`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s was read", text)
		}
	}
	in, err := Parse([]byte(strings.Replace(run, `{"id":"a","sizeInBytes":1},`, "", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Receipts("lab", "run-1"); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("a task with an unknown file: %v", err)
	}
}
