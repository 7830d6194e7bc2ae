package node

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/api/envoymap"
	"github.com/maestro-conductor/maestro/index/disposition"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/strictyaml"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Services that a node can run.
const (
	ServiceLimiter = "limiter"
	ServiceIndex   = "index"
)

// ErrConfig marks a configuration that cannot be used; the message lists every problem.
var ErrConfig = errors.New("node: configuration")

// Config is everything a node is told before it starts. It comes from a YAML file; the
// environment overrides the file, and flags override both (see Settings).
type Config struct {
	// Name is the node's name in its region: lower-case letters, digits and inner hyphens,
	// at most 63. Required.
	Name string `yaml:"name"`
	// Region is the region's name, of the same form. Default "local".
	Region string `yaml:"region"`
	// DataDir is the folder of everything the node keeps. In the file, a relative path
	// starts at the file's folder. Default /var/lib/maestro.
	DataDir string `yaml:"data_dir"`
	// API is the listener for callers (TLS, HTTP/1.1 and HTTP/2). Default listen :7400.
	API Listener `yaml:"api"`
	// Cluster is the listener for the other nodes (mutual TLS). Default listen :7401.
	Cluster Listener `yaml:"cluster"`
	// Admin serves metrics, health and pprof without TLS. Default listen 127.0.0.1:7402.
	Admin AdminListener `yaml:"admin"`
	// Seeds are the one, three or five nodes that start the region, the same in the file of
	// each of them. A node that joins later names nodes of the region here, through which it
	// finds the others, and need not be among them. Required.
	Seeds []Seed `yaml:"seeds"`
	// TLS names the node's certificate. Required; made by maestro certs create.
	TLS TLSFiles `yaml:"tls"`
	// Services are what the node runs: limiter, index. Default both.
	Services []string `yaml:"services"`
	// EnvoyMapping is the path of the file that says what the descriptors of Envoy's rate limit
	// service mean; in the configuration file, a relative one starts at its folder. It is read at
	// the start. Default none, which switches that service off.
	EnvoyMapping string `yaml:"envoy_mapping"`
	// DispositionKey is the path of the Ed25519 key, in PEM, that signs the records of what retention has
	// disposed of: disposition.key of maestro certs create, the same on every node; in the configuration file, a
	// relative one starts at its folder. Default none; the node then disposes of nothing.
	DispositionKey string `yaml:"disposition_key"`
	// Groups are the Raft groups of each service. They are fixed when the region starts.
	Groups GroupCounts `yaml:"groups"`
	// Disk is how much room the node keeps on its disk.
	Disk DiskConfig `yaml:"disk"`
	// Memory is how much memory the node takes.
	Memory MemoryConfig `yaml:"memory"`
	// Packages is how much the catalog of packages may hold.
	Packages PackagesConfig `yaml:"packages"`
	// Cold is where old segments of the index go.
	Cold ColdConfig `yaml:"cold"`
	// Clock is how exact the node's wall clock must be.
	Clock ClockConfig `yaml:"clock"`
	// Log is where and how much the node reports.
	Log LogConfig `yaml:"log"`
}

// Listener is an address of the node as it sees it and as others do, each HOST:PORT.
type Listener struct {
	// Listen is where the node listens; an empty host means every interface.
	Listen string `yaml:"listen"`
	// Advertise is what others dial. Default: the address in the node's own seed entry, from
	// which it may not differ. Required for a node that is not a seed.
	Advertise string `yaml:"advertise"`
}

// AdminListener is the address for operators, HOST:PORT.
type AdminListener struct {
	Listen string `yaml:"listen"`
}

// Seed is one of the nodes that start the region.
type Seed struct {
	Name string `yaml:"name"`
	// Cluster and API are the node's advertised addresses, HOST:PORT.
	Cluster string `yaml:"cluster"`
	API     string `yaml:"api"`
}

// TLSFiles are paths of PEM files; in the configuration file, relative ones start at its
// folder.
type TLSFiles struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// GroupCounts are numbers of Raft groups, at least 1; with meta at most raftfsm.GroupsMax in
// all. Default 3 each.
type GroupCounts struct {
	Limiter int `yaml:"limiter"`
	Index   int `yaml:"index"`
}

