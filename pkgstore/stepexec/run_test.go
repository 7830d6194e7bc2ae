package stepexec

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

func TestValuesFlowFromInputsToOutputs(t *testing.T) {
	s := source{
		inputs: `  count: {type: integer, default: 2, minimum: 1}
  names: {type: array, items: {type: string}, default: [a, b]}
  absent: {type: string}`,
		outputs: `  total: {type: integer, from: steps.add.total}
  fine: {type: boolean, from: steps.add.fine}
  never: {type: string, from: steps.skipped.x}`,
		steps: step("first", `echo "n=$COUNT" >>"$MAESTRO_OUTPUT"; echo "$NAMES ${ABSENT-unset}"; cat data.txt; echo kept >"$MAESTRO_WORK/f"`,
			`env: {COUNT: "${inputs.count}", NAMES: "${inputs.names}", ABSENT: "${inputs.absent}"}`, "outputs: [n]") +
			step("add", `cat "$MAESTRO_WORK/f"; echo "total=$((N + 40))" >>"$MAESTRO_OUTPUT"; echo fine=true >>"$MAESTRO_OUTPUT"`,
				"needs: [first]", `env: {N: "${steps.first.n}"}`, "outputs: [total, fine]") +
			step("skipped", "exit 9", "needs: [add]", `if: steps.add.total == 41`, "outputs: [x]") +
			step("taken", "exit 0", "needs: [add]", `if: "steps.add.total == 42 && steps.add.fine == \"true\" && !steps.add.failed"`),
		files: map[string]string{"data.txt": "from the package\n"},
	}
	eachLevel(t, func(t *testing.T, o Options) {
		r := mustRun(t, s, o)
		expect(t, r, "succeeded first=succeeded add=succeeded skipped=skipped taken=succeeded")
		if got := logOf(t, r, "first"); got != "[\"a\",\"b\"] unset\nfrom the package\n" {
			t.Errorf("%q", got)
		}
		if r.Outputs["total"] != int64(42) || r.Outputs["fine"] != true || len(r.Outputs) != 2 {
			t.Errorf("outputs %v", r.Outputs)
		}
		if r.Package != "test@1.0.0" || len(r.ContentDigest) != 71 || len(r.Inputs) != 2 || r.Inputs[0] != (Value{Name: "count", Digest: digest([]byte("2"))}) {
			t.Errorf("%+v", r)
		}
		if out := r.Steps[0].Outputs; len(out) != 1 || out[0] != (Value{Name: "n", Digest: digest([]byte("2"))}) {
			t.Errorf("%+v", out)
		}
	})
}

func TestStepsSeeNothingOfTheCallersEnvironment(t *testing.T) {
	t.Setenv("MAESTRO_TOKEN", "the caller's")
	eachLevel(t, func(t *testing.T, o Options) {
		r := mustRun(t, source{steps: step("look", "env | cut -d = -f 1 | sort | tr '\\n' ' '")}, o)
		const want = "HOME LC_ALL MAESTRO_ARTIFACTS MAESTRO_ATTEMPT MAESTRO_OUTPUT MAESTRO_STEP MAESTRO_WORK PATH PWD TMPDIR TZ "
		if got := logOf(t, r, "look"); strings.ReplaceAll(strings.ReplaceAll(got, "OLDPWD ", ""), "_ ", "") != want {
			t.Errorf("%q", got)
		}
	})
}

func TestWhatRunsAfterAFailure(t *testing.T) {
	s := source{steps: step("bad", "exit 7") +
		step("dependent", "exit 0", "needs: [bad]") +
		step("further", "exit 0", "needs: [dependent]") +
		step("other", "exit 0") +
		step("rollback", "exit 0", "needs: [bad]", "if: steps.bad.failed") +
		step("cleanup", "exit 0", "needs: [bad, further]", "always: true")}
	eachLevel(t, func(t *testing.T, o Options) {
		r := mustRun(t, s, o)
		expect(t, r, "failed bad=failed(exit_status) dependent=skipped further=skipped other=succeeded rollback=succeeded cleanup=succeeded")
		if r.Reason != ReasonExit || r.Detail != "step bad failed: the program ended with status 7" || r.Steps[0].Attempts[0].ExitCode != 7 {
			t.Errorf("%s: %s, %+v", r.Reason, r.Detail, r.Steps[0].Attempts)
		}
	})
}

