package stepexec

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/maestro-conductor/maestro/internal/sandbox"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Steps that do what they must not: each ends with its reason, and harms nothing.
func TestHostileSteps(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("x=secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ script, want string }{
		"one large file":           {`exec head -c 1000000000 /dev/zero >"$MAESTRO_WORK/big"`, "failed s=failed(signal)"},
		"many large files":         {`i=0; while :; do head -c 50000000 /dev/zero >"$MAESTRO_WORK/$i"; i=$((i + 1)); done`, "failed s=failed(folder_too_large)"},
		"many files":               {`mkdir "$TMPDIR/m"; cd "$TMPDIR/m"; seq 1 30000 | xargs touch`, "failed s=failed(folder_too_large)"},
		"endless output":           {`yes`, "failed s=failed(log_too_large)"},
		"link as artifact":         {`ln -s ` + outside + ` "$MAESTRO_ARTIFACTS/report"`, "failed s=succeeded"},
		"folder link as artifact":  {`ln -s / "$MAESTRO_ARTIFACTS/all"`, "failed s=succeeded"},
		"pipe as artifact":         {`mkfifo "$MAESTRO_ARTIFACTS/pipe"`, "failed s=succeeded"},
		"link as outputs":          {`rm "$MAESTRO_OUTPUT"; ln -s ` + outside + ` "$MAESTRO_OUTPUT"`, "failed s=failed(outputs_invalid)"},
		"pipe as outputs":          {`rm "$MAESTRO_OUTPUT"; mkfifo "$MAESTRO_OUTPUT"`, "failed s=failed(outputs_invalid)"},
		"no outputs":               {`rm "$MAESTRO_OUTPUT"`, "failed s=failed(outputs_invalid)"},
		"large outputs":            {`head -c 100000 /dev/zero | tr '\0' '\n' >"$MAESTRO_OUTPUT"`, "failed s=failed(outputs_invalid)"},
		"large output":             {`{ printf x=; head -c 5000 /dev/zero | tr '\0' x; } >"$MAESTRO_OUTPUT"`, "failed s=failed(outputs_invalid)"},
		"undeclared output":        {`echo y=1 >"$MAESTRO_OUTPUT"`, "failed s=failed(outputs_invalid)"},
		"outputs that are none":    {`echo nothing >"$MAESTRO_OUTPUT"`, "failed s=failed(outputs_invalid)"},
		"output of another type":   {`echo x=many >"$MAESTRO_OUTPUT"`, "failed s=succeeded"},
		"killed":                   {`kill -KILL $$`, "failed s=failed(signal)"},
		"leaves processes running": {`(setsid sleep 1000 &); (sleep 1000 &)`, "succeeded s=succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			eachLevel(t, func(t *testing.T, o Options) {
				o.Artifacts = t.TempDir()
				r := mustRun(t, source{steps: step("s", c.script, "outputs: [x]", "timeout: 2m"), outputs: "  x: {type: integer, from: steps.s.x}"}, o)
				expect(t, r, c.want)
				if kept, err := os.ReadDir(o.Artifacts); err != nil || len(kept) > 0 {
					t.Errorf("artifacts %v %v", kept, err)
				}
				if strings.Contains(name, "artifact") && r.Reason != ReasonArtifacts || name == "output of another type" && r.Reason != ReasonOutputs {
					t.Errorf("the reason is %s", r.Reason)
				}
			})
		})
	}
}

// What is in a folder that its step has closed cannot be counted, unless by root.
func TestClosedFolders(t *testing.T) {
	want := "failed s=failed(folder_too_large)"
	if os.Getuid() == 0 {
		want = "succeeded s=succeeded"
		asNobody(t)
	}
	for _, mode := range []string{"0", "400", "100"} {
		eachLevel(t, func(t *testing.T, o Options) {
			script := `mkdir -p "$MAESTRO_WORK/a/b"; echo x >"$MAESTRO_WORK/a/x"; chmod ` + mode + ` "$MAESTRO_WORK/a"`
			expect(t, mustRun(t, source{steps: step("s", script)}, o), want)
		})
	}
}

