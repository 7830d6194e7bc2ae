package objectstore_test

import (
	"context"
	"os"
	"testing"

	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/internal/objectstore/storetest"
)

func TestDir(t *testing.T) {
	storetest.Run(t, objectstore.NewDir(t.TempDir()))
}

// A folder that is not there is no empty store.
func TestDirWithoutFolder(t *testing.T) {
	dir := t.TempDir()
	s := objectstore.NewDir(dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	storetest.Unavailable(t, s)
}

// What a server that does not answer means is the same.
func TestS3WithoutServer(t *testing.T) {
	s, err := objectstore.NewS3(objectstore.S3Config{Endpoint: "127.0.0.1:1", Insecure: true, Bucket: "b", Region: "us-east-1", AccessKey: "k", SecretKey: "s"})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Unavailable(t, s)
}

// The cache is bounded, reads what it lacks, forgets what is wrong, and does not wait for a store that has failed.
func TestCache(t *testing.T) {
	dir := t.TempDir()
	storetest.RunCache(t, objectstore.NewDir(dir), func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	})
}

// No name leads out of the folder.
func TestNames(t *testing.T) {
	s := objectstore.NewDir(t.TempDir())
	for name, ok := range map[string]bool{
		"region/index-0/0000-ab.segment": true, "a": true, "..": false, "a/../../b": false, "/a": false, "a//b": false, "a/": false, "": false, ".": false, "a b": false, "a\\b": false,
	} {
		if err := objectstore.CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err := s.Delete(context.Background(), name); (err == nil) != ok {
			t.Errorf("delete %q: %v", name, err)
		}
	}
}
