package raftfsm

import (
	"path/filepath"
	"time"
)

// openLogStore is the log in the bolt file at path, as a host has it.
func openLogStore(path string, retain Retention, keep *timekeeper, fatal func(string, error), wrote func(int, time.Duration)) (*logStore, error) {
	file, err := openBolt(filepath.Dir(path), 0)
	if err != nil {
		return nil, err
	}
	return newLogStore(file, path, retain, keep, fatal, wrote), nil
}