// asNobody runs the calling test again as a user without rights.
func asNobody(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	// The path of the binary is for root alone; the link is not.
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// A log that ends within a secret, wherever, does not end with a part of it.
func TestAFullLogHoldsNoPartOfASecret(t *testing.T) {
	const secret = "correct horse/battery+staple"
	for _, secrets := range [][]string{{secret}, {secret, "r"}, {"first line\n" + secret + "\nlast"}} {
		m := newMasker(secrets)
		whole := secrets[0]
		for shown := range len(whole) {
			log := &boundedLog{full: func() {}}
			_, _ = log.Write([]byte(strings.Repeat(".", MaxLog-shown) + whole))
			got := log.masked(m)
			if end := strings.TrimLeft(got, "."); end != "" || len(got) < MaxLog-8*len(whole) {
				t.Errorf("%d bytes of %q: the log of %d bytes ends with %q", shown, whole, len(got), end)
			}
		}
	}
	// One that is not full keeps its end.
	log := &boundedLog{full: func() {}}
	_, _ = log.Write([]byte("a " + secret + " z"))
	if got := log.masked(newMasker([]string{secret})); got != "a *** z" {
		t.Errorf("got %q", got)
	}
	eachLevel(t, func(t *testing.T, o Options) {
		s := source{
			inputs: "  p: {type: secretRef, required: true}", example: "inputs: {p: n}\nsecrets: {p: invented-one}\n", capabilities: "  secrets: [p]",
			steps: step("s", `head -c `+strconv.Itoa(MaxLog-9)+` /dev/zero | tr '\0' .; printf %s "$P"; exec sleep 1000`, `env: {P: "${inputs.p}"}`),
		}
		o.Inputs = map[string]any{"p": "n"}
		o.Secret = func(context.Context, string, string) (string, error) { return secret, nil }
		r := mustRun(t, s, o)
		expect(t, r, "failed s=failed(log_too_large)")
		if end := strings.TrimLeft(logOf(t, r, "s"), "."); end != "" {
			t.Errorf("the log ends with %q", end)
		}
	})
}

// The network is there for a step that declares it when the caller grants it, and else is not.
func TestNetworkIsDeclaredAndGranted(t *testing.T) {
	if err := sandbox.Probe(t.Context()); err != nil {
		t.Skip(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The interfaces of a network namespace: the new one has lo alone, which is down.
	const look = `grep -c : /proc/self/net/dev; cat /proc/self/net/tcp | wc -l`
	s := source{
		capabilities: `  network: {egress: ["*:443"]}`,
		steps:        step("declares", look, `egress: ["*:443"]`) + step("asks", look),
	}
	r := mustRun(t, s, Options{Dir: t.TempDir()})
	if got := logOf(t, r, "declares"); got != "1\n1\n" || r.Steps[0].Network {
		t.Errorf("not granted: %q", got)
	}
	r = mustRun(t, s, Options{Dir: t.TempDir(), AllowNetwork: true})
	if got := logOf(t, r, "declares"); strings.HasSuffix(got, "\n1\n") || !r.Steps[0].Network || !r.Network {
		t.Errorf("granted: %q", got)
	}
	if got := logOf(t, r, "asks"); got != "1\n1\n" || r.Steps[1].Network {
		t.Errorf("not declared: %q", got)
	}
}

func TestRunsThatCannotBegin(t *testing.T) {
	s := source{inputs: "  n: {type: integer, required: true, maximum: 9}", example: "inputs: {n: 1}\n", steps: step("s", "exit 0", `env: {N: "${inputs.n}"}`)}
	for name, inputs := range map[string]map[string]any{
		"missing input":    {},
		"undeclared input": {"n": 1, "m": 1},
		"wrong type":       {"n": "many"},
		"out of range":     {"n": 10},
	} {
		if _, err := execute(t.Context(), t, s, Options{Dir: t.TempDir(), NoIsolation: true, Inputs: inputs}); !errors.Is(err, ErrInputs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What mwpkg refuses is refused here too, where a program makes the manifest.
	for name, steps := range map[string][]mwpkg.Step{
		"circle":       {{ID: "a", Run: []string{"sh"}, Needs: []string{"b"}}, {ID: "b", Run: []string{"sh"}, Needs: []string{"a"}}},
		"itself":       {{ID: "a", Run: []string{"sh"}, Needs: []string{"a"}}},
		"unknown step": {{ID: "a", Run: []string{"sh"}, Needs: []string{"nobody"}}},
		"image":        {{ID: "a", Run: []string{"sh"}, Image: "x@sha256:00"}},
	} {
		p := &mwpkg.Package{Manifest: &mwpkg.Manifest{Workflow: mwpkg.Workflow{Steps: steps}}}
		if _, err := Run(t.Context(), Options{Package: p, NoIsolation: true}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]source{
		"circle":                        {steps: step("a", "exit 0", "needs: [b]") + step("b", "exit 0", "needs: [a]")},
		"unknown step in if":            {steps: step("a", "exit 0", "if: steps.nobody.ok")},
		"step in if that is not needed": {steps: step("a", "exit 0") + step("b", "exit 0", "if: steps.a.ok")},
		"secret as argument": {
			inputs: "  p: {type: secretRef, required: true}", example: "inputs: {p: n}\nsecrets: {p: invented-one}\n", capabilities: "  secrets: [p]",
			steps: "    - id: a\n      run: [sh, \"${inputs.p}\"]\n",
		},
	} {
		var refused *mwpkg.Error
		if _, err := bad.build(); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Log(refused)
		}
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	eachLevel(t, func(t *testing.T, o Options) {
		p, err := source{steps: step("s", "exit 0")}.build()
		if err != nil {
			t.Fatal(err)
		}
		p.Manifest.Workflow.Steps[0].Run = []string{"no-such-program"}
		p.Manifest.Workflow.Steps[0].Retry = mwpkg.Retry{Max: 3, Backoff: 1 << 40}
		o.Package = p
		r, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, r, "failed s=failed(program_not_found)")
	})
}

// On a machine that refuses namespaces, as many that build and test do, a run says so and does
// nothing, unless the caller allows to run without isolation.
func TestAMachineThatRefusesIsolation(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the machine is made with Linux namespaces")
	}
	if os.Getenv("MAESTRO_TEST_REFUSED") == "" {
		// This test again, as root of a user namespace in which there may be no further one.
		cmd := exec.Command("unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@"`,
			os.Args[0], "-test.run", "^TestAMachineThatRefusesIsolation$", "-test.v")
		if sandbox.Probe(t.Context()) != nil {
			cmd = exec.Command(os.Args[0], cmd.Args[7:]...) // this is such a machine
		}
		cmd.Env = append(os.Environ(), "MAESTRO_TEST_REFUSED=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestAMachineThatRefusesIsolation") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	s := source{steps: step("s", "echo ran")}
	_, err := execute(t.Context(), t, s, Options{Dir: t.TempDir()})
	if !errors.Is(err, ErrIsolation) || !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "new namespaces") {
		t.Errorf("got %v", err)
	}
	r, err := execute(t.Context(), t, s, Options{Dir: t.TempDir(), AllowUnisolated: true})
	if err != nil || r.Isolation != sandbox.None || logOf(t, r, "s") != "ran\n" {
		t.Errorf("%+v %v", r, err)
	}
}
