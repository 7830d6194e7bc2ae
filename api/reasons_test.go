package api

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// TestReasonsTable: every reason that is declared is in the table once, and complete.
func TestReasonsTable(t *testing.T) {
	source, err := os.ReadFile("reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile("packagereasons.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := len(regexp.MustCompile(`(?m)^\treason\w+ += &reason\{`).FindAll(append(source, more...), -1)) + len(packageCodes)
	if declared != len(reasons) {
		t.Errorf("%d reasons are declared, %d are in the table", declared, len(reasons))
	}
	names := map[string]bool{}
	for _, r := range reasons {
		if names[r.name] || !regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`).MatchString(r.name) {
			t.Errorf("the name %q is not snake_case, or there twice", r.name)
		}
		names[r.name] = true
		if r.title == "" || r.hint == "" || r.code == 0 || r.httpStatus() < 400 {
			t.Errorf("%s is not complete", r.name)
		}
	}
}

// sentinelReasons says what becomes of every sentinel error below the API.
var sentinelReasons = map[string]struct {
	err  error
	want *reason
}{
	"api.ErrTokenUnknown":           {ErrTokenUnknown, reasonTokenUnknown},
	"api.ErrTokenExpired":           {ErrTokenExpired, reasonTokenExpired},
	"api.ErrTokenRevoked":           {ErrTokenRevoked, reasonTokenRevoked},
	"api.ErrLimitForeign":           {ErrLimitForeign, reasonLimitForeign},
	"api.ErrLimitUnknown":           {ErrLimitUnknown, reasonLimitUnknown},
	"api.ErrPlanNone":               {ErrPlanNone, reasonPlanUnassigned},
	"api.ErrAlreadyInitialised":     {ErrAlreadyInitialised, reasonAlreadyInitialised},
	"api.ErrSeedsNotReady":          {ErrSeedsNotReady, reasonSeedsNotReady},
	"api.ErrNotReady":               {ErrNotReady, reasonNotReady},
	"api.ErrMetaStale":              {ErrMetaStale, reasonMetaStale},
	"api.ErrNotInitialised":         {ErrNotInitialised, reasonNotInitialised},
	"api.ErrServiceOff":             {ErrServiceOff, reasonServiceOff},
	"api.ErrNodeRemoved":            {ErrNodeRemoved, reasonNodeRemoved},
	"api.ErrNodeUnfit":              {ErrNodeUnfit, reasonNodeUnfit},
	"api.ErrNodeNameTaken":          {ErrNodeNameTaken, reasonNodeNameTaken},
	"api.ErrNodeUnknown":            {ErrNodeUnknown, reasonNodeUnknown},
	"api.ErrTooFewNodes":            {ErrTooFewNodes, reasonTooFewNodes},
	"api.ErrTooManyNodes":           {ErrTooManyNodes, reasonTooManyNodes},
	"api.ErrNotVoter":               {ErrNotVoter, reasonNotVoter},
	"api.ErrGroupName":              {ErrGroupName, reasonGroupName},
	"api.ErrLevel":                  {ErrLevel, reasonLevel},
	"api.ErrMembersChanged":         {ErrMembersChanged, reasonMembersChanged},
	"raftfsm.ErrNotEmpty":           {raftfsm.ErrNotEmpty, reasonGroupNotEmpty},
	"raftfsm.ErrRestoreRefused":     {raftfsm.ErrRestoreRefused, reasonRestoreRefused},
	"raftfsm.ErrBackupGone":         {raftfsm.ErrBackupGone, reasonBackupGone},
	"raftfsm.ErrRestoring":          {raftfsm.ErrRestoring, reasonRestoring},
	"limiter.ErrInvalid":            {limiter.ErrInvalid, reasonLimitInvalid},
	"index.ErrQuery":                {index.ErrQuery, reasonQueryMalformed},
	"index.ErrCondition":            {index.ErrCondition, reasonFieldMalformed},
	"index.ErrCursor":               {index.ErrCursor, reasonCursorMalformed},
	"index.ErrNotReady":             {index.ErrNotReady, reasonNotReady},
	"index.ErrReadOnly":             {index.ErrReadOnly, reasonIndexReadOnly},
	"index.ErrOff":                  {index.ErrOff, reasonIndexOff},
	"index.ErrRetention":            {index.ErrRetention, reasonRetentionUnknown},
	"index.ErrRetentionKey":         {index.ErrRetentionKey, reasonRetentionKey},
	"index.ErrIncomplete":           {index.ErrIncomplete, reasonIncomplete},
	"raftfsm.ErrNoLeader":           {raftfsm.ErrNoLeader, reasonNoLeader},
	"raftfsm.ErrOverloaded":         {raftfsm.ErrOverloaded, reasonOverloaded},
	"raftfsm.ErrDiskFull":           {raftfsm.ErrDiskFull, reasonDiskFull},
	"raftfsm.ErrTooLarge":           {raftfsm.ErrTooLarge, reasonCommandTooLarge},
	"raftfsm.ErrRequestReused":      {raftfsm.ErrRequestReused, reasonRequestIDReused},
	"raftfsm.ErrUnknownGroup":       {raftfsm.ErrUnknownGroup, reasonGroupUnknown},
	"raftfsm.ErrLost":               {raftfsm.ErrLost, reasonLost},
	"raftfsm.ErrShutdown":           {raftfsm.ErrShutdown, reasonShutdown},
	"raftfsm.ErrTargetUnknown":      {raftfsm.ErrTargetUnknown, reasonGroupUnknown},
	"raftfsm.ErrOtherCluster":       {raftfsm.ErrOtherCluster, reasonNotMember},
	"raftfsm.ErrNotMember":          {raftfsm.ErrNotMember, reasonNotMember},
	"raftfsm.ErrNotVoter":           {raftfsm.ErrNotVoter, reasonNotVoter},
	"raftfsm.ErrOtherTarget":        {raftfsm.ErrOtherTarget, reasonNotMember},
	"raftfsm.ErrDuplicate":          {raftfsm.ErrDuplicate, reasonNotMember},
	"raftfsm.ErrVersion":            {raftfsm.ErrVersion, reasonVersionMismatch},
	"limiter.ErrTooManyLimits":      {limiter.ErrTooManyLimits, reasonTooManyLimits},
	"limiter.ErrTooManyHeld":        {limiter.ErrTooManyHeld, reasonTooManyHeld},
	"limiter.ErrReservationUnknown": {limiter.ErrReservationUnknown, reasonReservationUnknown},
	"limiter.ErrSlotUnknown":        {limiter.ErrSlotUnknown, reasonSlotUnknown},
	"limiter.ErrRequestUnknown":     {limiter.ErrRequestUnknown, reasonRequestUnknown},
	"limiter.ErrLevel":              {limiter.ErrLevel, reasonLevel},
	"limiter.ErrRefused":            {limiter.ErrRefused, reasonVersionMismatch},
	"pkgstore.ErrUnknown":           {pkgstore.ErrUnknown, reasonPackageUnknown},
	"pkgstore.ErrConflict":          {pkgstore.ErrConflict, reasonVersionConflict},
	"pkgstore.ErrField":             {pkgstore.ErrField, reasonPackageField},
	"pkgstore.ErrKeyExists":         {pkgstore.ErrKeyExists, reasonTrustKeyExists},
	"pkgstore.ErrNoKey":             {pkgstore.ErrNoKey, reasonTrustKeyUnknown},
	"pkgstore.ErrYanked":            {pkgstore.ErrYanked, reasonVersionYanked},
	"pkgstore.ErrBlocked":           {pkgstore.ErrBlocked, reasonVersionBlocked},
	"pkgstore.ErrNotInstalled":      {pkgstore.ErrNotInstalled, reasonNotInstalled},
	"pkgstore.ErrNoHistory":         {pkgstore.ErrNoHistory, reasonNoHistory},
	"pkgstore.ErrDowngrade":         {pkgstore.ErrDowngrade, reasonVersionOlder},
	"pkgstore.ErrInstallChanged":    {pkgstore.ErrInstallChanged, reasonInstallChanged},
	"pkgstore.ErrConfusable":        {pkgstore.ErrConfusable, reasonNameConfusable},
	"pkgstore.ErrCapabilities":      {pkgstore.ErrCapabilities, reasonCapabilitiesNew},
	"pkgstore.ErrDependency":        {pkgstore.ErrDependency, reasonDependencyMissing},
	"pkgstore.ErrUpload":            {pkgstore.ErrUpload, reasonUploadUnknown},
	"pkgstore.ErrFull":              {pkgstore.ErrFull, reasonCatalogFull},
	"pkgstore.ErrContent":           {pkgstore.ErrContent, reasonContentDamaged},
	// A key that is missing from a store, damage of it, and an interrupted entry are for the machine to understand.
	"raftfsm.ErrNotFound":    {raftfsm.ErrNotFound, reasonInternal},
	"raftfsm.ErrCorrupt":     {raftfsm.ErrCorrupt, reasonInternal},
	"raftfsm.ErrInterrupted": {raftfsm.ErrInterrupted, reasonInternal},
}

// TestEverySentinelHasAReason fails when a package below adds a sentinel error and nobody has
// decided what callers see.
func TestEverySentinelHasAReason(t *testing.T) {
	for _, pkg := range []string{"api", "limiter", "index", "pkgstore", "raftfsm"} {
		for _, name := range sentinelsOf(t, "../"+pkg) {
			full := pkg + "." + name
			row, ok := sentinelReasons[full]
			if !ok {
				t.Errorf("%s has no row in sentinelReasons", full)
				continue
			}
			if got := faultOf(fmt.Errorf("around: %w", row.err), true).reason; got != row.want {
				t.Errorf("%s becomes %s, want %s", full, got.name, row.want.name)
			}
		}
	}
}

// sentinelsOf lists the exported error variables of the package in dir.
func sentinelsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), dir+"/"+entry.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, spec := range vars.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if regexp.MustCompile(`^Err[A-Z]`).MatchString(name.Name) {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// TestOutcomes: a read changes nothing; of a write, the group that failed knows best.
func TestOutcomes(t *testing.T) {
	group := func(o raftfsm.Outcome, err error) error {
		return fmt.Errorf("limiter: %w", &raftfsm.Error{Op: "propose", Group: "limiter-0", Outcome: o, Err: err})
	}
	for _, c := range []struct {
		err         error
		write       bool
		reason      *reason
		outcome     raftfsm.Outcome
		hidesDetail bool
	}{
		{raftfsm.ErrNoLeader, true, reasonNoLeader, raftfsm.OutcomeDefinite, true},
		{group(raftfsm.OutcomeUnknown, raftfsm.ErrNoLeader), true, reasonNoLeader, raftfsm.OutcomeUnknown, true},
		{group(raftfsm.OutcomeUnknown, raftfsm.ErrNoLeader), false, reasonNoLeader, raftfsm.OutcomeDefinite, true},
		{raftfsm.ErrLost, true, reasonLost, raftfsm.OutcomeUnknown, true},
		{context.DeadlineExceeded, true, reasonDeadline, raftfsm.OutcomeUnknown, true},
		{context.DeadlineExceeded, false, reasonDeadline, raftfsm.OutcomeDefinite, true},
		{group(raftfsm.OutcomeDefinite, context.DeadlineExceeded), true, reasonDeadline, raftfsm.OutcomeDefinite, true},
		{context.Canceled, true, reasonCanceled, raftfsm.OutcomeUnknown, true},
		{errors.New("open /var/lib/maestro/secret: no"), true, reasonInternal, raftfsm.OutcomeUnknown, true},
		{errors.New("open /var/lib/maestro/secret: no"), false, reasonInternal, raftfsm.OutcomeDefinite, true},
		{fmt.Errorf("%w: b is not empty", ErrSeedsNotReady), true, reasonSeedsNotReady, raftfsm.OutcomeDefinite, false},
		{&limiter.InvalidError{Field: "limits[0].id", Message: "no"}, true, reasonLimitInvalid, raftfsm.OutcomeDefinite, false},
	} {
		f := faultOf(c.err, c.write)
		if f.reason != c.reason || f.outcome != c.outcome {
			t.Errorf("%v (write %v): %s %s, want %s %s", c.err, c.write, f.name, f.outcome, c.reason.name, c.outcome)
		}
		if hides := !strings.Contains(f.message, c.err.Error()); hides != c.hidesDetail {
			t.Errorf("%v: message %q", c.err, f.message)
		}
		if again := faultOf(f.wire(), c.write); again != f {
			t.Errorf("%v: the way over the wire error loses the fault", c.err)
		}
	}
}

// TestLongMessages stay readable and small: gRPC carries them in a header.
func TestLongMessages(t *testing.T) {
	f := refuse(reasonFieldMalformed, "%s", strings.Repeat("é", maxMessageBytes))
	if len(f.message) > maxMessageBytes+3 || strings.Contains(f.message, "\ufffd") || !strings.HasSuffix(f.message, "é...") {
		t.Errorf("message of %d bytes ends in %q", len(f.message), f.message[len(f.message)-8:])
	}
}

// TestInternalErrors: the caller gets an id, the log gets the cause under it; a panic is one.
func TestInternalErrors(t *testing.T) {
	e := newEnv(t, nil)
	check := accessCases[0]
	for _, c := range []struct {
		what  string
		fail  func()
		cause string
	}{
		{"an error", func() { e.services.err = errors.New("open /var/lib/maestro/secret: denied") }, "/var/lib/maestro/secret"},
		{"a panic", func() { e.services.checking = func(context.Context) { panic("index out of /var/lib") } }, "index out of /var/lib"},
	} {
		c.fail()
		err := callDynamic(t, e, check, secretOf("acme", RoleRunner))
		d := wantReason(t, err, connect.CodeInternal, "internal")
		id := regexp.MustCompile(`[0-9a-f]{16}`).FindString(err.Error())
		if id == "" || strings.Contains(err.Error(), "/var") || d.GetOutcome() != "unknown" {
			t.Errorf("%s: %v with %v", c.what, err, d)
		}
		if lines := strings.Split(e.log.String(), "\n"); !slices.ContainsFunc(lines, func(line string) bool {
			return strings.Contains(line, "id="+id) && strings.Contains(line, c.cause)
		}) {
			t.Errorf("%s: the log does not join %s to its cause:\n%s", c.what, id, e.log)
		}
	}
}

// What a node cannot do yet is told to callers without the addresses of those it waits for.
func TestReasonsKeepAddressesIn(t *testing.T) {
	inner := errors.New("node node-2 at 10.0.0.2:7401: dial tcp: connection refused")
	for _, err := range []error{
		fmt.Errorf("%w: look token up: %w", ErrNotReady, inner),
		fmt.Errorf("%w: %w", index.ErrIncomplete, inner),
		fmt.Errorf("%w: %w", raftfsm.ErrNoLeader, inner),
		inner,
	} {
		if f := faultOf(err, false); strings.Contains(f.message, "10.0.0.2") {
			t.Errorf("%v is told to callers as %q", err, f.message)
		}
	}
}
