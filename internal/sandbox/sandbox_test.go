package sandbox

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Init()
	goleak.VerifyTestMain(m)
}

// machine is a command line in a folder of its own, at both levels of isolation where the
// machine permits both.
type machine struct {
	t         *testing.T
	isolation Isolation
	work      string // the writable folder, here
	network   bool
	limits    Limits
}

func eachLevel(t *testing.T, f func(t *testing.T, m *machine)) {
	for _, level := range []Isolation{Full, None} {
		t.Run(string(level), func(t *testing.T) {
			if level == Full {
				needIsolation(t)
			} else if runtime.GOOS != "linux" {
				t.Skip("limits and the end of all descendants need Linux")
			}
			f(t, &machine{t: t, isolation: level, work: t.TempDir()})
		})
	}
}

// needIsolation skips on machines that permit none, loudly where the environment says that it must work.
func needIsolation(t *testing.T) {
	t.Helper()
	if err := Probe(t.Context()); err != nil {
		if os.Getenv("MAESTRO_TEST_ISOLATION") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func (m *machine) run(ctx context.Context, args ...string) (string, Result, error) {
	var out bytes.Buffer
	r, err := Run(ctx, Command{
		Args: args, Dir: m.work, Env: []string{"PATH=" + Path, "COLOUR=blue"},
		Stdout: &out, Stderr: &out, Limits: m.limits, Network: m.network,
		Binds:     []Bind{{Host: m.work, At: m.work, Writable: true}},
		Isolation: m.isolation, Root: m.t.TempDir(),
	})
	return out.String(), r, err
}

func (m *machine) sh(script string) (string, Result) {
	m.t.Helper()
	out, r, err := m.run(m.t.Context(), "sh", "-c", script)
	if err != nil {
		m.t.Fatal(err)
	}
	return out, r
}

func TestTheProgramsEndIsReported(t *testing.T) {
	eachLevel(t, func(t *testing.T, m *machine) {
		if out, r := m.sh(`echo hello; echo $COLOUR; exit 3`); out != "hello\nblue\n" || r.ExitCode != 3 || r.Signal != "" {
			t.Errorf("%q %+v", out, r)
		}
		if _, r := m.sh(`kill -TERM $$`); r.Signal != "terminated" || r.ExitCode != -1 {
			t.Errorf("%+v", r)
		}
		if _, _, err := m.run(t.Context(), "no-such-program"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheEnvironmentIsTheGivenOne(t *testing.T) {
	t.Setenv("SECRET_OF_THE_CALLER", "x")
	eachLevel(t, func(t *testing.T, m *machine) {
		if out, _, err := m.run(t.Context(), "env"); err != nil || out != "PATH="+Path+"\nCOLOUR=blue\n" {
			t.Errorf("%q %v", out, err)
		}
	})
}

// Whatever a program leaves running ends with it, also where it left its session and its parent.
func TestNothingOutlivesTheProgram(t *testing.T) {
	eachLevel(t, func(t *testing.T, m *machine) {
		_, r := m.sh(`(setsid sh -c 'echo $$ > pid; exec sleep 1000' &) ; while [ ! -s pid ]; do :; done`)
		if r.ExitCode != 0 || r.Leftovers != 1 {
			t.Errorf("%+v", r)
		}
		if m.isolation == None {
			m.gone()
		}
	})
}

// gone fails when the process whose id the program wrote to the file pid still runs.
func (m *machine) gone() {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.work, "pid"))
	if err != nil {
		m.t.Fatal(err)
	}
	if cmdline, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/cmdline"); err == nil && strings.Contains(string(cmdline), "sleep") {
		m.t.Errorf("process %s still runs", text)
	}
}

func TestTheEndOfTheContextEndsEverything(t *testing.T) {
	eachLevel(t, func(t *testing.T, m *machine) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			look := time.NewTicker(time.Millisecond)
			defer look.Stop()
			for {
				select {
				case <-look.C:
					if text, _ := os.ReadFile(filepath.Join(m.work, "pid")); len(text) > 0 {
						cancel()
					}
				case <-ctx.Done():
					return
				}
			}
		}()
		_, _, err := m.run(ctx, "sh", "-c", `trap '' TERM INT HUP; (setsid sh -c 'echo $$ > pid; exec sleep 1000' &); sleep 1000; sleep 1000`)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		if m.isolation == None {
			m.gone()
		}
	})
}

func TestLimitsHold(t *testing.T) {
	eachLevel(t, func(t *testing.T, m *machine) {
		m.limits = Limits{FileBytes: 1 << 20, OpenFiles: 32, MemoryBytes: 64 << 20}
		if _, r := m.sh(`exec head -c 1000000000 /dev/zero > big`); r.Signal != "file size limit exceeded" {
			t.Errorf("%+v", r)
		}
		if info, err := os.Stat(filepath.Join(m.work, "big")); err != nil || info.Size() > 1<<20 {
			t.Errorf("%v %v", info, err)
		}
		if out, _ := m.sh(`ulimit -n; ulimit -Hn; ulimit -c`); out != "32\n32\n0\n" {
			t.Errorf("%q", out)
		}
		// tail keeps what may be the end in memory.
		if _, r := m.sh(`head -c 200000000 /dev/zero | tail -c 199999999 > /dev/null`); r.ExitCode == 0 {
			t.Errorf("200 MB were kept in memory: %+v", r)
		}
	})
}

func TestNetwork(t *testing.T) {
	needIsolation(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	m := &machine{t: t, isolation: Full, work: t.TempDir()}
	// The sockets of a network namespace can be read from /proc.
	if out, _ := m.sh(`cat /proc/self/net/tcp; ls /sys 2>&1; grep -c : /proc/self/net/dev`); strings.Contains(out, hexPort(port)) || !strings.HasSuffix(out, "\n1\n") {
		t.Errorf("without the network:\n%s", out)
	}
	m.network = true
	if out, _ := m.sh(`cat /proc/self/net/tcp`); !strings.Contains(out, hexPort(port)) {
		t.Errorf("with the network:\n%s", out)
	}
}

func hexPort(port string) string {
	n, _ := strconv.Atoi(port)
	return ":" + strings.ToUpper(strconv.FormatInt(int64(n)+1<<16, 16)[1:])
}

// Under full isolation a program finds the system's programs, its own folders and nothing else,
// and can write to its writable folders alone.
func TestTheMachineIsOutOfReach(t *testing.T) {
	needIsolation(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, isolation: Full, work: t.TempDir()}
	for script, want := range map[string]string{
		"cat " + outside:                                    "No such file",
		"ln -s " + outside + " link; cat link":              "No such file",
		"echo x > /usr/bin/x":                               "Read-only",
		"echo x > /x":                                       "Read-only",
		"echo x > /etc/passwd":                              "Read-only",
		"cat /etc/shadow":                                   "No such file",
		"ls /root /home /var":                               "No such file",
		"kill -9 1; echo alive":                             "alive",
		"ls -d /proc/" + strconv.Itoa(os.Getpid()):          "No such file",
		"mount -o remount,rw /usr":                          "", // refused, in words that differ
		"grep -h -e CapEff -e NoNewPrivs /proc/self/status": "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n",
		"unshare -Urm mount -o remount,bind,rw /usr && echo x > /usr/bin/x; ls /": "",
		"id -u; id -un": "1000\nstep\n",
		"cat /dev/urandom | head -c 1 > /dev/null && echo y > /dev/stdout": "y\n",
	} {
		out, r := m.sh(script)
		if !strings.Contains(out, want) || want == "" && r.ExitCode == 0 && !strings.Contains(script, "; ls /") {
			t.Errorf("%s\n%s%+v", script, out, r)
		}
	}
	if _, err := os.Stat("/usr/bin/x"); err == nil {
		t.Error("the program wrote to /usr/bin")
	}
}

// The kernel's refusal is told, and nothing runs.
func TestRefusedIsolationIsAnError(t *testing.T) {
	if runtime.GOOS == "linux" {
		needIsolation(t)
	}
	marker := filepath.Join(t.TempDir(), "ran")
	_, err := Run(t.Context(), Command{
		Args: []string{"touch", marker}, Dir: "/", Env: []string{"PATH=" + Path}, Isolation: Full,
		Root: "/no/such/folder", // a root that cannot be mounted, as on machines that forbid mounts
	})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "mount the root") && runtime.GOOS == "linux" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("the program ran")
	}
}
