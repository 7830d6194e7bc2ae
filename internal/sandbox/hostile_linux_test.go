package sandbox

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// alsoAsNobody runs the calling test again, as a user without rights, when this user is root.
func alsoAsNobody(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	// The path of the binary is for root alone; the link is not.
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) && !strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	t.Logf("as nobody:\n%s", out)
}

// The kernel's settings are root's to write, whatever its capabilities: no program finds them,
// also not in namespaces that it makes itself.
func TestTheKernelsSettingsAreOutOfReach(t *testing.T) {
	needIsolation(t)
	alsoAsNobody(t)
	m := &machine{t: t, isolation: Full, work: t.TempDir()}
	for _, reach := range []string{
		"true >>/proc/sys/kernel/core_pattern", "true >>/proc/sysrq-trigger", "cat /proc/sys/kernel/ostype", "ls /proc/sys", "ls /proc/kcore",
	} {
		if out, r := m.sh(reach); r.ExitCode == 0 {
			t.Errorf("%s succeeded:\n%s", reach, out)
		}
		for _, mount := range []string{"mount -t proc proc /proc", "mount -t proc proc x", "umount /proc/1/fdinfo; umount /proc; mount -t proc proc x"} {
			there := strings.ReplaceAll(reach, "/proc/", "./")
			script := "mkdir -p x; unshare -Urmpf sh -c '" + mount + "; " + reach + " || { cd x; test -d ./1 && " + there + "; }'"
			if out, r := m.sh(script); r.ExitCode == 0 {
				t.Errorf("%s succeeded:\n%s", script, out)
			}
		}
	}
	if out, r := m.sh("grep -c . /proc/self/status && ls /proc/self/fd /dev/fd/"); r.ExitCode != 0 {
		t.Errorf("a program does not find itself:\n%s", out)
	}
}

// A kernel that does not know how to leave its settings out is found out.
func TestAWholeProcIsRefused(t *testing.T) {
	if err := processesAlone("/proc"); err == nil || !strings.Contains(err.Error(), "/sys") {
		t.Errorf("got %v", err)
	}
	if err := processesAlone(t.TempDir()); err != nil {
		t.Error(err)
	}
}

// Trusted certificates are shown and the private keys that lie beside them are not.
func TestPrivateKeysAreNotShown(t *testing.T) {
	for _, keys := range []string{"/etc/ssl/private/x.key", "/etc/pki/tls/private/x.key", "/etc/pki/nssdb/key4.db", "/etc/pki/rpm-gpg/x"} {
		for _, shown := range systemFiles {
			if strings.HasPrefix(keys, shown+"/") {
				t.Errorf("%s shows %s", shown, keys)
			}
		}
	}
	needIsolation(t)
	m := &machine{t: t, isolation: Full, work: t.TempDir()}
	if out, r := m.sh("ls -d /etc/ssl/private /etc/pki/tls/private"); r.ExitCode == 0 || strings.Contains(out, "/private\n") {
		t.Errorf("private keys are shown:\n%s", out)
	}
	for _, shown := range []string{"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust"} {
		if _, err := os.Stat(shown); err != nil {
			continue
		}
		if out, r := m.sh("ls " + shown); r.ExitCode != 0 {
			t.Errorf("%s is not shown:\n%s", shown, out)
		}
	}
}
