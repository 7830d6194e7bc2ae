package api

import (
	"context"
	"strings"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

func (s *server) getIndexMode(ctx context.Context, _ *call, _ *provenancev1.GetModeRequest) (*provenancev1.GetModeResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	mode, err := s.deps.Index.IndexMode(ctx)
	if err != nil {
		return nil, err
	}
	return &provenancev1.GetModeResponse{Mode: mode.String()}, nil
}

// setIndexMode leaves a line in the log, whoever may look at it later.
func (s *server) setIndexMode(ctx context.Context, c *call, r *provenancev1.SetModeRequest) (*provenancev1.SetModeResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	mode, ok := index.ParseMode(r.GetMode())
	if !ok {
		return nil, refuse(reasonFieldMalformed, "mode: %q is no mode; use %s", r.GetMode(), strings.Join(index.Modes[:], ", "))
	}
	before, err := s.deps.Index.SetIndexMode(ctx, mode)
	if err != nil {
		return nil, err
	}
	s.log.Warn("audit: the mode of the index was set", "mode", mode.String(), "before", before.String(), "principal", c.principal.ID)
	return &provenancev1.SetModeResponse{Mode: mode.String(), Before: before.String()}, nil
}
