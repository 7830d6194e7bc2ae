package devregion

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	restartMin = 200 * time.Millisecond
	restartMax = 2 * time.Second
	// stableAfter is how long a node must have run for the next restart to be quick again.
	stableAfter = 10 * time.Second
	stopTimeout = 10 * time.Second
	// startFailures is how many exits before the region is ready count as a node that cannot
	// run.
	startFailures = 3
)

// process keeps one node running until it is stopped.
type process struct {
	name, dir string
	onPID     func(pid int) error // told of each start, and of each end with 0
	report    func(line string)   // told of each end that nobody asked for
	quit      chan struct{}       // closed by stop
	ended     chan struct{}       // closed when the last process has gone
	broken    chan struct{}       // closed when the node exited too often

	mu     sync.Mutex
	binary string    // of the next process
	cmd    *exec.Cmd // the running process, or nil
	exits  int
	last   error
	held   chan struct{} // closed by release; nil while the node is not held
	said   *output       // of the latest process
}

func startProcess(name, binary, dir string, onPID func(pid int) error, report func(line string)) *process {
	p := &process{
		name: name, binary: binary, dir: dir, onPID: onPID, report: report,
		quit: make(chan struct{}), ended: make(chan struct{}), broken: make(chan struct{}),
	}
	go p.supervise()
	return p
}

// supervise runs the node again and again. It stays on one thread: on Linux a child is told
// about the death of the thread that started it, not of the process.
func (p *process) supervise() {
	runtime.LockOSThread()
	defer close(p.ended)
	backoff := restartMin
	for {
		started := time.Now()
		err := p.runOnce()
		if time.Since(started) > stableAfter {
			backoff = restartMin
		}
		p.noteExit(err)
		select {
		case <-p.quit:
			return
		default:
			p.report(fmt.Sprintf("%s ended (%v); starting it again; it said last:\n  %s", p.name, err, p.saidLast(2)))
		}
		select {
		case <-p.quit:
			return
		case <-time.After(backoff):
		}
		p.awaitRelease()
		backoff = min(2*backoff, restartMax)
	}
}

func (p *process) runOnce() error {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.nextBinary(), "node", "--config", filepath.Join(p.dir, "node.yaml"))
	said := &output{log: log}
	cmd.Stdout, cmd.Stderr = said, said
	p.mu.Lock()
	p.said = said
	p.mu.Unlock()
	cmd.Dir = p.dir
	cmd.Env = nodeEnvironment(os.Environ())
	cmd.SysProcAttr = nodeAttributes()
	if err := p.begin(cmd); err != nil {
		return err
	}
	err = p.onPID(cmd.Process.Pid)
	return errors.Join(err, cmd.Wait(), p.onPID(0))
}

func (p *process) nextBinary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.binary
}

// begin starts cmd unless stop came first.
func (p *process) begin(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.quit:
		return errors.New("stopped before it started")
	default:
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	return nil
}

func (p *process) noteExit(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.last = nil, err
	if p.exits++; p.exits == startFailures {
		close(p.broken)
	}
}

// stop tells the node to end, and ends it when it does not; it does not wait.
func (p *process) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.quit:
		return
	default:
	}
	close(p.quit)
	if p.cmd == nil {
		return
	}
	running := p.cmd.Process
	_ = running.Signal(syscall.SIGTERM) // fails when it has just gone, which is the aim
	_ = running.Signal(syscall.SIGCONT) // a paused node cannot hear
	timer := time.AfterFunc(stopTimeout, func() { _ = running.Kill() })
	go func() {
		<-p.ended
		timer.Stop()
	}()
}

func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("devregion: %s is not running at this moment", p.name)
	}
	return p.cmd.Process.Signal(sig)
}

// saidLast is the end of what the latest process said.
func (p *process) saidLast(lines int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said == nil {
		return "nothing"
	}
	return p.said.end(lines)
}

// failure says why the node does not stay, with the end of its log.
func (p *process) failure() error {
	said := p.saidLast(5)
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("%w: %s exited %d times, at last with %w; the end of %s:\n  %s",
		ErrStart, p.name, p.exits, p.last, filepath.Join(p.dir, "log"), said)
}

// nodeEnvironment leaves out what would override a node's own file.
func nodeEnvironment(env []string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "MAESTRO_") || strings.HasPrefix(kv, "MAESTRO_LOG_") {
			out = append(out, kv)
		}
	}
	return out
}
