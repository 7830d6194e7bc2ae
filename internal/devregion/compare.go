package devregion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// comparePoll is how long CompareStates waits before it looks again at replicas that are not
// at the same place.
const comparePoll = 500 * time.Millisecond

// ErrDiffer means that two replicas of a group hold different states at the same index.
var ErrDiffer = errors.New("devregion: replicas differ")

type replicaState struct {
	Group   string `json:"group"`
	Replica string `json:"replica"`
	Applied uint64 `json:"applied"`
	Hash    string `json:"hash"`
}

// CompareStates waits, while nothing is written, until all replicas of every group are at the
// same index, and compares the hashes of their states. It returns how many groups were
// compared, and ErrDiffer as soon as two replicas differ.
func (r *Region) CompareStates(ctx context.Context) (groups int, err error) {
	for {
		groups, err = r.compareOnce(ctx)
		if err == nil || errors.Is(err, ErrDiffer) {
			return groups, err
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(comparePoll):
		}
	}
}

func (r *Region) compareOnce(ctx context.Context) (int, error) {
	first, away := map[string]replicaState{}, error(nil)
	for _, n := range r.State().Regions[0].Nodes {
		if n.Spare && n.PID == 0 {
			continue
		}
		states, err := statesOf(ctx, n.Admin)
		if err != nil {
			return 0, fmt.Errorf("devregion: %s: %w", n.ID, err)
		}
		for _, s := range states {
			f, known := first[s.Group]
			switch {
			case !known:
				first[s.Group] = s
			case f.Applied != s.Applied:
				away = fmt.Errorf("devregion: group %s: %s is at index %d, %s at %d", s.Group, f.Replica, f.Applied, s.Replica, s.Applied)
			case f.Hash != s.Hash:
				return 0, fmt.Errorf("%w: group %s at index %d: %s has %s, %s has %s", ErrDiffer, s.Group, s.Applied, f.Replica, f.Hash, s.Replica, s.Hash)
			}
		}
	}
	return len(first), away
}

func statesOf(ctx context.Context, admin string) ([]replicaState, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/debug/state", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /debug/state: %s", resp.Status)
	}
	var out []replicaState
	return out, json.NewDecoder(resp.Body).Decode(&out)
}
