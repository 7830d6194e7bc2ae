package policies

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"pgregory.net/rapid"
)

// anInput draws inputs among which every rule of the packs holds for some.
func anInput(t *rapid.T) *Input {
	actions := []string{
		"/mc.limiter.v1.Limiter/Check", "/mc.limiter.v1.Limiter/SetPlans", "/mc.provenance.v1.Provenance/Search", "/mc.cluster.v1.Tokens/CreateToken",
		"/mc.limiter.v1.Limiter/ListLimits", "package.publish", "package.install", "package.load", "execution.start", "unheard.of",
	}
	tenants := []string{"", "acme", "globex", "*", "Not a tenant"}
	roles := rapid.SliceOfN(rapid.SampledFrom([]string{"reader", "runner", "publisher", "operator", "admin", "odd"}), 0, 2)
	some := func(label string, of ...string) []string {
		return rapid.SliceOfN(rapid.SampledFrom(of), 0, len(of)).Draw(t, label)
	}
	attributes := rapid.MapOfN(rapid.SampledFrom([]string{"group", "suspended", "team"}), rapid.SampledFrom([]string{"finance", "true", "x"}), 0, 2)
	number := rapid.Uint64Range(0, 1000)
	in := &Input{
		Tenant:   rapid.SampledFrom(tenants).Draw(t, "tenant"),
		Subject:  Subject{ID: "t1", Tenant: rapid.SampledFrom(tenants[1:4]).Draw(t, "own"), Roles: roles.Draw(t, "roles"), Attributes: attributes.Draw(t, "of the subject")},
		Action:   rapid.SampledFrom(actions).Draw(t, "action"),
		Resource: Resource{Kind: rapid.SampledFrom([]string{"", "workflow"}).Draw(t, "kind"), Attributes: attributes.Draw(t, "of the resource")},
		Key:      rapid.SampledFrom([]string{"", "export"}).Draw(t, "key"),
		Cost:     rapid.Uint64Range(0, 20).Draw(t, "cost"),
		Limits:   map[string]map[string]Limit{}, Quotas: map[string]Quota{},
	}
	for _, level := range []string{"global", "tenant", "token", "key"} {
		of := map[string]Limit{}
		for i := range rapid.IntRange(0, 2).Draw(t, "limits") {
			kind := rapid.SampledFrom([]string{KindRate, KindRate, KindRate, KindConcurrency, KindBanned}).Draw(t, "kind of limit")
			l := Limit{Kind: kind, Limit: number.Draw(t, "limit"), Used: number.Draw(t, "used")}
			if kind == KindRate {
				l.RetryAfterMs = number.Draw(t, "retry")
			}
			of[fmt.Sprintf("l%d", i)] = l
		}
		if len(of) > 0 {
			in.Limits[level] = of
		}
	}
	if rapid.Bool().Draw(t, "has a quota") {
		in.Quotas["runs"] = Quota{Limit: number.Draw(t, "quota"), Used: number.Draw(t, "used"), RetryAfterMs: number.Draw(t, "retry")}
	}
	if rapid.Bool().Draw(t, "has a package") {
		in.Package = &PackageFacts{
			Name: "acme/restore", Version: "1.0.0", Publisher: rapid.SampledFrom([]string{"acme", "globex"}).Draw(t, "publisher"),
			Status:  rapid.SampledFrom([]string{"", "deprecated", "yanked", "blocked"}).Draw(t, "status"),
			Signers: some("signers", "k1", "k2"), Capabilities: some("capabilities", "network", "secret:dsn"), Egress: some("egress", "db.example:5432"),
		}
		in.TenantPolicy = &TenantPolicy{
			MinSigners: rapid.Uint64Range(0, 2).Draw(t, "least signers"), Signers: some("accepted", "k1", "k3"), Publishers: some("own", "acme"),
		}
		if rapid.Bool().Draw(t, "restricts") {
			in.TenantPolicy.Capabilities, in.TenantPolicy.Egress = some("granted", "network"), some("places", "other.example:1", "db.example:5432")
		}
	}
	return in
}

