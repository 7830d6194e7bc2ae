package segment

// Stats counts what was done with an observed segment. One goroutine uses it.
type Stats struct {
	Probes, Misses        uint64 // terms asked for, and those that the filter excluded
	BlocksRead, BytesRead uint64
	BlocksCached          uint64
	Examined              uint64 // documents looked at one by one
}

// Observed is the same segment, which counts in stats what is done with it, for one goroutine.
// It is not closed.
func (s *Segment) Observed(stats *Stats) *Segment {
	seen := *s
	seen.stats = stats
	return &seen
}

func (s *Segment) notePosting(excluded bool) {
	if s.stats != nil {
		s.stats.Probes++
		if excluded {
			s.stats.Misses++
		}
	}
}

func (s *Segment) noteCached() {
	if s.stats != nil {
		s.stats.BlocksCached++
	}
}

func (s *Segment) noteRead(bytes int) {
	if s.stats != nil {
		s.stats.BlocksRead++
		s.stats.BytesRead += uint64(bytes)
	}
}

func (s *Segment) noteExamined(documents int) {
	if s.stats != nil {
		s.stats.Examined += uint64(documents)
	}
}
