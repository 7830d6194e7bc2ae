package index

import "github.com/cespare/xxhash/v2"

// router finds the shard of a document by rendezvous hashing (Thaler, Ravishankar 1998) of
// tenant and id over the region's fixed list of shards. A document's shard never changes.
type router struct{ seeds []uint64 }

func newRouter(shards []Shard) router {
	seeds := make([]uint64, len(shards))
	for i, s := range shards {
		seeds[i] = xxhash.Sum64String(s.Name)
	}
	return router{seeds}
}

// shard is the index of a document's shard.
func (r router) shard(tenant, id string) int {
	var buf [1 + MaxTenantBytes + MaxIDBytes]byte
	h := xxhash.Sum64(append(append(append(buf[:0], tenant...), 0), id...))
	best, most := 0, uint64(0)
	for i, seed := range r.seeds {
		if score := mix(h ^ seed); score > most || i == 0 {
			best, most = i, score
		}
	}
	return best
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input
// reaches every bit of the output.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
