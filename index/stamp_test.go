package index

import (
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// What a region stamped is found again as it was: in the same region it is existing, in another
// one it keeps the stamp. A member that would stamp it anew makes the region do so on every node.
func TestStampsTravel(t *testing.T) {
	here := newRegion(t, 2, 8)
	var docs []Document
	for _, id := range []string{"a", "b", "c"} {
		docs = append(docs, normal(t, Document{ID: id, TimeStamped: true}))
	}
	here.ingest(docs...)
	exported := here.search(SearchRequest{Limit: 10}).Items
	if len(exported) != 3 || exported[0].Time == 0 || !exported[0].TimeStamped {
		t.Fatalf("exported %+v", exported)
	}
	if res := here.ingest(exported...); res.Existing != 3 {
		t.Errorf("sent again: %+v", res)
	}
	changed := exported[0]
	changed.Task = "other"
	if res := here.ingest(changed); len(res.Refusals) != 1 || res.Refusals[0].Reason != ReasonConflict {
		t.Errorf("other content: %+v", res)
	}
	for level, kept := range map[int]bool{raftfsm.LevelAhead: false, raftfsm.LevelSegments: true} {
		there := newRegion(t, 2, 8)
		there.level = level
		old := exported[0]
		old.Time = 12345
		if res := there.ingest(old); res.Indexed != 1 {
			t.Fatalf("level %d: %+v", level, res)
		}
		got := there.search(SearchRequest{Limit: 10}).Items
		if len(got) != 1 || !got[0].TimeStamped || (got[0].Time == old.Time) != kept {
			t.Errorf("level %d: %+v", level, got)
		}
	}
}