func TestRetries(t *testing.T) {
	s := source{steps: step("flaky", `echo "$MAESTRO_ATTEMPT" >>"$MAESTRO_WORK/tries"; cat "$MAESTRO_WORK/tries"; [ "$MAESTRO_ATTEMPT" = 3 ]`, "retry: {max: 5, backoff: 1ms}") +
		step("hopeless", "exit 1", "retry: {max: 2, backoff: 1ms}")}
	eachLevel(t, func(t *testing.T, o Options) {
		r := mustRun(t, s, o)
		expect(t, r, "failed flaky=succeeded hopeless=failed(exit_status)")
		if len(r.Steps[0].Attempts) != 3 || len(r.Steps[1].Attempts) != 3 || logOf(t, r, "flaky") != "1\n2\n3\n" {
			t.Errorf("%+v", r.Steps)
		}
	})
}

// Two steps that wait for each other succeed only beside each other.
func TestStepsRunBesideEachOtherAsFarAsTheManifestSays(t *testing.T) {
	meet := func(own, other string) string {
		return step(own, `touch "$MAESTRO_WORK/`+own+`"; while [ ! -e "$MAESTRO_WORK/`+other+`" ]; do sleep 0.01; done`, "timeout: 1m")
	}
	eachLevel(t, func(t *testing.T, o Options) {
		expect(t, mustRun(t, source{steps: meet("a", "b") + meet("b", "a"), resources: "  timeout: 2m\n  maxParallel: 2"}, o), "succeeded a=succeeded b=succeeded")
		alone := `mkdir "$MAESTRO_WORK/alone"; sleep 0.05; rmdir "$MAESTRO_WORK/alone"`
		expect(t, mustRun(t, source{steps: step("a", alone) + step("b", alone) + step("c", alone)}, o), "succeeded a=succeeded b=succeeded c=succeeded")
	})
}

func TestStepsThatNeverEnd(t *testing.T) {
	s := source{steps: step("endless", `trap '' TERM INT HUP; (setsid sleep 1000 &); while :; do sleep 1000; done`, "timeout: 300ms") +
		step("cleanup", "echo cleared", "needs: [endless]", "always: true")}
	eachLevel(t, func(t *testing.T, o Options) {
		r := mustRun(t, s, o)
		expect(t, r, "failed endless=failed(timeout) cleanup=succeeded")
	})
}

func TestTheRunsOwnTimeAndItsCleanup(t *testing.T) {
	s := source{resources: "  timeout: 300ms", steps: step("endless", "sleep 1000") + step("later", "exit 0") + step("cleanup", "echo cleared", "needs: [endless]", "always: true")}
	eachLevel(t, func(t *testing.T, o Options) {
		expect(t, mustRun(t, s, o), "failed endless=failed(timeout) later=skipped cleanup=succeeded")
	})
}

func TestTheCallerEndsARun(t *testing.T) {
	s := source{steps: step("endless", "sleep 1000") + step("cleanup", "echo cleared", "needs: [endless]", "always: true")}
	eachLevel(t, func(t *testing.T, o Options) {
		ctx, cancel := context.WithCancel(t.Context())
		o.Progress = func(s StepReport) {
			if s.ID == "endless" && s.Status == StatusRunning {
				cancel()
			}
		}
		r, err := execute(ctx, t, s, o)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, r, "cancelled endless=cancelled cleanup=succeeded")
	})
}

