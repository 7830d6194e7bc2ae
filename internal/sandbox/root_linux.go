package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// systemFolders hold programs and their libraries; they are visible, read-only, where they exist.
var systemFolders = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store"}

// systemFiles are the parts of /etc that programs need; no others are visible. Of certificates
// these are the trusted ones alone: private keys lie beside them.
var systemFiles = []string{
	"/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/tls/certs", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust", "/etc/ca-certificates", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/services", "/etc/protocols", "/etc/gai.conf",
}

var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// enter builds the root of c on c.Root and moves this process into it. Nothing of the
// machine's own mounts changes: they are another namespace's.
func enter(c Command) error {
	root := c.Root
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sandbox", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, name := range append(append([]string{}, systemFolders...), systemFiles...) {
		if err := mirror(root, name); err != nil {
			return fmt.Errorf("show %s: %w", name, err)
		}
	}
	for name, text := range map[string]string{ // any order: they do not overlap
		"/etc/passwd": fmt.Sprintf("step:x:%d:%d:step:/tmp:/bin/sh\n", innerID, innerID),
		"/etc/group":  fmt.Sprintf("step:x:%d:\n", innerID),
	} {
		if err := os.WriteFile(root+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := specials(root); err != nil {
		return err
	}
	for _, b := range c.Binds {
		if err := bind(b.Host, root+b.At, b.Writable); err != nil {
			return fmt.Errorf("show %s at %s: %w", b.Host, b.At, err)
		}
	}
	return turn(root)
}

// mirror shows a folder or file of the machine at its own place, read-only; a link stays a
// link where its target is shown too.
func mirror(root, name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 && filepath.Dir(name) == "/" { // /bin -> usr/bin
		target, err := os.Readlink(name)
		if err != nil {
			return err
		}
		return os.Symlink(target, root+name)
	}
	if _, err := os.Stat(name); err != nil {
		return nil // a link to nowhere, as resolv.conf may be
	}
	return bind(name, root+name, false)
}

// bind shows host at a place under the new root, where it makes a folder or file to mount on.
func bind(host, at string, writable bool) error {
	info, err := os.Stat(host)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(at, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
		err = os.WriteFile(at, nil, 0o644)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(host, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	if !writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return unix.MountSetattr(unix.AT_FDCWD, at, unix.AT_RECURSIVE, &attr)
}

// specials are /proc, of this namespace's processes alone, and a small /dev.
func specials(root string) error {
	if err := processes(root + "/proc"); err != nil {
		return err
	}
	for _, d := range devices {
		if err := bind(d, root+d, true); err != nil {
			return fmt.Errorf("show %s: %w", d, err)
		}
	}
	for name, target := range map[string]string{ // any order: they do not overlap
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, root+name); err != nil {
			return err
		}
	}
	return nil
}

// processes mounts a proc without the kernel's settings: those check the user alone, so that
// root's program, also without capabilities, could write to them.
func processes(proc string) error {
	if err := os.Mkdir(proc, 0o755); err != nil {
		return err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("proc", proc, "proc", flags, "subset=pid,hidepid=ptraceable"); err != nil {
		return fmt.Errorf("mount a /proc that shows processes alone: %w; it needs Linux 5.8 and a /proc of this machine that nothing is mounted over", err)
	}
	if err := processesAlone(proc); err != nil {
		return err
	}
	// In a user namespace of its own the program could mount a whole proc, but the kernel permits that
	// only where a proc is visible that nothing covers.
	if err := unix.Mount("sandbox", proc+"/1/fdinfo", "tmpfs", flags|unix.MS_RDONLY, "mode=0555"); err != nil {
		return fmt.Errorf("forbid further mounts of /proc: %w", err)
	}
	return nil
}

// processesAlone fails where a kernel, or what stands in for one, has mounted a whole proc all the same.
func processesAlone(proc string) error {
	for _, name := range []string{"/sys", "/sysrq-trigger"} {
		if _, err := os.Lstat(proc + name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the new /proc shows %s although it was asked for processes alone (%v); it needs Linux 5.8", name, err)
		}
	}
	return nil
}

// turn makes root the root, drops the old one, and closes the new one to writing.
func turn(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// Both roots on one place, the old one on top: pivot_root(2) describes this.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &attr); err != nil {
		return fmt.Errorf("close the root to writing: %w", err)
	}
	return nil
}
