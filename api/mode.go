package api

import (
	"context"
	"strings"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

func (s *server) getMode(ctx context.Context, _ *call, _ *limiterv1.GetModeRequest) (*limiterv1.GetModeResponse, error) {
	if s.deps.Limits == nil {
		return nil, ErrServiceOff
	}
	mode, err := s.deps.Limits.LimiterMode(ctx)
	if err != nil {
		return nil, err
	}
	return &limiterv1.GetModeResponse{Mode: mode.String()}, nil
}

// setMode leaves a line in the log, whoever may look at it later: it lifts every limit.
func (s *server) setMode(ctx context.Context, c *call, r *limiterv1.SetModeRequest) (*limiterv1.SetModeResponse, error) {
	if s.deps.Limits == nil {
		return nil, ErrServiceOff
	}
	mode, ok := limiter.ParseMode(r.GetMode())
	if !ok {
		return nil, refuse(reasonFieldMalformed, "mode: %q is no mode; use %s", r.GetMode(), strings.Join(limiter.Modes[:], ", "))
	}
	before, err := s.deps.Limits.SetLimiterMode(ctx, mode)
	if err != nil {
		return nil, err
	}
	s.log.Warn("audit: the mode of the limits was set", "mode", mode.String(), "before", before.String(), "principal", c.principal.ID)
	return &limiterv1.SetModeResponse{Mode: mode.String(), Before: before.String()}, nil
}
