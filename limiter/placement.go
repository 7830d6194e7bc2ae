package limiter

import (
	"encoding/binary"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/.
const (
	fnvOffset uint64 = 14695981039346656037
	fnvPrime  uint64 = 1099511628211
)

// place picks the group that decides for tenant by rendezvous hashing (Thaler and
// Ravishankar, 1998): every group has a weight for the tenant, and the heaviest wins. The
// result depends on the set of groups alone. It must never change: a tenant that moved would
// find fresh counters.
func place(tenant string, groups []raftfsm.GroupID) raftfsm.GroupID {
	best, heaviest := groups[0], weight(tenant, groups[0])
	for _, g := range groups[1:] {
		if w := weight(tenant, g); w > heaviest || w == heaviest && g < best {
			best, heaviest = g, w
		}
	}
	return best
}

// weight is FNV-1a over the group id, four bytes big endian, and the tenant, finished with
// the mixer of MurmurHash3 because FNV's last bytes hardly reach its high bits.
func weight(tenant string, group raftfsm.GroupID) uint64 {
	h := fnvOffset
	for _, c := range binary.BigEndian.AppendUint32(nil, uint32(group)) {
		h = (h ^ uint64(c)) * fnvPrime
	}
	for i := range len(tenant) {
		h = (h ^ uint64(tenant[i])) * fnvPrime
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
