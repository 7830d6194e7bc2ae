package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/client"
)

func (a *app) searchCommand() *cobra.Command {
	r := &provenancev1.SearchRequest{}
	var since, until, digests string
	var all, partial bool
	cmd := &cobra.Command{
		Use:   "search [QUERY]",
		Short: "Find receipts, events and decisions, newest first",
		Long: `Find documents, newest first unless --order says otherwise. A query has terms FIELD:VALUE, AND, OR, NOT and parentheses; values may end
in * and be "quoted"; bare words search ids, digests and reasons. No query finds everything.

Fields: digest, input, output, task, execution, tenant, pack, rule, decision, reason, kind, region, runner,
cost, time, attr.NAME.

With --digests, look up every digest of a list, one a line, as sha256sum writes them: how many documents that
match the query have it, and the newest of them (with -o json as many as --limit says).

With --facet or --histogram, count all matches by the values of fields, or by time. Documents are shown
beside that if --limit or --all is given.`,
		Example: `  maestro search 'kind:decision AND decision:deny' --since 24h
  maestro search digest:sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03
  maestro search 'attr.branch:main' --tenant demo --all -o json
  maestro search decision:deny --facet rule,reason --histogram 1h
  sha256sum dist/* | maestro search --digests -`,
	}
	f := cmd.Flags()
	f.StringVar(&r.Tenant, "tenant", "", "only this tenant (default: the context's tenant, else all you may see)")
	f.StringVar(&r.Pack, "pack", "", "only this package")
	f.StringVar(&r.Digest, "digest", "", "only documents with this digest")
	f.StringVar(&since, "since", "", "only from this time on: 2026-01-31, RFC 3339, or ago, such as 24h or 7d")
	f.StringVar(&until, "until", "", "only before this time")
	f.Uint32Var(&r.Limit, "limit", 50, "documents on a page, 1 to 1000")
	f.StringVar(&r.Cursor, "cursor", "", "go on where an earlier page ended")
	f.BoolVar(&all, "all", false, "all pages")
	f.BoolVar(&r.Exact, "exact", false, "count all matches, however many")
	f.BoolVar(&r.Explain, "explain", false, "tell what the search did: segments, blocks, documents, time")
	f.Var(&choice{&r.Order, index.OrderNames}, "order", "newest, oldest, or cost: the dearest first")
	f.StringSliceVar(&r.Facets, "facet", nil, "count matches by the values of these fields: "+facetNames())
	f.Uint32Var(&r.FacetValues, "facet-values", 10, fmt.Sprintf("most frequent values of a facet, 1 to %d", index.FacetValuesMax))
	f.StringVar(&r.Histogram, "histogram", "", "count matches by time: auto, or the length of a bucket, such as 15m, 1h or 7d")
	f.StringVar(&digests, "digests", "", "look up the digests of this file, one a line; - reads standard input")
	f.BoolVar(&partial, "partial", false, "answer at once without the shards that cannot answer now")
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		var err error
		r.Query = strings.Join(args, " ")
		if r.From, err = parseTime("--since", since); err != nil {
			return err
		}
		if r.To, err = parseTime("--until", until); err != nil {
			return err
		}
		r.RequireComplete = !partial
		if all && !cmd.Flags().Changed("limit") {
			r.Limit = 1000
		}
		counts := len(r.GetFacets()) > 0 || r.GetHistogram() != ""
		if counts && !all && !cmd.Flags().Changed("limit") {
			r.Limit = 1 // a page has a document at least; it is not shown
		} else {
			counts = false
		}
		if digests != "" {
			return a.searchDigests(ctx, cmd, r, digests)
		}
		c, tenant, err := a.connect(r.GetTenant())
		if err != nil {
			return err
		}
		defer c.Close()
		r.Tenant = tenant
		result, err := a.searchPages(ctx, c, r, all)
		if err != nil {
			return err
		}
		if counts {
			result.Items, result.Next = nil, ""
		}
		return a.print(result, func(w io.Writer) {
			facetTables(w, result.GetFacets())
			histogramTable(w, result.GetHistogram())
			searchTable(w, result, counts)
			explainTable(w, result.GetExplain())
		})
	})
	return cmd
}

