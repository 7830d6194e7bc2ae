package main

import (
	"bytes"
	"context"
	"fmt"
	"math/big"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/client"
)

func (a *app) lineageCommand() *cobra.Command {
	r := &provenancev1.LineageRequest{}
	var since, until string
	var up, down, partial bool
	cmd := &cobra.Command{
		Use:   "lineage DIGEST",
		Short: "Show what a digest was made from, or what was made with it",
		Long: `Walk from a digest through receipts: up to what it was made from (the default), or down to what was made with
it. Outputs and subjects of a receipt were made from its inputs. With --to, find a shortest path to another
digest, with the receipts that prove it; without a direction it is looked for upstream, then downstream.

The tree shows every digest and receipt once, and their costs; where one is met again it says so.`,
		Example: `  maestro lineage sha256:36c2e80a66311fbf22ac4d7f07d48f367be6190afc0e615fa11c36c035277429
  maestro lineage DIGEST --down --depth 10 --where 'NOT decision:deny'
  maestro lineage DIGEST --to SOURCE -o dot | dot -Tsvg > path.svg`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.BoolVar(&up, "up", false, "what it was made from")
	f.BoolVar(&down, "down", false, "what was made with it")
	f.StringVar(&r.To, "to", "", "only a shortest path to this digest")
	f.Uint32Var(&r.Depth, "depth", 5, fmt.Sprintf("how many receipts may follow each other, 1 to %d", index.LineageDepthMax))
	f.Uint32Var(&r.MaxDocuments, "max-documents", 1000, fmt.Sprintf("receipts to follow at most, 1 to %d", index.LineageDocumentsMax))
	f.Uint32Var(&r.MaxDigests, "max-digests", 10_000, fmt.Sprintf("digests to reach at most, 1 to %d", index.LineageDigestsMax))
	f.StringVar(&r.Tenant, "tenant", "", "only receipts of this tenant (default: the context's tenant, else all you may see)")
	f.StringVar(&r.Query, "where", "", "only receipts that match this query of maestro search")
	f.StringVar(&since, "since", "", "only receipts from this time on: 2026-01-31, RFC 3339, or ago, such as 24h or 7d")
	f.StringVar(&until, "until", "", "only receipts before this time")
	f.BoolVar(&partial, "partial", false, "answer at once without the shards that cannot answer now")
	f.VarP(&choice{&a.output, []string{"tree", "json", "yaml", "dot"}}, "output", "o", "how to print the result: tree, json, yaml or dot (Graphviz)")
	cmd.MarkFlagsMutuallyExclusive("up", "down")
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		// 0 would mean the default; whoever writes it means something else.
		for _, n := range []struct {
			flag  string
			value uint32
		}{{"depth", r.GetDepth()}, {"max-documents", r.GetMaxDocuments()}, {"max-digests", r.GetMaxDigests()}} {
			if n.value == 0 {
				return usageError{fmt.Errorf("--%s 0: must be at least 1", n.flag)}
			}
		}
		var err error
		if r.Since, err = parseTime("--since", since); err != nil {
			return err
		}
		if r.Until, err = parseTime("--until", until); err != nil {
			return err
		}
		r.Digest, r.RequireComplete, r.Direction = args[0], !partial, index.LineageUp
		if down {
			r.Direction = index.LineageDown
		}
		c, tenant, err := a.connect(r.GetTenant())
		if err != nil {
			return err
		}
		defer c.Close()
		r.Tenant = tenant
		result, err := a.walk(ctx, c, r)
		if err == nil && r.GetTo() != "" && !up && !down && result.GetStopped() != index.StoppedFound {
			r.Direction = index.LineageDown
			var other *provenancev1.LineageResponse
			// Of two failures the one that could be mended says more.
			if other, err = a.walk(ctx, c, r); other.GetStopped() == index.StoppedFound || result.GetStopped() == index.StoppedEnd {
				result = other
			}
		}
		if err != nil {
			return err
		}
		var text []byte
		switch a.output {
		case "", "tree":
			text = lineageTree(r, result)
		case "dot":
			text = lineageDot(r, result)
		default:
			return a.print(result, nil)
		}
		_, err = a.stdout.Write(text)
		return err
	})
	return cmd
}

