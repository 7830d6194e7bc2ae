package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// adminServer serves operators: /metrics, /healthz, /readyz, /debug/state and
// /debug/pprof, without TLS or
// identity, so it belongs on loopback or a guarded network. A node that is ready lists below
// that what should be mended although it serves.
func adminServer(reg *prometheus.Registry, ready func() error, warnings func() []string, states func() ([]raftfsm.ReplicaState, error)) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			answerText(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
		answerText(w, http.StatusOK, strings.Join(append([]string{"ready"}, warnings()...), "\n"))
	})
	// What every replica of this node holds, to compare nodes by: it reads the whole state, so
	// one request at a time.
	var reading sync.Mutex
	mux.HandleFunc("GET /debug/state", func(w http.ResponseWriter, _ *http.Request) {
		reading.Lock()
		defer reading.Unlock()
		list, err := states()
		if err != nil {
			answerText(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list) // the caller has gone if this fails
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
}

func answerText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // the caller has gone if this fails
}

// serveAdmin runs the server until it is closed.
func serveAdmin(s *http.Server, ln net.Listener) error {
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("node: admin port: %w", err)
	}
	return nil
}
