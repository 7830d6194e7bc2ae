//go:build interop

package objectstore_test

import (
	"testing"

	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/internal/objectstore/storetest"
)

// A real S3 server keeps objects as a folder does, and refuses other keys.
func TestS3(t *testing.T) {
	conf, end := storetest.SeaweedFS(t)
	open := func(c objectstore.S3Config) *objectstore.S3 {
		s, err := objectstore.NewS3(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	storetest.Run(t, open(conf))
	wrong := conf
	wrong.SecretKey = "another"
	storetest.Unavailable(t, open(wrong))
	missing := conf
	missing.Bucket = "nothing"
	storetest.Unavailable(t, open(missing))
	bare := conf
	bare.Prefix = ""
	storetest.RunCache(t, open(bare), end)
}
