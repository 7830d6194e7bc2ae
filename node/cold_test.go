package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/objectstore"
)

// The store is one of a folder and a bucket, and mistakes are told with their remedy.
func TestColdConfig(t *testing.T) {
	for text, want := range map[string]string{
		"cold: {directory: seg}": "",
		"cold: {s3: {endpoint: 'h:1', bucket: b, credentials_file: keys.yaml}}": "",
		"cold: {directory: seg, s3: {endpoint: 'h:1', bucket: b}}":              "cold.directory and cold.s3 are both set",
		"cold: {s3: {bucket: b}}":                "cold.s3 needs endpoint",
		"cold: {directory: seg, after: 1s}":      "cold.after is 1s",
		"cold: {directory: seg, cache_bytes: 5}": "cold.cache_bytes is 5",
		"cold: {directory: seg, keep: -1s}":      "cold.keep is -1s",
	} {
		c, problems := parseConfig([]byte(text), "/etc/maestro", Overrides{})
		said := ""
		for _, p := range problems {
			if strings.Contains(p, "cold") {
				said += p
			}
		}
		if (said == "") != (want == "") || !strings.Contains(said, want) {
			t.Errorf("%s: %q, want %q", text, said, want)
		}
		if d := c.Cold.Directory; d != "" && d != "/etc/maestro/seg" {
			t.Errorf("%s: %s", text, d)
		}
		if f := c.Cold.S3.CredentialsFile; f != "" && f != "/etc/maestro/keys.yaml" {
			t.Errorf("%s: %s", text, f)
		}
	}
}

// Credentials come from a file or the environment, and a half is refused.
func TestColdCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.yaml")
	check(t, os.WriteFile(file, []byte("access_key: a\nsecret_key: b\n"), 0o600))
	if got, err := (ColdS3Config{CredentialsFile: file}).credentials(); err != nil || got != (coldCredentials{"a", "b"}) {
		t.Errorf("%+v, %v", got, err)
	}
	t.Setenv("MAESTRO_COLD_ACCESS_KEY", "c")
	if _, err := (ColdS3Config{}).credentials(); err == nil {
		t.Error("half of a key is taken")
	}
	t.Setenv("MAESTRO_COLD_SECRET_KEY", "d")
	if got, err := (ColdS3Config{}).credentials(); err != nil || got != (coldCredentials{"c", "d"}) {
		t.Errorf("%+v, %v", got, err)
	}
	c := DefaultConfig()
	c.DataDir, c.Cold.Directory = t.TempDir(), t.TempDir()
	cache, err := c.openCold()
	check(t, err)
	if _, ok := cache.Store().(*objectstore.Dir); !ok || len(coldMetrics([]*index.Machine{}, cache)) == 0 {
		t.Errorf("%T", cache.Store())
	}
}
