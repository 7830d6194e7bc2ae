package limiter

import (
	"encoding/binary"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// recallVersion is the layout of what holders tell each other.
const recallVersion = 1

// appendRecallMessage asks holders to give back what they have of counters of a tenant.
func appendRecallMessage(b []byte, tenant string, all []Recall) []byte {
	b = wire.AppendString(append(b, recallVersion), tenant)
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, r := range all {
		b = binary.AppendUvarint(b, r.Limit)
		b = wire.AppendString(b, r.Subject)
		b = binary.AppendUvarint(b, uint64(len(r.Holders)))
		for _, h := range r.Holders {
			b = binary.BigEndian.AppendUint64(b, uint64(h))
		}
	}
	return b
}

func decodeRecallMessage(b []byte) (tenant string, all []Recall, err error) {
	r := wire.NewReader(b)
	version := r.Byte(recallVersion)
	tenant, all = r.String(nameBytesMax), readRecalls(r)
	if r.Done() != nil || version != recallVersion {
		return "", nil, errRecall
	}
	return tenant, all, nil
}
