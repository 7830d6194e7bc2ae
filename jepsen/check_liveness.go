package main

import "time"

// checkFaults demands that every kind of fault happened: a quiet run proves nothing.
func checkFaults(h *History) Finding {
	f := Finding{Checker: "faults", What: "faults that happened"}
	for _, fault := range h.Faults {
		if fault.Error != "" {
			f.violate("%s of %s at %v: %s", fault.Kind, fault.Node, time.Duration(fault.Started), fault.Error)
			continue
		}
		f.Checked++
		if !fault.Recovered {
			f.violate("%s of %s at %v: the region was not whole again after %v",
				fault.Kind, fault.Node, time.Duration(fault.Started), time.Duration(fault.Ended-fault.Started))
		}
	}
	for _, kind := range faultKinds {
		if faultCount(h, kind) == 0 {
			f.violate("no %s happened; let the run last longer", kind)
		}
	}
	checkUpgrade(h, &f)
	if n := stormCount(h); n < h.Header.Kills {
		f.violate("%d of %d kills at random moments happened", n, h.Header.Kills)
	}
	return f
}

// stormCount counts the kills of storms.
func stormCount(h *History) int {
	n := 0
	for _, f := range h.Faults {
		n += f.Kills
	}
	return n
}

// checkLiveness demands that every probe of the healed region succeeded in time.
func checkLiveness(h *History) Finding {
	f := Finding{Checker: "liveness after heal", What: "probes"}
	for _, p := range h.Probes {
		f.Checked++
		switch took := time.Duration(p.TookNs); {
		case p.Error != "":
			f.violate("%s: %s (after %v)", p.Name, p.Error, took)
		case took > healTimeout:
			f.violate("%s: took %v, more than %v", p.Name, took, healTimeout)
		}
	}
	return f
}

// faultCount counts the faults of a kind that certainly happened.
func faultCount(h *History, kind string) int {
	n := 0
	for _, f := range h.Faults {
		if f.Kind == kind && f.Error == "" {
			n++
		}
	}
	return n
}
