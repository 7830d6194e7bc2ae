package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/internal/strictyaml"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// ColdConfig is where old segments of the index go: one of a folder and a bucket. With neither they stay on the nodes. It must
// be the same on every node.
type ColdConfig struct {
	// Directory is a folder that exists, the same one on every node: a network mount. Relative ones start at the file's
	// folder.
	Directory string `yaml:"directory"`
	// S3 is a bucket that exists.
	S3 ColdS3Config `yaml:"s3"`
	// After is how long ago the last document of a segment must have arrived. Default 720h, a month; at least 1m.
	After time.Duration `yaml:"after"`
	// Keep is how long an object stays that no segment is in any more: as long as backups are kept that name it.
	// Default 720h.
	Keep time.Duration `yaml:"keep"`
	// CacheBytes is how much of the store the node keeps on its disk. Default 1 GiB; at least 16 MiB.
	CacheBytes int64 `yaml:"cache_bytes"`
}

// ColdS3Config names a bucket of an S3 service.
type ColdS3Config struct {
	// Endpoint is HOST or HOST:PORT. Insecure speaks HTTP to it.
	Endpoint string `yaml:"endpoint"`
	Insecure bool   `yaml:"insecure"`
	Region   string `yaml:"region"`
	Bucket   string `yaml:"bucket"`
	// Prefix comes before the names of objects.
	Prefix string `yaml:"prefix"`
	// CredentialsFile is the path of a YAML file, mode 0600, with access_key and secret_key; relative ones start at the
	// file's folder. Without it they are in the environment: MAESTRO_COLD_ACCESS_KEY and MAESTRO_COLD_SECRET_KEY.
	CredentialsFile string `yaml:"credentials_file"`
}

// coldCacheFolder is in the data folder.
const coldCacheFolder = "cold-cache"

func defaultCold() ColdConfig {
	return ColdConfig{After: 720 * time.Hour, Keep: 720 * time.Hour, CacheBytes: 1 << 30}
}

// on tells whether there is a store.
func (c ColdConfig) on() bool { return c.Directory != "" || c.S3.Endpoint != "" }

// checkCold lists what is wrong.
func (c ColdConfig) check(p *problemList) {
	if c.Directory != "" && c.S3 != (ColdS3Config{}) {
		p.add("cold.directory and cold.s3 are both set; write one of them")
	}
	if c.S3 != (ColdS3Config{}) && (c.S3.Endpoint == "" || c.S3.Bucket == "") {
		p.add("cold.s3 needs endpoint, as HOST or HOST:PORT, and bucket")
	}
	if c.After < time.Minute {
		p.add("cold.after is %v; write a duration from 1m on", c.After)
	}
	if c.Keep < 0 {
		p.add("cold.keep is %v; write a duration from 0s on", c.Keep)
	}
	if c.CacheBytes < 16<<20 {
		p.add("cold.cache_bytes is %d; write a number from %d (16 MiB) on", c.CacheBytes, 16<<20)
	}
}

// coldCredentials identify the node to an S3 service.
type coldCredentials struct {
	AccessKey string `yaml:"access_key"`
	SecretKey string `yaml:"secret_key"`
}

func (c ColdS3Config) credentials() (coldCredentials, error) {
	found := coldCredentials{os.Getenv("MAESTRO_COLD_ACCESS_KEY"), os.Getenv("MAESTRO_COLD_SECRET_KEY")}
	if c.CredentialsFile != "" {
		data, err := os.ReadFile(filepath.Clean(c.CredentialsFile))
		if err != nil {
			return found, err
		}
		found = coldCredentials{}
		if problems := strictyaml.Decode(data, &found); len(problems) > 0 {
			return found, fmt.Errorf("%s: %s", c.CredentialsFile, problems[0])
		}
	}
	if (found.AccessKey == "") != (found.SecretKey == "") {
		return found, fmt.Errorf("an access key needs a secret key, and the other way round")
	}
	return found, nil
}

// openCold opens the store behind its cache; nil when there is none.
func (c Config) openCold() (*objectstore.Cache, error) {
	if !c.Cold.on() || !c.Runs(ServiceIndex) {
		return nil, nil
	}
	var store objectstore.Store = objectstore.NewDir(c.Cold.Directory)
	if s3 := c.Cold.S3; s3.Endpoint != "" {
		keys, err := s3.credentials()
		if err != nil {
			return nil, fmt.Errorf("node: cold.s3: %w", err)
		}
		store, err = objectstore.NewS3(objectstore.S3Config{
			Endpoint: s3.Endpoint, Insecure: s3.Insecure, Region: s3.Region, Bucket: s3.Bucket, Prefix: s3.Prefix,
			AccessKey: keys.AccessKey, SecretKey: keys.SecretKey,
		})
		if err != nil {
			return nil, fmt.Errorf("node: cold.s3: %w", err)
		}
	}
	return objectstore.NewCache(store, filepath.Join(c.DataDir, coldCacheFolder), c.Cold.CacheBytes)
}

// keepCold runs at an index shard's leader: it has the log make old segments cold.
func (n *Node) keepCold(ctx context.Context, rec *record, s index.Shard, m *index.Machine) {
	if !n.cfg.Cold.on() || !n.awaitStarted(ctx) {
		return
	}
	run := n.services.running.Load()
	m.Freeze(ctx, &index.Freezer{
		Owner: rec.ClusterID, Shard: s.Name, Level: n.host.Level, After: n.cfg.Cold.After, Keep: n.cfg.Cold.Keep,
		Peers: replicas{n.host, s.Group}, Log: n.log,
		Stopped: func() bool { return run.tables.IndexMode() != index.ModeReadWrite },
		Propose: func(ctx context.Context, command []byte) ([]byte, error) {
			res, err := n.host.Propose(ctx, s.Group, raftfsm.Command{Data: command})
			return res.Data, err
		},
	})
}

// coldMetrics tell how cold segments are read.
func coldMetrics(shards []*index.Machine, c *objectstore.Cache) []prometheus.Collector {
	gauge := func(name, help string, of func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, of)
	}
	reads := func(outcome string, of func(objectstore.Reads) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mc_prov_cold_reads_total", Help: "Chunks of cold segments that were wanted: read of the store, cached on the disk, or failed.",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(of(c.Reads())) })
	}
	return []prometheus.Collector{
		gauge("mc_prov_cold_segments", "Segments of this node's shards whose bytes are in the object store.", func() float64 {
			cold := 0
			for _, m := range shards {
				cold += m.Cold()
			}
			return float64(cold)
		}),
		gauge("mc_prov_cold_cache_bytes", "What this node keeps of the object store on its disk.", func() float64 { return float64(c.Reads().Bytes) }),
		reads("store", func(r objectstore.Reads) uint64 { return r.Store }),
		reads("cached", func(r objectstore.Reads) uint64 { return r.Cached }),
		reads("failed", func(r objectstore.Reads) uint64 { return r.Failed }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mc_prov_cold_damaged_total", Help: "Reads that found wrong bytes in the object of a cold segment.",
		}, func() float64 {
			damaged := uint64(0)
			for _, m := range shards {
				damaged += m.ObjectsDamaged()
			}
			return float64(damaged)
		}),
	}
}
