package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/client"
)

// listedDigest is a line of a list of digests.
type listedDigest struct {
	digest string
	name   string // what follows it on the line, as sha256sum writes a file's name
}

// digestsMax is how many lines a list has at most; it is asked for in parts.
const digestsMax = 1_000_000

// readDigests reads a list from a file, or from in for "-".
func readDigests(file string, in io.Reader) ([]listedDigest, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	var all []listedDigest
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := strings.TrimSpace(string(bytes.ToValidUTF8(lines.Bytes(), []byte("\uFFFD"))))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		digest, name, _ := strings.Cut(line, " ")
		all = append(all, listedDigest{digest, strings.TrimLeft(name, " *")})
		if len(all) > digestsMax {
			return nil, fmt.Errorf("%s has more than %d digests; split it", file, digestsMax)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s, line %d: %w", file, len(all)+1, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no digests; write one a line", file)
	}
	return all, nil
}

// lookup asks for all digests of a list, in parts, and returns the answers as one.
func (a *app) lookup(ctx context.Context, c *client.Client, r *provenancev1.LookupRequest, list []listedDigest) (*provenancev1.LookupResponse, error) {
	part := index.LookupDigestsMax
	if n := int(r.GetDocuments()); n > 0 {
		part = min(part, max(index.LookupTotalMax/n, 1))
	}
	result := &provenancev1.LookupResponse{Complete: true}
	for len(list) > 0 {
		n := min(part, len(list))
		r.Digests = r.Digests[:0]
		for _, d := range list[:n] {
			r.Digests = append(r.Digests, d.digest)
		}
		list = list[n:]
		page, err := a.lookupPart(ctx, c, r)
		if err != nil {
			return nil, err
		}
		result.Digests = append(result.Digests, page.GetDigests()...)
		result.Cut, result.Complete, result.Shards = result.GetCut() || page.GetCut(), result.GetComplete() && page.GetComplete(), page.GetShards()
	}
	return result, nil
}

func (a *app) lookupPart(ctx context.Context, c *client.Client, r *provenancev1.LookupRequest) (*provenancev1.LookupResponse, error) {
	ctx, cancel := a.request(ctx)
	defer cancel()
	resp, err := c.Provenance().Lookup(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// lookupTable has a line for each digest, with its newest document.
func lookupTable(w io.Writer, r *provenancev1.LookupResponse, list []listedDigest) {
	fmt.Fprintln(w, "DIGEST\tFOUND\tNEWEST\tKIND\tTENANT\tID\tWHAT")
	known := 0
	for i, d := range r.GetDigests() {
		name := d.GetDigest()
		if list[i].name != "" {
			name = list[i].name
		}
		fmt.Fprintf(w, "%s\t", shorten(name, 24))
		if d.GetProblem() != "" {
			fmt.Fprintf(w, "-\t\t\t\t\t%s\n", d.GetProblem())
			continue
		}
		if d.GetCount() > 0 {
			known++
		}
		fmt.Fprintf(w, "%d", d.GetCount())
		if docs := d.GetDocuments(); len(docs) > 0 {
			fmt.Fprintf(w, "\t%s\t%s\t%s\t%s\t%s", docs[0].GetTime().AsTime().Format(time.DateTime), shorten(docs[0].GetKind(), 8),
				shorten(docs[0].GetTenant(), 12), shorten(docs[0].GetId(), 20), shorten(describe(docs[0]), 30))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%d of %d digests are known\n", known, len(r.GetDigests()))
	if r.GetCut() {
		fmt.Fprintln(w, "documents were left out: they are too large for one answer")
	}
	printIncomplete(w, r.GetShards())
}

// problems is an error when some of the list are no digests.
func problems(r *provenancev1.LookupResponse) error {
	n, first := 0, ""
	for _, d := range r.GetDigests() {
		if d.GetProblem() != "" {
			if n++; n == 1 {
				first = d.GetProblem()
			}
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d are no digests; the first: %s", n, len(r.GetDigests()), first)
}
