package meta

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Keys of the settings.
const (
	settingCluster     = "cluster"    // cluster id, region
	settingCursorKey   = "cursor_key" // authenticates the cursors of searches
	settingLimiterMode = "limiter_mode"
	settingIndexMode   = "index_write"
)

const (
	cursorKeyBytes      = 32
	clusterValueVersion = 1
)

// ErrOtherCluster means that the region was founded under another cluster id or name.
var ErrOtherCluster = errors.New("meta: the stored region is another one; check the node's data folder and its configured region")

// Settings are what a region is called for its whole life.
type Settings struct {
	ClusterID string
	Region    string
}

func encodeCluster(s Settings) []byte {
	b := wire.AppendString([]byte{clusterValueVersion}, s.ClusterID)
	return wire.AppendString(b, s.Region)
}

func decodeCluster(b []byte) (Settings, error) {
	r := wire.NewReader(b)
	v := r.Byte(clusterValueVersion)
	s := Settings{ClusterID: r.String(nameBytesMax), Region: r.String(nameBytesMax)}
	if err := r.Done(); err != nil || v != clusterValueVersion {
		return Settings{}, errRow("setting " + settingCluster)
	}
	return s, nil
}

func validSetting(key string, value []byte) error {
	switch key {
	case settingCluster:
		_, err := decodeCluster(value)
		return err
	case settingCursorKey:
		if len(value) != cursorKeyBytes {
			return fmt.Errorf("%w: cursor key of %d bytes", errCodec, len(value))
		}
		return nil
	case settingLimiterMode:
		_, err := limiterMode.decode(value)
		return err
	case settingIndexMode:
		_, err := indexMode.decode(value)
		return err
	}
	if isRetention(key) {
		_, err := decodeRetention(key, value)
		return err
	}
	return fmt.Errorf("%w: setting %q is unknown to this build", errCodec, key)
}

// EnsureSettings founds the region's settings, or finds that they are there already. It
// returns ErrOtherCluster when they name another cluster or region.
func (s *Service) EnsureSettings(ctx context.Context, clusterID, region string) error {
	var key [cursorKeyBytes]byte
	rand.Read(key[:]) // never fails: crypto/rand ends the process instead
	cluster := encodeCluster(Settings{ClusterID: clusterID, Region: region})
	_, err := s.change(ctx, change{table: tableSettings, actor: anyOwner, steps: []step{
		{kind: kindKeep, key: settingCluster, owner: anyOwner, value: cluster},
		{kind: kindKeep, key: settingCursorKey, owner: anyOwner, value: key[:]},
	}}, raftfsm.RequestID{})
	if err != nil {
		return fmt.Errorf("meta: settings of region %s: %w", region, err)
	}
	f, err := s.read(ctx, tableSettings, 0)
	if err != nil {
		return fmt.Errorf("meta: settings of region %s: %w", region, err)
	}
	if stored := f.records[settingCluster]; !bytes.Equal(stored.value, cluster) {
		return fmt.Errorf("meta: settings of region %s, cluster %s: %w", region, clusterID, ErrOtherCluster)
	}
	return nil
}

// Settings are the region's settings as this node knows them; false before they are founded
// or have reached this node.
func (s *Service) Settings() (Settings, bool) {
	value, ok := s.machine.views.setting(settingCluster)
	if !ok {
		return Settings{}, false
	}
	found, err := decodeCluster(value)
	return found, err == nil
}

// CursorKey is the region's secret for authenticating cursors, 32 bytes that never change, as
// this node knows it; false before it is founded or has reached this node.
func (s *Service) CursorKey() ([]byte, bool) {
	value, ok := s.machine.views.setting(settingCursorKey)
	return bytes.Clone(value), ok
}