func (a *app) walk(ctx context.Context, c *client.Client, r *provenancev1.LineageRequest) (*provenancev1.LineageResponse, error) {
	ctx, cancel := a.request(ctx)
	defer cancel()
	resp, err := c.Provenance().Lineage(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// lineage is an answer, ready to be drawn.
type lineage struct {
	down   bool
	steps  []*provenancev1.LineageStep
	depths map[string]uint32 // of the digests
	names  map[string]string // what producers called them
	// made is the step under which a digest is drawn, found the steps that are drawn under one.
	made  map[string]int
	found map[string][]int
}

func newLineage(r *provenancev1.LineageRequest, result *provenancev1.LineageResponse) *lineage {
	l := &lineage{
		down: r.GetDirection() == index.LineageDown, steps: result.GetSteps(),
		depths: map[string]uint32{}, names: map[string]string{}, made: map[string]int{}, found: map[string][]int{},
	}
	for _, d := range result.GetDigests() {
		l.depths[d.GetDigest()] = d.GetDepth()
	}
	for i, s := range l.steps {
		for _, g := range s.GetDocument().GetDigests() {
			if l.names[g.GetDigest()] == "" {
				l.names[g.GetDigest()] = g.GetName()
			}
		}
		for _, g := range l.far(s) {
			if _, taken := l.made[g]; !taken && l.depths[g] == s.GetDepth() {
				l.made[g] = i
			}
		}
		for _, g := range s.GetVia() {
			l.found[g] = append(l.found[g], i)
		}
	}
	return l
}

// far lists the digests to which a receipt leads, of those that are in the answer, each once.
func (l *lineage) far(s *provenancev1.LineageStep) []string {
	var out []string
	seen := map[string]bool{}
	for _, g := range s.GetDocument().GetDigests() {
		_, listed := l.depths[g.GetDigest()]
		if (g.GetDirection() == index.DirectionInput) != l.down && listed && !seen[g.GetDigest()] {
			seen[g.GetDigest()] = true
			out = append(out, g.GetDigest())
		}
	}
	return out
}

// lineageTree draws digests and receipts in turn, the start on top.
func lineageTree(r *provenancev1.LineageRequest, result *provenancev1.LineageResponse) []byte {
	l := newLineage(r, result)
	t := &treeWriter{lineage: l}
	for _, d := range result.GetDigests() {
		if d.GetDepth() == 0 {
			t.line("", strings.TrimSpace(d.GetDigest()+" "+shorten(l.names[d.GetDigest()], 40)))
			t.digest(d.GetDigest(), "")
		}
	}
	fmt.Fprintln(&t.out, summarize(r, result))
	for _, s := range result.GetShards() {
		if s.GetState() != "ok" {
			fmt.Fprintf(&t.out, "incomplete: %s: %s: %s\n", s.GetShard(), s.GetState(), s.GetMessage())
		}
	}
	return t.out.Bytes()
}

type treeWriter struct {
	*lineage
	out bytes.Buffer
}

func (t *treeWriter) line(indent, text string) { t.out.WriteString(indent + text + "\n") }

// branches returns what stands before the n-th of so many lines, and before what is below it.
func branches(indent string, n, of int) (line, below string) {
	if n == of-1 {
		return indent + "└─ ", indent + "   "
	}
	return indent + "├─ ", indent + "│  "
}

// digest draws what is below a digest.
func (t *treeWriter) digest(g, indent string) {
	steps := t.found[g]
	for n, i := range steps {
		line, below := branches(indent, n, len(steps))
		s := t.steps[i]
		if s.GetVia()[0] != g {
			t.line(line, shorten(s.GetDocument().GetId(), 40)+" (elsewhere in the tree)")
			continue
		}
		t.line(line, describeStep(s.GetDocument()))
		t.step(i, below)
	}
}

// step draws what is below a receipt.
func (t *treeWriter) step(i int, indent string) {
	far := t.far(t.steps[i])
	for n, g := range far {
		line, below := branches(indent, n, len(far))
		text := strings.TrimSpace(shortDigest(g) + " " + shorten(t.names[g], 40))
		if made, ok := t.made[g]; !ok || made != i {
			t.line(line, text+" (elsewhere in the tree)")
			continue
		}
		t.line(line, text)
		t.digest(g, below)
	}
}

func describeStep(d *provenancev1.Document) string {
	parts := []string{shorten(d.GetId(), 40), d.GetTime().AsTime().Format(time.DateTime)}
	for _, s := range []string{d.GetTask(), d.GetPack(), d.GetRunner(), d.GetDecision()} {
		if s != "" {
			parts = append(parts, shorten(s, 30))
		}
	}
	if d.GetCost() != nil {
		parts = append(parts, money(d.GetCost()))
	}
	return strings.Join(parts, "  ")
}

// shortDigest keeps as much as tells digests apart, and finds them with a * behind.
func shortDigest(g string) string {
	const keep = 16
	algorithm, value, _ := strings.Cut(g, ":")
	if len(value) > keep {
		value = value[:keep] + "…"
	}
	return algorithm + ":" + value
}

// money writes a cost exactly.
func money(c *provenancev1.Cost) string {
	units, fraction, _ := strings.Cut(big.NewRat(c.GetMicroUnits(), 1_000_000).FloatString(6), ".")
	fraction = fraction[:2] + strings.TrimRight(fraction[2:], "0")
	return units + "." + fraction + " " + c.GetCurrency()
}

// summarize says how much there is, what it cost, and why it is not more.
func summarize(r *provenancev1.LineageRequest, result *provenancev1.LineageResponse) string {
	var b strings.Builder
	if r.GetTo() != "" && result.GetStopped() != index.StoppedFound {
		fmt.Fprintf(&b, "no path found from %s to %s, after %s", r.GetDigest(), r.GetTo(), counted(int(result.GetDocumentsFollowed()), "receipt"))
	} else {
		b.WriteString(counted(len(result.GetSteps()), "receipt") + ", " + counted(len(result.GetDigests()), "digest"))
		for i, c := range result.GetCosts() {
			b.WriteString([]string{", cost ", " + "}[min(i, 1)] + money(c))
		}
	}
	switch result.GetStopped() {
	case index.StoppedDepth:
		fmt.Fprintf(&b, "; there may be more beyond depth %d: --depth", r.GetDepth())
	case index.StoppedDocuments:
		fmt.Fprintf(&b, "; there are more than %s: --max-documents, --where, --since", counted(int(r.GetMaxDocuments()), "receipt"))
	case index.StoppedDigests:
		fmt.Fprintf(&b, "; there are more than %s: --max-digests, --where, --since", counted(int(r.GetMaxDigests()), "digest"))
	case index.StoppedBytes:
		b.WriteString("; there is more than one answer may hold: --where, --since")
	}
	return b.String()
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// lineageDot draws the answer for Graphviz, in the direction in which things were made.
func lineageDot(r *provenancev1.LineageRequest, result *provenancev1.LineageResponse) []byte {
	l := newLineage(r, result)
	var b bytes.Buffer
	b.WriteString("digraph lineage {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n")
	for _, d := range result.GetDigests() {
		g := d.GetDigest()
		fmt.Fprintf(&b, "  %s [shape=note, label=%s];\n", dotText(g), dotText(strings.TrimSpace(shortDigest(g)+" "+shorten(l.names[g], 40))))
	}
	for _, s := range l.steps {
		d := s.GetDocument()
		node := dotText("receipt " + d.GetTenant() + "/" + d.GetId())
		fmt.Fprintf(&b, "  %s [shape=box, label=%s];\n", node, dotText(describeStep(d)))
		drawn := map[string]bool{}
		for _, g := range d.GetDigests() {
			edge := node + " -> " + dotText(g.GetDigest())
			if g.GetDirection() == index.DirectionInput {
				edge = dotText(g.GetDigest()) + " -> " + node
			}
			if _, listed := l.depths[g.GetDigest()]; listed && !drawn[edge] {
				drawn[edge] = true
				b.WriteString("  " + edge + ";\n")
			}
		}
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// dotText quotes a text for Graphviz, which reads backslashes in labels.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ", "\r", " ").Replace(s) + `"`
}