// DiskConfig is how much room the node keeps free on the file system of its data folder.
type DiskConfig struct {
	// BallastBytes is the size of the file ballast in the data folder, which is there to be
	// deleted when the disk is full; 0 means none. Default 256 MiB: enough to start the node and
	// let it truncate its logs.
	BallastBytes uint64 `yaml:"ballast_bytes"`
	// LowBytes is how much must be free for the node to take what fills its disk; it stops in
	// order below a quarter of that. Default 0, which means 2 GiB, at most a tenth of the disk.
	LowBytes uint64 `yaml:"low_bytes"`
}

// MemoryConfig is how much memory the node takes.
type MemoryConfig struct {
	// BudgetBytes is what the node is to keep resident at most; caches are parts of it, and the heap is
	// collected more often before it exceeds its part. At least 256 MiB. Default 768 MiB.
	BudgetBytes uint64 `yaml:"budget_bytes"`
}

// PackagesConfig is how much the catalog of packages may hold.
type PackagesConfig struct {
	// BytesMax bounds the archives of the catalog, which every node keeps; what is uploaded through this node is
	// refused beyond it, and half of it is the most for one tenant. At least 64 MiB. Default 4 GiB.
	BytesMax uint64 `yaml:"bytes_max"`
}

// packagesLeast is room for the largest package of a tenant, which has half.
const packagesLeast = 64 << 20

// ClockConfig is how exact the node's wall clock must be.
type ClockConfig struct {
	// OffsetMax is how far it may be from those of the other nodes before the node stops
	// leading. Default 500ms.
	OffsetMax time.Duration `yaml:"offset_max"`
}

// LogConfig is how much the node reports on stderr, and how.
type LogConfig struct {
	// Level is debug, info, warn or error. Default info.
	Level string `yaml:"level"`
	// Format is text or json. Default text.
	Format string `yaml:"format"`
}

// Setting is one value that the environment and flags may override. Seeds and groups are not
// among them: they must be the same on every node.
type Setting struct {
	// Key is the dotted key in the file, such as "api.listen"; Env the environment variable,
	// Usage what it means.
	Key, Env, Usage string

	set func(c *Config, value string)
}

// Settings lists what can be overridden, in the order of the file.
func Settings() []Setting {
	return []Setting{
		{"name", "MAESTRO_NODE_NAME", "name of this node", func(c *Config, v string) { c.Name = v }},
		{"region", "MAESTRO_REGION", "name of the region", func(c *Config, v string) { c.Region = v }},
		{"data_dir", "MAESTRO_DATA_DIR", "folder of the node's data", func(c *Config, v string) { c.DataDir = v }},
		{"api.listen", "MAESTRO_API_LISTEN", "address for callers", func(c *Config, v string) { c.API.Listen = v }},
		{"api.advertise", "MAESTRO_API_ADVERTISE", "address that callers dial", func(c *Config, v string) { c.API.Advertise = v }},
		{"cluster.listen", "MAESTRO_CLUSTER_LISTEN", "address for other nodes", func(c *Config, v string) { c.Cluster.Listen = v }},
		{"cluster.advertise", "MAESTRO_CLUSTER_ADVERTISE", "address that other nodes dial", func(c *Config, v string) { c.Cluster.Advertise = v }},
		{"admin.listen", "MAESTRO_ADMIN_LISTEN", "address for metrics, health and pprof", func(c *Config, v string) { c.Admin.Listen = v }},
		{"tls.ca", "MAESTRO_TLS_CA", "file of the CA certificate", func(c *Config, v string) { c.TLS.CA = v }},
		{"tls.cert", "MAESTRO_TLS_CERT", "file of the node's certificate", func(c *Config, v string) { c.TLS.Cert = v }},
		{"tls.key", "MAESTRO_TLS_KEY", "file of the node's private key", func(c *Config, v string) { c.TLS.Key = v }},
		{"services", "MAESTRO_SERVICES", "services to run, separated by commas", func(c *Config, v string) { c.Services = splitList(v) }},
		{"envoy_mapping", "MAESTRO_ENVOY_MAPPING", "file of the meaning of Envoy's descriptors", func(c *Config, v string) { c.EnvoyMapping = v }},
		{"disposition_key", "MAESTRO_DISPOSITION_KEY", "file of the key that signs records of dispositions", func(c *Config, v string) { c.DispositionKey = v }},
		{"log.level", "MAESTRO_LOG_LEVEL", "debug, info, warn or error", func(c *Config, v string) { c.Log.Level = v }},
		{"log.format", "MAESTRO_LOG_FORMAT", "text or json", func(c *Config, v string) { c.Log.Format = v }},
	}
}