func TestArtifacts(t *testing.T) {
	s := source{steps: step("write", `mkdir -p "$MAESTRO_ARTIFACTS/sub"; printf abc >"$MAESTRO_ARTIFACTS/sub/f.txt"`)}
	eachLevel(t, func(t *testing.T, o Options) {
		o.Artifacts = t.TempDir()
		r := mustRun(t, s, o)
		want := Artifact{Path: "sub/f.txt", Bytes: 3, Digest: digest([]byte("abc"))}
		if !slices.Equal(r.Artifacts, []Artifact{want}) {
			t.Errorf("%+v", r.Artifacts)
		}
		if text, err := os.ReadFile(filepath.Join(o.Artifacts, "sub/f.txt")); err != nil || string(text) != "abc" {
			t.Errorf("%q %v", text, err)
		}
	})
}

func TestSecretsReachStepsAndNothingElse(t *testing.T) {
	const secret = "correct horse/battery+staple"
	s := source{
		inputs:       "  password: {type: secretRef, required: true}",
		example:      "inputs: {password: team/db}\nsecrets: {password: invented-one}\n",
		capabilities: "  secrets: [password]",
		steps: step("use", `printf '%s\n' "$PASSWORD"; printf %s "$PASSWORD" | base64; printf %s "$PASSWORD" | wc -c; echo "$PASSWORD" >&2`, `env: {PASSWORD: "${inputs.password}"}`) +
			step("others", `env`, "needs: [use]") +
			step("leak", `echo "x=prefix-$PASSWORD" >>"$MAESTRO_OUTPUT"`, `env: {PASSWORD: "${inputs.password}"}`, "outputs: [x]"),
	}
	eachLevel(t, func(t *testing.T, o Options) {
		o.Inputs = map[string]any{"password": "team/db"}
		o.Secret = func(_ context.Context, input, name string) (string, error) {
			if input != "password" || name != "team/db" {
				t.Errorf("asked for %s %s", input, name)
			}
			return secret, nil
		}
		r := mustRun(t, s, o)
		expect(t, r, "failed use=succeeded others=succeeded leak=failed(secret_in_output)")
		if got := strings.ReplaceAll(logOf(t, r, "use"), " ", ""); got != "***\n***\n28\n***\n" {
			t.Errorf("%q", got)
		}
		text, err := json.Marshal(r)
		if err != nil || strings.Contains(string(text), "horse") || strings.Contains(string(text), "team/db") {
			t.Errorf("the report holds the secret or its name: %s %v", text, err)
		}
		if r.Inputs[0] != (Value{Name: "password", Secret: true}) {
			t.Errorf("%+v", r.Inputs)
		}
	})
	if _, err := execute(t.Context(), t, s, Options{Dir: t.TempDir(), NoIsolation: true, Inputs: map[string]any{"password": "team/db"}}); !errors.Is(err, ErrInputs) {
		t.Errorf("a run without secrets: %v", err)
	}
}

func TestExamplesAreCompared(t *testing.T) {
	s := source{outputs: "  n: {type: integer, from: steps.one.n}", steps: step("one", `echo n=3 >>"$MAESTRO_OUTPUT"`, "outputs: [n]")}
	p, err := s.build()
	if err != nil {
		t.Fatal(err)
	}
	want := mwpkg.Expect{Status: "failed", Steps: map[string]string{"one": "skipped"}, Outputs: map[string]any{"n": 4, "m": 1}}
	_, mismatches, err := RunExample(t.Context(), Options{Package: p, NoIsolation: true}, mwpkg.Example{Expect: want})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(mismatches, "\n"); got != "the run is succeeded; the example expects failed\nstep one is succeeded; the example expects skipped\n"+
		"output m is absent; the example expects 1\noutput n is 3; the example expects 4" {
		t.Errorf("%s", got)
	}
	want = mwpkg.Expect{Status: "succeeded", Outputs: map[string]any{"n": 3}}
	if _, mismatches, err = RunExample(t.Context(), Options{Package: p, NoIsolation: true}, mwpkg.Example{Expect: want}); err != nil || len(mismatches) > 0 {
		t.Errorf("%v %v", mismatches, err)
	}
}
