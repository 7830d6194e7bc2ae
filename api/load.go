package api

import "time"

// CheckLoad learns of checks that were answered; *elastic.Pacer is one.
type CheckLoad interface {
	// Answered is called for a request that is one check, with the time since its arrival.
	Answered(took time.Duration)
	// AnsweredMany is called for a request of many.
	AnsweredMany()
}

type noLoad struct{}

func (noLoad) Answered(time.Duration) {}
func (noLoad) AnsweredMany()          {}