// Overrides are settings from outside the file.
type Overrides struct {
	// LookupEnv finds an environment variable, as os.LookupEnv does; nil reads none.
	LookupEnv func(name string) (string, bool)
	// Flags are values by the Key of their Setting; they win over the environment.
	Flags map[string]string
}

// DefaultConfig is the configuration before the file is read.
func DefaultConfig() Config {
	return Config{
		Region:   "local",
		DataDir:  "/var/lib/maestro",
		API:      Listener{Listen: ":7400"},
		Cluster:  Listener{Listen: ":7401"},
		Admin:    AdminListener{Listen: "127.0.0.1:7402"},
		Services: []string{ServiceLimiter, ServiceIndex},
		Groups:   GroupCounts{Limiter: 3, Index: 3},
		Disk:     DiskConfig{BallastBytes: 256 << 20},
		Cold:     defaultCold(),
		Memory:   MemoryConfig{BudgetBytes: 768 << 20},
		Packages: PackagesConfig{BytesMax: 4 << 30},
		Clock:    ClockConfig{OffsetMax: 500 * time.Millisecond},
		Log:      LogConfig{Level: "info", Format: "text"},
	}
}

// LoadConfig reads the file at path, applies the overrides and validates the whole. The
// error is ErrConfig and lists every problem at once.
func LoadConfig(path string, o Overrides) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w; name the file with --config", ErrConfig, err)
	}
	c, problems := parseConfig(data, filepath.Dir(path), o)
	problems = append(problems, c.missingFiles()...)
	if err := configError(path, problems); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate reports every problem of the configuration at once, as ErrConfig.
func (c Config) Validate() error { return configError("", c.problems()) }

// Self returns the node's name and addresses as others know them.
func (c Config) Self() Seed {
	if s, ok := c.seed(c.Name); ok {
		return s
	}
	return Seed{Name: c.Name, Cluster: c.Cluster.Advertise, API: c.API.Advertise}
}

// seed finds an entry among the seeds.
func (c Config) seed(name string) (Seed, bool) {
	for _, s := range c.Seeds {
		if s.Name == name {
			return s, true
		}
	}
	return Seed{}, false
}

// Runs says whether the node runs a service.
func (c Config) Runs(service string) bool { return slices.Contains(c.Services, service) }

