package main

import (
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// limitDiff is what a file of limits would change.
type limitDiff struct {
	Created   []string `json:"created"`
	Replaced  []string `json:"replaced"`
	Unchanged []string `json:"unchanged"`
	// Version is the version of the limits that the file was compared with.
	Version uint32 `json:"version"`

	lines []string
}

// diffLimits compares the limits of a file with those that are there, in the order of the file.
func diffLimits(file []*limiterv1.Limit, there *limiterv1.ListLimitsResponse) limitDiff {
	d := limitDiff{Created: []string{}, Replaced: []string{}, Unchanged: []string{}, Version: there.GetVersion()}
	old := map[string]*limiterv1.Limit{}
	for _, l := range there.GetLimits() {
		old[l.GetId()] = l
	}
	for _, l := range file {
		before, exists := old[l.GetId()]
		switch {
		case !exists:
			d.Created = append(d.Created, l.GetId())
			d.lines = append(d.lines, "+\t"+limitLine(l))
		case proto.Equal(before, l):
			d.Unchanged = append(d.Unchanged, l.GetId())
		default:
			d.Replaced = append(d.Replaced, l.GetId())
			d.lines = append(d.lines, "-\t"+limitLine(before), "+\t"+limitLine(l))
		}
	}
	return d
}

// table shows the changes, one limit a line: - what goes, + what comes.
func (d limitDiff) table(w io.Writer) {
	for _, line := range d.lines {
		fmt.Fprintln(w, line)
	}
}

// limitLine is a limit in the columns of limit list.
func limitLine(l *limiterv1.Limit) string {
	return fmt.Sprintf("%s\t%s\t%s\t%s", l.GetId(), l.GetScope(), l.GetSelector(), strings.Join(partsOf(l), ", "))
}
