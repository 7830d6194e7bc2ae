package api

import "sync"

// gate bounds the requests of one class that are under way, in all and for each tenant.
type gate struct {
	most    int
	mostOne int

	mu       sync.Mutex
	inFlight int
	byTenant map[string]int
}

// newGate lets a single tenant take at most half of the room.
func newGate(most int) *gate {
	return &gate{most: most, mostOne: max(1, most/2), byTenant: map[string]int{}}
}

func newGates() [classes]*gate {
	return [classes]*gate{
		classCheck:  newGate(inFlightChecks),
		classSearch: newGate(inFlightSearch),
		classIngest: newGate(inFlightIngest),
		classStream: newGate(inFlightStreams),
		classAdmin:  newGate(inFlightAdmin),
	}
}

// enter takes a place, or says why there is none. A nil fault obliges to call leave.
func (g *gate) enter(tenant string) *fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inFlight >= g.most {
		return refuse(reasonOverloaded, "this node has %d requests of this kind under way, the most it takes", g.most)
	}
	if tenant != AllTenants {
		if g.byTenant[tenant] >= g.mostOne {
			return refuse(reasonTenantOverloaded, "tenant %s has %d requests of this kind under way on this node, the most it may have", tenant, g.mostOne)
		}
		g.byTenant[tenant]++
	}
	g.inFlight++
	return nil
}

func (g *gate) leave(tenant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if tenant == AllTenants {
		return
	}
	// A tenant with nothing under way leaves no trace: the map is bounded by most.
	if g.byTenant[tenant]--; g.byTenant[tenant] == 0 {
		delete(g.byTenant, tenant)
	}
}
