package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// metrics reads a node's figures from its admin port, by name and labels as Prometheus'
// text format spells them.
func metrics(ctx context.Context, admin string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/metrics: %s", admin, resp.Status)
	}
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		if ok {
			name += "}"
		} else if name, value, ok = strings.Cut(lines.Text(), " "); !ok || name == "#" {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			out[name] = v
		}
	}
	return out, lines.Err()
}

// behind is how many entries, over all groups, a node has not applied that the most advanced
// node has. It fails while the node does not answer.
func (b *bench) behind(ctx context.Context, node string) (float64, error) {
	most := map[string]float64{}
	var own map[string]float64
	for _, n := range b.nodes() {
		m, err := metrics(ctx, n.Admin)
		if err != nil {
			if n.ID == node {
				return 0, err
			}
			continue
		}
		if n.ID == node {
			own = m
		}
		for k, v := range m {
			if strings.HasPrefix(k, "mc_raft_applied_index{") {
				most[k] = max(most[k], v)
			}
		}
	}
	total := 0.0
	for k, v := range most {
		total += v - own[k]
	}
	return total, nil
}
