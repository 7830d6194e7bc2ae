package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit  = time.Minute
	idleSettle  = 3 * time.Second
	stopPatient = 20 * time.Second
)

// measureStart runs maestro dev in fresh folders, as a user would, up to its line "ready".
func measureStart(ctx context.Context, b *bench) error {
	var took []time.Duration
	for i := range b.starts {
		d, err := b.startOnce(ctx, filepath.Join(b.dir, fmt.Sprintf("start-%d", i)))
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	slices.Sort(took)
	median, longest := summary(took)
	c := config{"runs": len(took), "data": "empty, with sample content"}
	b.report.scalar("start.ready.median", milliseconds(median), "ms", c)
	b.report.scalar("start.ready.max", milliseconds(longest), "ms", c)
	return nil
}

func (b *bench) startOnce(ctx context.Context, dir string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.binary, "dev", "--dir", filepath.Join(dir, "dev"), "--config-dir", filepath.Join(dir, "config"), "--port-base", "0")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopPatient
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var took time.Duration
	lines := bufio.NewScanner(out)
	for took == 0 && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready") {
			took = time.Since(began)
		}
	}
	cancel()
	if err := cmd.Wait(); took == 0 {
		return 0, errors.Join(errors.New("maestro dev ended without becoming ready"), err)
	}
	return took, nil
}

// measureIdle looks at a region that nobody calls.
func measureIdle(ctx context.Context, b *bench) error {
	if err := b.up(ctx); err != nil {
		return err
	}
	time.Sleep(idleSettle)
	before, err := b.cpu()
	if err != nil {
		return err
	}
	time.Sleep(b.idle)
	after, err := b.cpu()
	if err != nil {
		return err
	}
	rss, err := b.rss()
	if err != nil {
		return err
	}
	c := config{"data": "empty", "over_s": b.idle.Seconds()}
	b.report.scalar("idle.cpu", 100*(after-before).Seconds()/b.idle.Seconds(), "% of one core, region", c)
	b.report.scalar("idle.rss", float64(rss)/(1<<20), "MiB, largest node", c)
	return nil
}
