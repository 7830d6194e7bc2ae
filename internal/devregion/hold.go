package devregion

import (
	"fmt"
	"syscall"
)

// Hold ends a node with SIGKILL and keeps it down until Release: a machine that is away.
func (r *Region) Hold(node string) error {
	p, err := r.process(node)
	if err != nil {
		return err
	}
	p.hold()
	return p.signal(syscall.SIGKILL)
}

// Release lets a held node start again.
func (r *Region) Release(node string) error {
	p, err := r.process(node)
	if err == nil {
		p.release()
	}
	return err
}

// Upgrade stops a node in order; it starts again as another build.
func (r *Region) Upgrade(node, binary string) error {
	p, err := r.process(node)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.binary = binary
	p.mu.Unlock()
	return p.signal(syscall.SIGTERM)
}

func (r *Region) process(node string) (*process, error) {
	for _, n := range r.nodes {
		if n.name == node {
			return n, nil
		}
	}
	return nil, fmt.Errorf("devregion: no node %q", node)
}

func (p *process) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// awaitRelease returns when the node is not held, or is to stop.
func (p *process) awaitRelease() {
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-p.quit:
	}
}