// searchDigests is a search with --digests.
func (a *app) searchDigests(ctx context.Context, cmd *cobra.Command, r *provenancev1.SearchRequest, file string) error {
	for _, name := range []string{"pack", "digest", "cursor", "all", "exact", "order", "explain", "facet", "histogram"} {
		if cmd.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s does not go with --digests; write conditions as a query", name)}
		}
	}
	ask := &provenancev1.LookupRequest{
		Documents: 1, Tenant: r.GetTenant(), Query: r.GetQuery(), Since: r.GetFrom(), Until: r.GetTo(), RequireComplete: r.GetRequireComplete(),
	}
	if cmd.Flags().Changed("limit") {
		if ask.Documents = r.GetLimit(); ask.GetDocuments() > index.LookupDocumentsMax {
			return usageError{fmt.Errorf("--limit %d: at most %d documents of a digest", r.GetLimit(), index.LookupDocumentsMax)}
		}
	}
	list, err := readDigests(file, a.stdin)
	if err != nil {
		return err
	}
	c, tenant, err := a.connect(r.GetTenant())
	if err != nil {
		return err
	}
	defer c.Close()
	ask.Tenant = tenant
	result, err := a.lookup(ctx, c, ask, list)
	if err != nil {
		return err
	}
	if err := a.print(result, func(w io.Writer) { lookupTable(w, result, list) }); err != nil {
		return err
	}
	return problems(result)
}

// searchPages returns one page, or all of them as one.
func (a *app) searchPages(ctx context.Context, c *client.Client, r *provenancev1.SearchRequest, all bool) (*provenancev1.SearchResponse, error) {
	var result *provenancev1.SearchResponse
	for {
		page, err := a.searchPage(ctx, c, r)
		if err != nil {
			return nil, err
		}
		if result == nil {
			result = page
		} else {
			result.Items = append(result.Items, page.GetItems()...)
			result.Next, result.Complete, result.Shards = page.GetNext(), result.GetComplete() && page.GetComplete(), page.GetShards()
		}
		if !all || page.GetNext() == "" {
			return result, nil
		}
		r.Cursor = page.GetNext()
		r.Facets, r.Histogram = nil, "" // the first page has told
	}
}

func facetNames() string {
	names := make([]string, len(index.FacetFields))
	for i, f := range index.FacetFields {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

func (a *app) searchPage(ctx context.Context, c *client.Client, r *provenancev1.SearchRequest) (*provenancev1.SearchResponse, error) {
	ctx, cancel := a.request(ctx)
	defer cancel()
	resp, err := c.Provenance().Search(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// searchTable fits 100 columns; -o json has everything.
func searchTable(w io.Writer, r *provenancev1.SearchResponse, counts bool) {
	if len(r.GetItems()) > 0 {
		fmt.Fprintln(w, "TIME\tKIND\tTENANT\tID\tWHAT")
	}
	for _, d := range r.GetItems() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.GetTime().AsTime().Format(time.DateTime), shorten(d.GetKind(), 8),
			shorten(d.GetTenant(), 12), shorten(d.GetId(), 20), shorten(describe(d), 30))
	}
	total := strconv.FormatUint(uint64(r.GetTotal().GetValue()), 10)
	if r.GetTotal().GetRelation() == "gte" {
		total += " or more"
	}
	if counts {
		fmt.Fprintf(w, "%s documents\n", total)
	} else {
		fmt.Fprintf(w, "%d of %s\n", len(r.GetItems()), total)
	}
	printIncomplete(w, r.GetShards())
	if r.GetNext() != "" {
		fmt.Fprintf(w, "more with --all, or --cursor %s\n", r.GetNext())
	}
}

// printIncomplete names the shards that could not answer.
func printIncomplete(w io.Writer, shards []*provenancev1.ShardStatus) {
	for _, s := range shards {
		if s.GetState() != "ok" {
			fmt.Fprintf(w, "incomplete: %s: %s: %s\n", s.GetShard(), s.GetState(), s.GetMessage())
		}
	}
}

// describe is what a person would want to know first.
func describe(d *provenancev1.Document) string {
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, s)
		}
	}
	add(d.GetDecision())
	add(d.GetReason())
	add(d.GetTask())
	if name, ok := d.GetAttributes()["eventName"]; ok {
		add(name)
	}
	for _, g := range d.GetDigests() {
		if g.GetDirection() != "input" {
			add(g.GetName())
			break
		}
	}
	add(d.GetPack())
	if len(parts) == 0 {
		for _, k := range slices.Sorted(maps.Keys(d.GetAttributes())) {
			add(k + "=" + d.GetAttributes()[k])
		}
	}
	return strings.Join(parts, " ")
}

// shorten cuts s to n characters and takes out what would break the table.
func shorten(s string, n int) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
	if len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return string(runes)
}

// parseTime reads a moment: a date, RFC 3339, or how long ago.
func parseTime(flag, s string) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, time.DateTime} {
		if t, err := time.Parse(layout, s); err == nil {
			return timestamppb.New(t), nil
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return timestamppb.New(time.Now().AddDate(0, 0, -int(n))), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return timestamppb.New(time.Now().Add(-d)), nil
	}
	return nil, usageError{fmt.Errorf("%s %q; write 2026-01-31, 2026-01-31T15:04:05Z, or how long ago, such as 24h or 7d", flag, s)}
}