// Logger returns the logger that a valid configuration asks for.
func (l LogConfig) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: logLevels[l.Level]}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// parseConfig is LoadConfig without the disk; dir is where relative paths start.
func parseConfig(data []byte, dir string, o Overrides) (Config, []string) {
	c := DefaultConfig()
	problems := strictyaml.Decode(data, &c)
	for _, p := range []*string{&c.DataDir, &c.TLS.CA, &c.TLS.Cert, &c.TLS.Key, &c.EnvoyMapping, &c.DispositionKey, &c.Cold.Directory, &c.Cold.S3.CredentialsFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	problems = append(problems, c.override(o)...)
	self := c.Self()
	if c.API.Advertise == "" {
		c.API.Advertise = self.API
	}
	if c.Cluster.Advertise == "" {
		c.Cluster.Advertise = self.Cluster
	}
	return c, append(problems, c.problems()...)
}

func (c *Config) override(o Overrides) []string {
	var keys []string
	for _, s := range Settings() {
		keys = append(keys, s.Key)
		if o.LookupEnv != nil {
			if v, ok := o.LookupEnv(s.Env); ok && v != "" {
				s.set(c, v)
			}
		}
		if v, ok := o.Flags[s.Key]; ok {
			s.set(c, v)
		}
	}
	var problems []string
	for k := range o.Flags {
		if !slices.Contains(keys, k) {
			problems = append(problems, fmt.Sprintf("no setting is called %q", k))
		}
	}
	slices.Sort(problems)
	return problems
}

// problems checks everything that can be checked without the disk or the network.
func (c Config) problems() []string {
	var p problemList
	p.checkName("name", c.Name)
	p.checkName("region", c.Region)
	if c.DataDir == "" {
		p.add("data_dir is empty; name the folder for the node's data")
	}
	p.checkAddress("api.listen", c.API.Listen, true)
	p.checkAddress("cluster.listen", c.Cluster.Listen, true)
	p.checkAddress("admin.listen", c.Admin.Listen, true)
	p.checkDistinctListeners(c)
	c.checkSeeds(&p)
	for _, f := range c.TLS.list() {
		if f.path == "" {
			p.add("%s is empty; maestro certs create makes the files", f.key)
		}
	}
	c.checkServices(&p)
	c.Cold.check(&p)
	if b := c.Memory.BudgetBytes; b < memoryLeast || b > 1<<50 {
		p.add("memory.budget_bytes is %d; write a number from %d (256 MiB) on", b, memoryLeast)
	}
	if b := c.Packages.BytesMax; b < packagesLeast || b > 1<<50 {
		p.add("packages.bytes_max is %d; write a number from %d (64 MiB) on", b, packagesLeast)
	}
	// A pulse over a busy network is not more exact; a token's life is not counted in minutes.
	if m := c.Clock.OffsetMax; m < 50*time.Millisecond || m > time.Minute {
		p.add("clock.offset_max is %v; write a duration from 50ms to 1m", m)
	}
	p.checkOneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.checkOneOf("log.format", c.Log.Format, "text", "json")
	return p
}

func (c Config) checkSeeds(p *problemList) {
	if n := len(c.Seeds); n != 1 && n != 3 && n != 5 {
		p.add("seeds lists %d nodes; a region starts with 1, 3 or 5 (an odd number, so that a majority is clear)", n)
	}
	names, addresses := map[string]bool{}, map[string]string{}
	for i, s := range c.Seeds {
		at := fmt.Sprintf("seeds[%d]", i)
		p.checkName(at+".name", s.Name)
		if names[s.Name] {
			p.add("%s.name %q is another seed's name too", at, s.Name)
		}
		names[s.Name] = true
		for _, a := range []struct{ key, value string }{{at + ".cluster", s.Cluster}, {at + ".api", s.API}} {
			p.checkAddress(a.key, a.value, false)
			if other, ok := addresses[a.value]; ok && a.value != "" {
				p.add("%s is %s, which is %s already", a.key, a.value, other)
			}
			addresses[a.value] = a.key
		}
	}
	if self, ok := c.seed(c.Name); ok {
		p.checkAdvertise("api", c.API.Advertise, self.API)
		p.checkAdvertise("cluster", c.Cluster.Advertise, self.Cluster)
		return
	}
	for _, a := range []struct{ key, value string }{{"api.advertise", c.API.Advertise}, {"cluster.advertise", c.Cluster.Advertise}} {
		switch other, ok := addresses[a.value]; {
		case a.value == "":
			p.add("%s is empty, and seeds does not list this node, %q; list it there if it starts the region, or write HOST:PORT here if it joins one", a.key, c.Name)
		case ok:
			p.add("%s is %s, which is %s already", a.key, a.value, other)
		default:
			p.checkAddress(a.key, a.value, false)
		}
		addresses[a.value] = a.key
	}
}

func (c Config) checkServices(p *problemList) {
	if len(c.Services) == 0 {
		p.add("services is empty; a node runs limiter, index or both")
	}
	for i, s := range c.Services {
		p.checkOneOf(fmt.Sprintf("services[%d]", i), s, ServiceLimiter, ServiceIndex)
		if slices.Contains(c.Services[:i], s) {
			p.add("services lists %q twice", s)
		}
	}
	for _, g := range []struct {
		key   string
		count int
	}{{"groups.limiter", c.Groups.Limiter}, {"groups.index", c.Groups.Index}} {
		if g.count < 1 {
			p.add("%s is %d; it must be at least 1", g.key, g.count)
		}
	}
	// One more is meta.
	if sum := 1 + c.Groups.Limiter + c.Groups.Index; sum > raftfsm.GroupsMax {
		p.add("groups.limiter and groups.index make %d groups with meta; a node hosts at most %d", sum, raftfsm.GroupsMax)
	}
}

// missingFiles reports the files that cannot be read.
func (c Config) missingFiles() []string {
	var p problemList
	for _, f := range c.TLS.list() {
		if f.path == "" {
			continue
		}
		file, err := os.Open(f.path)
		if err != nil {
			p.add("%s: %v", f.key, err)
			continue
		}
		_ = file.Close()
	}
	if _, problems := c.readEnvoyMapping(); problems != nil {
		p = append(p, problems...)
	}
	if _, err := c.loadDispositionKey(); err != nil {
		p.add("disposition_key: %v", err)
	}
	return p
}

// loadDispositionKey reads the key, if one is named.
func (c Config) loadDispositionKey() (ed25519.PrivateKey, error) {
	if c.DispositionKey == "" {
		return nil, nil
	}
	return disposition.LoadKey(c.DispositionKey)
}

// readEnvoyMapping reads the file of EnvoyMapping, if one is named, and lists what is wrong.
func (c Config) readEnvoyMapping() (*envoymap.Mapping, []string) {
	if c.EnvoyMapping == "" {
		return nil, nil
	}
	var p problemList
	if !c.Runs(ServiceLimiter) {
		p.add("envoy_mapping is %s, but services does not list %s", c.EnvoyMapping, ServiceLimiter)
	}
	m, problems, err := envoymap.Load(c.EnvoyMapping)
	if err != nil {
		p.add("envoy_mapping: %v", err)
	}
	for _, problem := range problems {
		p.add("envoy_mapping: %s: %s", c.EnvoyMapping, problem)
	}
	return m, p
}

// loadEnvoyMapping is readEnvoyMapping for a node that starts.
func (c Config) loadEnvoyMapping() (*envoymap.Mapping, error) {
	m, problems := c.readEnvoyMapping()
	return m, configError("", problems)
}

type namedFile struct{ key, path string }

func (t TLSFiles) list() []namedFile {
	return []namedFile{{"tls.ca", t.CA}, {"tls.cert", t.Cert}, {"tls.key", t.Key}}
}

// problemList collects what is wrong.
type problemList []string

func (p *problemList) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p *problemList) checkName(key, value string) {
	switch {
	case value == "":
		p.add("%s is empty", key)
	case !certs.ValidName(value):
		p.add("%s is %q; use 1 to 63 lower-case letters, digits and inner hyphens", key, value)
	}
}