// TestInputIsWhatIsRecorded: what rules see is what they would see of the record.
func TestInputIsWhatIsRecorded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := anInput(t)
		record, err := in.Record()
		if err != nil {
			t.Fatal(err)
		}
		got, err := in.value()
		if err != nil {
			t.Fatal(err)
		}
		want, err := ast.ValueFromReader(strings.NewReader(string(record)))
		if err != nil {
			t.Fatal(err)
		}
		if got.Value.Compare(want) != 0 {
			t.Fatalf("rules see\n%v\nand the record is\n%v", got, want)
		}
		again, err := ParseInput(record)
		if err != nil {
			t.Fatal(err)
		}
		if record2, err := again.Record(); err != nil || string(record2) != string(record) {
			t.Fatalf("%s is read as %s, %v", record, record2, err)
		}
	})
}

// TestPlainEvaluationAgrees: rule indexes and early exit change no decision, and the evaluator's own account of
// which rules held is what the reasons say, for allowed requests too.
func TestPlainEvaluationAgrees(t *testing.T) {
	set := builtInSet(t)
	rapid.Check(t, func(t *rapid.T) {
		in := anInput(t)
		fast, err := set.Decide(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := set.decide(context.Background(), in, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(fast, plain) {
			t.Fatalf("with rule indexes %+v, without %+v", fast, plain)
		}
		value, err := in.value()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range set.packs {
			tracker := &topdown.EvaluatedRuleTracker{}
			found, err := p.evaluate(context.Background(), value, evalOptions{witness: tracker})
			if err != nil {
				t.Fatal(err)
			}
			reasons, err := p.reasons(found)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.witnessed(reasons, tracker); err != nil {
				t.Fatal(err)
			}
		}
		checkAdvice(t, fast)
	})
}

// checkAdvice: reasons are sorted and complete, and the advice is the longest wait of all, or none.
func checkAdvice(t *rapid.T, d Decision) {
	if d.Allow != (len(d.Reasons) == 0) {
		t.Fatalf("%+v", d)
	}
	var longest uint64
	curable := !d.Allow
	for _, r := range d.Reasons {
		if r.Text == "" || r.Remediation == "" || r.Title == "" || r.Severity == "" || r.Line == 0 || r.File == "" {
			t.Fatalf("a reason lacks something: %+v", r)
		}
		if r.RetryAfterMs == nil {
			curable = false
		} else {
			longest = max(longest, *r.RetryAfterMs)
		}
	}
	switch {
	case curable != (d.RetryAfterMs != nil):
		t.Fatalf("curable by time: %v, advice %v", curable, d.RetryAfterMs)
	case curable && *d.RetryAfterMs != longest:
		t.Fatalf("advice %d, longest wait %d", *d.RetryAfterMs, longest)
	}
	if !slices.IsSortedFunc(d.Reasons, func(a, b Reason) int { return strings.Compare(a.Pack+" "+a.ID+" "+a.Text, b.Pack+" "+b.ID+" "+b.Text) }) {
		t.Fatalf("not sorted: %+v", d.Reasons)
	}
}

// TestAdviceHolds: after the time that a denial names the limits have room, and the same request is allowed; a
// denial without a time stays one.
func TestAdviceHolds(t *testing.T) {
	set := builtInSet(t)
	ask := &Input{Tenant: "acme", Subject: Subject{ID: "t", Tenant: "acme", Roles: []string{"runner"}}, Action: "execution.start", Cost: 2, Limits: map[string]map[string]Limit{
		"tenant": {"api": {Kind: KindRate, Limit: 10, Used: 9, RetryAfterMs: 700}}, "key": {"k": {Kind: KindRate, Limit: 5, Used: 5, RetryAfterMs: 1900}},
	}}
	d, err := set.Decide(t.Context(), ask)
	if err != nil || d.Allow || d.RetryAfterMs == nil || *d.RetryAfterMs != 1900 {
		t.Fatalf("%+v, %v", d, err)
	}
	ask.Limits["global"] = map[string]Limit{"all": {Kind: KindRate, Limit: 1, Used: 0, RetryAfterMs: 1}}
	if d, err = set.Decide(t.Context(), ask); err != nil || d.Allow || d.RetryAfterMs != nil {
		t.Fatalf("a request that never fits gets advice: %+v, %v", d, err)
	}
	ask.Limits = map[string]map[string]Limit{"tenant": {"api": {Kind: KindRate, Limit: 10, Used: 8}}}
	if d, err = set.Decide(t.Context(), ask); err != nil || !d.Allow {
		t.Fatalf("%+v, %v", d, err)
	}
}

// packOf is a pack test.pack with these rules.
func packOf(t testing.TB, rego string) (*Pack, error) {
	t.Helper()
	s, err := ReadSource(fstest.MapFS{
		".manifest": {Data: []byte(`{"roots": ["test/pack"], "rego_version": 1}`)},
		"pack.rego": {Data: []byte("package test.pack\n\n" + rego)},
	})
	if err != nil {
		return nil, err
	}
	return Compile(s)
}

// deny is a deny rule with a body.
func deny(body string) string {
	return `# METADATA
# title: Denied
# description: A test denies.
# custom:
#   severity: low
#   remediation: Change the test.
# labels:
#   rule: pack.denied
violation contains {"rule": "pack.denied", "reason": reason} if {
` + body + "\n}\n"
}

// TestWhatPacksMayNotUse: nothing that is not a pure function compiles.
func TestWhatPacksMayNotUse(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "get", "url": "http://127.0.0.1"})`, `time.now_ns()`, `opa.runtime()`, `rand.intn("x", 5)`, `uuid.rfc4122("x")`,
		`net.lookup_ip_addr("localhost")`, `numbers.range(1, 1000000000)`, `io.jwt.decode("x")`, `json.unmarshal("[]")`, `replace("a", "a", "aa")`,
		`strings.repeat("a", 9)`, `bits.lsh(1, 1000000000)`, `rego.parse_module("a", "b")`, `walk(input)`, `trace("x")`, `regex.replace("a", "a", "aa")`,
	} {
		_, err := packOf(t, deny("\tx := "+call+"\n\treason := sprintf(\"%v\", [x])"))
		if code := CodeOf(err); code != CodeCapability && code != CodeModule {
			t.Errorf("%s: %v", call, err)
		}
	}
	if _, err := packOf(t, deny("\treason := `x`")); err != nil {
		t.Error(err)
	}
}

// TestEvaluationsAreBounded: a pack that would run for ever, or fill the memory, ends with its code, and is no decision.
func TestEvaluationsAreBounded(t *testing.T) {
	doubled, joined, squared := "\tx0 := `0123456789`\n", "\tx0 := `0123456789`\n", "\tx0 := 1234567890\n"
	for i := range 60 {
		doubled += fmt.Sprintf("\tx%d := sprintf(\"%%s%%s\", [x%d, x%d])\n", i+1, i, i)
		joined += fmt.Sprintf("\tx%d := concat(x%d, [x%d, x%d])\n", i+1, i, i, i)
		squared += fmt.Sprintf("\tx%d := x%d * x%d\n", i+1, i, i)
	}
	many := "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
	for name, c := range map[string]struct {
		body string
		want Code
	}{
		"steps":            {"\tsome a in " + many + "\n\tsome b in " + many + "\n\tsome c in " + many + "\n\tsome d in " + many + "\n\tsome e in " + many + "\n\ta + b + c + d + e == 99\n\treason := `x`", CodeSteps},
		"comprehension":    {"\tx := [[a, b, c, d, e] | some a in " + many + "; some b in " + many + "; some c in " + many + "; some d in " + many + "; some e in " + many + "]\n\tcount(x) > 0\n\treason := `x`", CodeSteps},
		"doubled text":     {doubled + "\treason := x60", CodeEval},
		"joined text":      {joined + "\treason := x60", CodeEval},
		"squared number":   {squared + "\treason := sprintf(\"%d\", [x60])", CodeEval},
		"padded text":      {"\treason := sprintf(\"%999999999d\", [1])", CodeEval},
		"width by value":   {"\treason := sprintf(\"%*d\", [999999999, 1])", CodeEval},
		"values in a text": {"\treason := sprintf(\"%v\", [input])", CodeEval},
		"two values":       {"\treason := two\n}\n\ntwo := `a` if true\n\ntwo := `b` if true\n\nthree if {\n\ttrue", CodeEval},
		"too many reasons": {"\tsome a in " + many + "\n\tsome b in " + many + "\n\tsome c in " + many + "\n\treason := sprintf(\"%d%d%d\", [a, b, c])", CodeResult},
		"no text":          {"\treason := 5", CodeResult},
	} {
		p, err := packOf(t, deny(c.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, err := NewSet(p)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := s.Decide(t.Context(), &Input{}); CodeOf(err) != c.want || d.Allow {
			t.Errorf("%s: %+v, %v; want %s", name, d, err, c.want)
		}
	}
	p, err := packOf(t, deny("\treason := concat(\", \", [sprintf(\"%s%%%d\", [`x`, 1]), \"y\"])"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSet(p)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := s.Decide(t.Context(), &Input{}); err != nil || d.Reasons[0].Text != "x%1, y" {
		t.Errorf("texts below the bound: %+v, %v", d, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := s.Decide(ended, &Input{}); CodeOf(err) != CodeTime || d.Allow {
		t.Errorf("after its time: %+v, %v", d, err)
	}
	large := &Input{Subject: Subject{Attributes: map[string]string{"x": strings.Repeat("x", MaxInput)}}}
	if d, err := s.Decide(t.Context(), large); CodeOf(err) != CodeInput || d.Allow {
		t.Errorf("a large input: %+v, %v", d, err)
	}
}

// TestLint: a deny rule without what every one has does not compile, and all that is wrong is said.
func TestLint(t *testing.T) {
	whole := deny("\treason := `x`")
	for _, c := range []struct{ cut, put, want string }{
		{"# title: Denied\n", "", "title"},
		{"# description: A test denies.\n", "", "description"},
		{"#   remediation: Change the test.\n", "", "custom.remediation"},
		{"#   remediation: Change the test.\n", "#   remediation: \" \"\n", "custom.remediation"},
		{"#   severity: low\n", "#   severity: grave\n", "custom.severity"},
		{"#   rule: pack.denied\n", "#   rule: pack.other\n", "labels.rule"},
		{"#   rule: pack.denied\n", "#   rule: pack.denied\n#   owner: me\n", "labels.rule"},
		{`"rule": "pack.denied"`, `"rule": "other.denied"`, "must be pack."},
		{`"reason": reason`, `"because": reason`, "no key reason"},
		{`{"rule": "pack.denied", "reason": reason}`, "reason", "the head must be an object"},
	} {
		text := strings.Replace(whole, c.cut, c.put, 1)
		if text == whole {
			t.Fatalf("%q is not in the rule", c.cut)
		}
		if _, err := packOf(t, text); CodeOf(err) != CodeLint || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v", c.put, c.cut, err)
		}
	}
	if _, err := packOf(t, whole+"\n"+whole); CodeOf(err) != CodeLint || !strings.Contains(err.Error(), "already") {
		t.Errorf("a rule twice: %v", err)
	}
	if _, err := packOf(t, "allow if true"); CodeOf(err) != CodeLint {
		t.Errorf("no deny rule: %v", err)
	}
	if _, err := packOf(t, whole[strings.Index(whole, "violation"):]); CodeOf(err) != CodeLint {
		t.Errorf("no metadata: %v", err)
	}
}

// TestReplaceIsAtomic: whoever decides while packs change has a whole set, and a set in use goes on.
func TestReplaceIsAtomic(t *testing.T) {
	var e Engine
	if _, err := e.Decide(t.Context(), &Input{}); err == nil {
		t.Error("an engine without packs decides")
	}
	e.Activate(builtInSet(t))
	before := e.Active()
	p, err := packOf(t, deny("\treason := `always`"))
	if err != nil {
		t.Fatal(err)
	}
	in := &Input{Tenant: "acme", Subject: Subject{ID: "t", Tenant: "acme", Roles: []string{"runner"}}, Action: "execution.start", Cost: 1}
	done := make(chan error)
	for range 4 {
		go func() {
			for range 200 {
				d, err := e.Decide(context.Background(), in)
				if err == nil && d.Allow != (len(d.Packs) == 3) {
					err = fmt.Errorf("a torn set: %+v", d)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 50 {
		if err := e.Replace(p); err != nil {
			t.Error(err)
		}
		e.Activate(before)
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if d, err := before.Decide(t.Context(), in); err != nil || !d.Allow {
		t.Errorf("%+v, %v", d, err)
	}
}

// benchInput is a request that meets three levels of limits.
func benchInput() *Input {
	return &Input{
		Tenant: "acme", Subject: Subject{ID: "tok_17", Tenant: "acme", Roles: []string{"runner"}, Attributes: map[string]string{"group": "ops"}},
		Action: "execution.start", Resource: Resource{Kind: "workflow", ID: "restore", Attributes: map[string]string{"group": "ops"}},
		ExecutionID: "exec_123", Token: "tok_17", Key: "export", Cost: 1,
		Limits: map[string]map[string]Limit{
			"tenant": {"acme-api": {Kind: KindRate, Limit: 1000, Used: 120, RetryAfterMs: 5}},
			"token":  {"per-token": {Kind: KindRate, Limit: 100, Used: 7, RetryAfterMs: 5}},
			"key":    {"exports": {Kind: KindRate, Limit: 10, Used: 3, RetryAfterMs: 5}},
		},
		Quotas: map[string]Quota{"executions": {Limit: 100_000, Used: 512}},
	}
}

// BenchmarkAuthorize is an allowed decision of the three packs over three levels of limits, which make bench-policies runs.
func BenchmarkAuthorize(b *testing.B) {
	set, in := builtInSet(b), benchInput()
	b.ReportAllocs()
	for b.Loop() {
		if d, err := set.Decide(b.Context(), in); err != nil || !d.Allow {
			b.Fatalf("%+v, %v", d, err)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	set := builtInSet(b)
	denied := benchInput()
	denied.Limits["key"]["exports"] = Limit{Kind: KindRate, Limit: 10, Used: 10, RetryAfterMs: 900}
	for name, in := range map[string]*Input{"allow": benchInput(), "deny": denied} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := set.Decide(b.Context(), in)
				if err != nil || d.Allow != (name == "allow") {
					b.Fatalf("%+v, %v", d, err)
				}
			}
		})
	}
	for _, p := range set.packs {
		b.Run(p.ref.Name, func(b *testing.B) {
			value, err := benchInput().value()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.evaluate(b.Context(), value, evalOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("input", func(b *testing.B) {
		in := benchInput()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := in.value(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestSplitIsBounded: a text that is split again for each of its parts would take a gigabyte within the bound of steps.
func TestSplitIsBounded(t *testing.T) {
	source := func(text string) *Source {
		s, err := newSource([]File{
			{".manifest", []byte(`{"revision": "1", "roots": ["mc/bomb"], "rego_version": 1}`)},
			{"bomb.rego", []byte(`# METADATA
# title: Bomb
# description: A bomb.
package mc.bomb

# METADATA
# title: Rule
# description: It splits.
# custom:
#   severity: low
#   remediation: Do not.
# labels:
#   rule: bomb.split
violation contains {"rule": "bomb.split", "reason": "split"} if {
	parts := split(input.key, "")
	again := [split(input.key, "") | some _ in parts]
	count(again) == ` + text + `
}
`)},
		})
		must(t, s, err)
		return s
	}
	for text, c := range map[string]struct {
		key     string
		refused bool
	}{"200": {strings.Repeat("x", 200), false}, "60000": {strings.Repeat("x", 60_000), true}} {
		pack, err := Compile(source(text))
		must(t, pack, err)
		set, err := NewSet(pack)
		must(t, set, err)
		d, err := set.Decide(context.Background(), &Input{Action: "x", Key: c.key})
		if (err != nil) != c.refused || !c.refused && d.Allow {
			t.Errorf("%s parts: %+v, %v", text, d, err)
		}
	}
}
