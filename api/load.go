package api

import "time"

// Load learns of checks and searches that were answered; *elastic.Pacer is one.
type Load interface {
	// Answered is called for a request that is one check, with the time since its arrival.
	Answered(took time.Duration)
	// AnsweredMany is called for a request of many.
	AnsweredMany()
	// Searched is called for a search, with the time that it took.
	Searched(took time.Duration)
}

type noLoad struct{}

func (noLoad) Answered(time.Duration) {}
func (noLoad) AnsweredMany()          {}
func (noLoad) Searched(time.Duration) {}