// checkAddress wants HOST:PORT. An address to listen on may leave out the host, and may have
// port 0 for any free one.
func (p *problemList) checkAddress(key, value string, listen bool) {
	if value == "" {
		p.add("%s is empty; write HOST:PORT", key)
		return
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		p.add("%s is %q; write HOST:PORT, an IPv6 host in brackets", key, value)
		return
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || (n == 0 && !listen) {
		p.add("%s is %q; the port must be a number from 1 to 65535", key, value)
	}
	if !listen && (host == "" || net.ParseIP(host).IsUnspecified()) {
		p.add("%s is %q; other machines need a host they can dial", key, value)
	}
}

func (p *problemList) checkDistinctListeners(c Config) {
	listeners := []struct{ key, value string }{
		{"api.listen", c.API.Listen}, {"cluster.listen", c.Cluster.Listen}, {"admin.listen", c.Admin.Listen},
	}
	for i, l := range listeners {
		for _, other := range listeners[:i] {
			if l.value == other.value && !strings.HasSuffix(l.value, ":0") {
				p.add("%s and %s are both %q; each needs a port of its own", other.key, l.key, l.value)
			}
		}
	}
}

func (p *problemList) checkAdvertise(key, value, seed string) {
	if value != seed {
		p.add("%s.advertise is %q, but the seed entry of this node says %q; make them the same or leave advertise out", key, value, seed)
	}
}

func (p *problemList) checkOneOf(key, value string, known ...string) {
	if slices.Contains(known, value) {
		return
	}
	if near := strictyaml.Nearest(value, known); near != "" && value != "" {
		p.add("%s is %q; did you mean %q?", key, value, near)
		return
	}
	p.add("%s is %q; it must be %s", key, value, strings.Join(known, " or "))
}

func configError(path string, problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	where := ""
	if path != "" {
		where = " " + path
	}
	if len(problems) == 1 {
		return fmt.Errorf("%w%s: %s", ErrConfig, where, problems[0])
	}
	return fmt.Errorf("%w%s has %d problems:\n  %s", ErrConfig, where, len(problems), strings.Join(problems, "\n  "))
}

func splitList(v string) []string {
	var out []string
	for _, s := range strings.Split(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
